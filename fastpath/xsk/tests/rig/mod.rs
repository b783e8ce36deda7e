//! Network namespaces and veths for the tests. A missing privilege fails the test with its reason.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod packet;
pub mod transport;

use std::{
    fs::File,
    os::fd::AsFd,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use margay_xsk::{
    Frame, Mode, Pool, Region, RegionConfig, Socket, SocketOptions, Umem, UmemOptions,
    program::{HostFlowProgram, InwardProgram, PodProgram, PortProgram, Uplink},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, deleted on drop.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new namespace whose name begins with `mgx`.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mgx{}n{number}", std::process::id());
        command("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace, arguments separated by spaces.
    pub fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        command("ip", &all);
    }

    /// Runs any command in the namespace, and returns what it printed.
    pub fn exec(&self, line: &str) -> String {
        let mut all = vec!["netns", "exec", &self.name];
        all.extend(line.split_whitespace());
        String::from_utf8_lossy(&command("ip", &all).stdout).into_owned()
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a closure on a thread that is in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        let inside = || {
            let file = File::open(&path).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|error| panic!("cannot enter {path}: {error}; run as root"));
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The index of an interface in the namespace.
    pub fn ifindex(&self, interface: &str) -> u32 {
        let path = format!("/sys/class/net/{interface}/ifindex");
        self.exec(&format!("cat {path}")).trim().parse().unwrap()
    }

    /// The Ethernet address of an interface in the namespace.
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let text = self.exec(&format!("cat /sys/class/net/{interface}/address"));
        let mut bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
        std::array::from_fn(|_| bytes.next().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A veth pair between two namespaces, both ends up, without addresses and without IPv6 chatter.
pub fn veth(a: &Namespace, a_end: &str, b: &Namespace, b_end: &str) {
    let b_name = b.name().to_owned();
    a.ip(&format!("link add {a_end} type veth peer name {b_end} netns {b_name}"));
    for (namespace, end) in [(a, a_end), (b, b_end)] {
        quiet(namespace, end);
        namespace.ip(&format!("link set dev {end} up"));
    }
}

/// Keeps the kernel from sending anything on the interface by itself.
pub fn quiet(namespace: &Namespace, interface: &str) {
    namespace.ip(&format!("link set dev {interface} addrgenmode none"));
    namespace.ip(&format!("link set dev {interface} arp off"));
}

/// A small region, so that tests can count its chunks.
pub fn region(chunks: u32) -> &'static Region {
    Region::new(RegionConfig { chunks, hugepages: false, ..RegionConfig::default() }).unwrap()
}

/// Options for small regions.
pub const SMALL: SocketOptions = SocketOptions { rx: 256, tx: 256, ready: 128 };
/// Options for small regions.
pub const SMALL_UMEM: UmemOptions = UmemOptions { fill: 256, completion: 256, multi_buffer: false };

/// Options for bulk traffic.
pub const LARGE: SocketOptions = SocketOptions { rx: 2048, tx: 2048, ready: 2048 };
/// Options for bulk traffic.
pub const LARGE_UMEM: UmemOptions =
    UmemOptions { fill: 2048, completion: 2048, multi_buffer: false };

/// Queue 0 of an interface whose every frame comes to it: socket, program and pool.
pub struct Station {
    pub socket: Socket,
    pub program: PortProgram,
    pub pool: Pool,
}

impl Station {
    /// On an interface of the namespace that this thread is in, with a UMEM of its own.
    pub fn open(region: &'static Region, interface: &str, ifindex: u32) -> Self {
        Self::open_with(region, interface, ifindex, SMALL_UMEM, SMALL)
    }

    /// The same with other sizes.
    pub fn open_with(
        region: &'static Region,
        interface: &str,
        ifindex: u32,
        umem: UmemOptions,
        options: SocketOptions,
    ) -> Self {
        let opened = Umem::open(region, Mode::Copy, umem, interface, 0, options);
        let (_, socket) = opened.unwrap_or_else(|error| panic!("{error:?}"));
        Self::start(socket, region, ifindex)
    }

    /// With a socket that is there.
    pub fn start(socket: Socket, region: &'static Region, ifindex: u32) -> Self {
        Self::start_as(socket, region, ifindex, false)
    }

    /// With a socket that is there; its UMEM may be a multi-buffer one.
    pub fn start_as(
        mut socket: Socket,
        region: &'static Region,
        ifindex: u32,
        multi_buffer: bool,
    ) -> Self {
        let program = PortProgram::load(multi_buffer).unwrap();
        program.register_socket(&socket).unwrap();
        let mut pool = Pool::new(region, 256);
        socket.fill(&mut pool);
        program.attach(ifindex).unwrap();
        Self { socket, program, pool }
    }

    /// Sends packets, all of them.
    pub fn send<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) {
        for packet in packets {
            self.socket.complete(&mut self.pool);
            let frame = self.pool.packet(packet).expect("free chunks");
            assert_eq!(self.socket.tx(&mut [frame].into_iter()), 1);
            self.socket.kick_tx().unwrap();
        }
    }

    /// Receives until `wanted` packets are there or `patience` is over.
    pub fn receive(&mut self, wanted: usize, patience: Duration) -> Vec<Vec<u8>> {
        let until = Instant::now() + patience;
        let mut packets = Vec::new();
        let mut batch = ArrayVec::<Frame, 64>::new();
        while packets.len() < wanted && Instant::now() < until {
            self.socket.run_napi();
            self.socket.rx(&mut batch);
            for frame in batch.drain(..) {
                packets.push(frame.parts().collect::<Vec<_>>().concat());
                self.pool.put(frame);
            }
            self.socket.fill(&mut self.pool);
            thread::yield_now();
        }
        packets
    }

    /// The first packet with that text in it, of those that arrive until `patience` is over.
    pub fn find(&mut self, text: &str, patience: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + patience;
        let has = |packet: &Vec<u8>| packet.windows(text.len()).any(|part| part == text.as_bytes());
        while Instant::now() < until {
            let found = self.receive(1, Duration::from_millis(10)).into_iter().find(has);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// An uplink's program and those that it works with, but for a trunk.
pub fn uplink() -> (Uplink, HostFlowProgram) {
    let inward = InwardProgram::load([2; 6], &PodProgram::load(1).unwrap()).unwrap();
    let egress = HostFlowProgram::load(1).unwrap();
    (Uplink::load(&egress, &inward, false).unwrap(), egress)
}

/// Tells a thread to end when it is dropped: with a test, also where that fails.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a command; fails with what it printed.
pub fn command(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {} (these tests need root)",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
