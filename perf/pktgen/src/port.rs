//! An interface, in whatever network namespace, with its socket.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::LazyLock,
};

use anyhow::{Context, bail};
use arrayvec::ArrayVec;
use margay_wire::ethernet;
use margay_xsk::{
    Binder, ChunkSize, Fallback, Frame, Pool, Preference, Region, RegionConfig, Socket,
    SocketOptions, UmemOptions,
    program::{PortProgram, XdpMode},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{arguments::Xdp, link::Link};

/// Frames of each port, twice what the rings of queue 0 hold; a pool hands out those that are in the cache.
const CHUNKS: u32 = 8192;
/// Other queues that are received from at most, what their rings hold, and frames for them.
const OTHERS: u32 = 7;
const OTHER: SocketOptions = SocketOptions { rx: 512, tx: 512, ready: 512 };
const OTHER_CHUNKS: u32 = OTHERS * (OTHER.rx + OTHER.ready);
/// Bytes of the largest frame: an MTU of 9,216.
pub(crate) const LARGEST: usize = 9216 + ethernet::LEN;

/// The namespace that the process was started in: opened before this thread enters another.
static HOME: LazyLock<io::Result<File>> = LazyLock::new(|| File::open("/proc/thread-self/ns/net"));

/// An interface and its sockets, with packet memory of its own: what is in a frame that was sent
/// stays in it.
pub(crate) struct Port {
    /// That of queue 0, which also sends.
    pub(crate) socket: Socket,
    /// Those of the other queues, if the port receives.
    others: Vec<Socket>,
    binder: Binder,
    pub(crate) pool: Pool,
    pub(crate) interface: String,
    pub(crate) link: Link,
    /// Why the socket is not zero-copy, if it is not.
    pub(crate) fallback: Option<Fallback>,
    /// How XDP runs, if the port receives.
    pub(crate) xdp: Option<XdpMode>,
    program: Option<PortProgram>,
    /// Whether frames may be longer than a chunk.
    multi_buffer: bool,
    /// The namespace of the interface, where it is not that of the process.
    netns: OwnedFd,
}

// === impl Port ===

impl Port {
    /// Binds queue 0 of the interface for frames of up to `frame` bytes, and those that its MTU lets
    /// come. The thread stays in its namespace.
    pub(crate) fn open(interface: &str, netns: Option<&str>, frame: usize) -> anyhow::Result<Self> {
        let (netns, link) = look(interface, netns)?;
        link.must_run(interface)?;
        anyhow::ensure!(
            frame <= LARGEST,
            "frames of {frame} bytes are too large: {LARGEST} is the most"
        );
        let in_one = ChunkSize::for_frame(frame.max(link.largest()));
        let (multi_buffer, chunk_size) = (in_one.is_none(), in_one.unwrap_or(ChunkSize::Bytes4096));
        let chunks = CHUNKS + OTHER_CHUNKS;
        let region = Region::new(RegionConfig { chunks, chunk_size, hugepages: true })?;
        let binder = Binder::new(region, UmemOptions { multi_buffer, ..UmemOptions::default() });
        let bound = binder.bind(interface, 0, Preference::Auto, SocketOptions::default())?;
        Ok(Self {
            socket: bound.socket,
            others: Vec::new(),
            binder,
            pool: Pool::new(region, chunks as usize),
            interface: interface.to_owned(),
            link,
            fallback: bound.fallback,
            xdp: None,
            program: None,
            multi_buffer,
            netns,
        })
    }

    /// Has every frame of the interface come to the sockets, until the port is dropped.
    pub(crate) fn receive(&mut self, xdp: Xdp) -> anyhow::Result<()> {
        enter(&self.netns)?;
        let program = PortProgram::load(self.multi_buffer)?;
        let preference = Preference::Only(self.socket.mode());
        for queue in 1..=OTHERS {
            // There are as many as can be bound.
            let Ok(bound) = self.binder.bind(&self.interface, queue, preference, OTHER) else {
                break;
            };
            self.others.push(bound.socket);
        }
        for socket in std::iter::once(&mut self.socket).chain(&mut self.others) {
            program.register_socket(socket)?;
            socket.fill(&mut self.pool);
        }
        let attached = program.attach_as(self.link.index, xdp.into()).with_context(|| {
            format!(
                "{}: cannot receive by XDP that way; try the other (native, generic)",
                self.interface
            )
        })?;
        self.xdp = Some(attached.mode);
        self.program = Some(program);
        Ok(())
    }

    /// Takes a batch from each queue.
    pub(crate) fn take<const N: usize>(&mut self, mut each: impl FnMut(&mut ArrayVec<Frame, N>)) {
        let mut batch = ArrayVec::new();
        for socket in std::iter::once(&mut self.socket).chain(&mut self.others) {
            if socket.rx(&mut batch) > 0 {
                each(&mut batch);
            }
            for frame in batch.drain(..) {
                self.pool.put(frame);
            }
            socket.fill(&mut self.pool);
            if socket.needs_fill_wakeup() {
                socket.wake_rx();
            }
        }
    }

    /// Frames that the kernel dropped, for want of room or of empty ones.
    pub(crate) fn dropped(&self) -> Result<u64, margay_xsk::Error> {
        let mut dropped = 0;
        for socket in std::iter::once(&self.socket).chain(&self.others) {
            let counters = socket.kernel_counters()?;
            dropped += counters.rx_dropped + counters.rx_ring_full;
        }
        Ok(dropped)
    }

    /// The interface's Ethernet address.
    pub(crate) fn mac(&self) -> anyhow::Result<[u8; 6]> {
        match self.link.mac {
            Some(mac) => Ok(mac),
            None => bail!("{} has no Ethernet address: give --src-mac", self.interface),
        }
    }

    /// Refuses frames that the interface would drop.
    pub(crate) fn must_carry(&self, frame: usize) -> anyhow::Result<()> {
        let (mtu, most) = (self.link.mtu, self.link.largest());
        anyhow::ensure!(
            frame <= most,
            "{}: frames of {frame} bytes do not fit its MTU of {mtu}: {most} is the most",
            self.interface
        );
        Ok(())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let Some(program) = &self.program else { return };
        let detached = enter(&self.netns).map_err(anyhow::Error::from);
        if let Err(error) = detached.and_then(|()| Ok(program.detach(self.link.index)?)) {
            eprintln!("{}: {error}", self.interface);
        }
    }
}

/// The largest frame that an interface carries, by its MTU.
pub(crate) fn largest_frame(interface: &str, netns: Option<&str>) -> anyhow::Result<usize> {
    Ok(look(interface, netns)?.1.largest())
}

/// Enters a namespace, that of the process without a name, and finds an interface there.
fn look(interface: &str, netns: Option<&str>) -> anyhow::Result<(OwnedFd, Link)> {
    let home = HOME
        .as_ref()
        .map_err(|error| io::Error::from(error.kind()))
        .context("cannot open /proc")?;
    let (netns, path) = match netns {
        None => (home.try_clone()?, "this network namespace".to_owned()),
        Some(name) => {
            let path = format!("/run/netns/{name}");
            (File::open(&path).with_context(|| format!("no network namespace {path}"))?, path)
        }
    };
    let netns = OwnedFd::from(netns);
    enter(&netns).with_context(|| format!("cannot enter {path}"))?;
    let link = Link::find(interface).with_context(|| format!("cannot ask for {interface}"))?;
    let link = link.with_context(|| format!("there is no interface {interface} in {path}"))?;
    Ok((netns, link))
}

/// Moves this thread into a network namespace.
fn enter(netns: &OwnedFd) -> rustix::io::Result<()> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
}
