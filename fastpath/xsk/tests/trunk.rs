//! Pods behind the trunk: super-frames are cut, checksums completed, and TCP works both ways.

mod rig;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use arrayvec::ArrayVec;
use margay_xsk::{
    Frame,
    program::{Approval, Cover, InwardProgram, Passage, PodProgram, Shortcut, TrunkProgram},
};
use rig::{Ending, Namespace, Station, command, region, veth};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);
/// Ports of iperf3's data connection.
const CLIENT_PORT: u16 = 5555;
const SERVER_PORT: u16 = 5201;

/// A node with a trunk, and pods on it.
struct Node {
    pods: Vec<Pod>,
    program: PodProgram,
    _trunk: TrunkProgram,
    station: Station,
    namespace: Namespace,
}

struct Pod {
    namespace: Namespace,
    address: Ipv4Addr,
    ifindex: u32,
    mac: [u8; 6],
}

/// Counts of a run of the forwarder.
#[derive(Default, Debug)]
struct Seen {
    frames: u64,
    longest: usize,
    bad_checksums: u64,
    lost: u64,
}

impl Node {
    fn new(pods: u8) -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add margay0 address 02:4d:00:00:00:00 type veth peer name margay0x");
        for end in ["margay0", "margay0x"] {
            rig::quiet(&namespace, end);
            namespace.ip(&format!("link set dev {end} up"));
        }
        // Without checksum offload (and so without TSO) at the trunk's kernel end, the kernel
        // completes what the pods' stacks left to a device.
        namespace.exec("ethtool -K margay0 tx off");
        namespace.ip(&format!("address add {HOST}/32 dev margay0"));
        namespace.ip("route add 10.9.0.0/24 dev margay0");

        let trunk = namespace.ifindex("margay0");
        let far = namespace.ifindex("margay0x");
        let pod_program = PodProgram::load(trunk).unwrap();
        let trunk_program = TrunkProgram::load([2; 6]).unwrap();
        namespace.enter(|| trunk_program.attach(trunk)).unwrap();
        let station = namespace.enter(|| {
            Station::open_with(region(4096), "margay0x", far, rig::LARGE_UMEM, rig::LARGE)
        });
        let pods = (1..=pods).map(|number| Pod::new(&namespace, &pod_program, number)).collect();
        Self { pods, program: pod_program, _trunk: trunk_program, station, namespace }
    }

    /// Forwards by destination address while `work` runs.
    fn forward_while<T>(&mut self, work: impl FnOnce(&Namespace, &[Pod]) -> T) -> (T, Seen) {
        let ports: HashMap<_, _> = self
            .pods
            .iter()
            .map(|pod| (pod.address, (pod.ifindex, pod.mac)))
            .chain([(HOST, (0, self.namespace.mac("margay0")))])
            .collect();
        let done = AtomicBool::new(false);
        let station = &mut self.station;
        thread::scope(|scope| {
            let ending = Ending(&done);
            let forwarder = scope.spawn(|| forward(station, &ports, &done));
            let result = work(&self.namespace, &self.pods);
            drop(ending);
            (result, forwarder.join().unwrap())
        })
    }
}

impl Pod {
    /// A pod with address 10.9.0.NUMBER whose every neighbour is the gateway.
    fn new(node: &Namespace, program: &PodProgram, number: u8) -> Self {
        let namespace = Namespace::new();
        let host_end = format!("cali{number}");
        veth(node, &host_end, &namespace, "eth0");
        let address = Ipv4Addr::new(10, 9, 0, number);
        namespace.ip(&format!("address add {address}/32 dev eth0"));
        namespace.ip("link set dev eth0 arp on");
        namespace.ip("neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0");
        namespace.ip("route add 169.254.1.1 dev eth0 scope link");
        namespace.ip("route add default via 169.254.1.1 dev eth0");
        let ifindex = node.ifindex(&host_end);
        node.enter(|| program.attach(ifindex)).unwrap();
        let mac = namespace.mac("eth0");
        Self { namespace, address, ifindex, mac }
    }
}

/// The least that a dataplane does: looks at the source port, sends to the destination's.
fn forward(
    station: &mut Station,
    ports: &HashMap<Ipv4Addr, (u32, [u8; 6])>,
    done: &AtomicBool,
) -> Seen {
    let Station { socket, pool, .. } = station;
    let mut seen = Seen::default();
    let mut batch = ArrayVec::<Frame, 64>::new();
    while !done.load(Ordering::Relaxed) {
        socket.complete(pool);
        socket.rx(&mut batch);
        for frame in &mut batch {
            let bytes = frame.bytes_mut();
            seen.frames += 1;
            seen.longest = seen.longest.max(bytes.len());
            seen.bad_checksums += u64::from(!checksums_are_right(bytes));
            let destination: [u8; 4] = bytes[30..34].try_into().unwrap();
            let (ifindex, mac) = ports[&Ipv4Addr::from(destination)];
            assert!(source_is_known(bytes, ports), "source port {:?}", &bytes[..6]);
            bytes[..6].copy_from_slice(&mac);
            bytes[6..8].copy_from_slice(&[0x02, 0x4d]);
            bytes[8..12].copy_from_slice(&ifindex.to_be_bytes());
        }
        let mut rest = batch.drain(..);
        socket.tx(&mut rest);
        seen.lost += rest.len() as u64;
        rest.for_each(|frame| pool.put(frame));
        socket.kick_tx().unwrap();
        socket.fill(pool);
        thread::yield_now();
    }
    seen
}

/// The Ethernet destination names the port of the packet's source.
fn source_is_known(frame: &[u8], ports: &HashMap<Ipv4Addr, (u32, [u8; 6])>) -> bool {
    let source: [u8; 4] = frame[26..30].try_into().unwrap();
    let (ifindex, _) = ports[&Ipv4Addr::from(source)];
    frame[..2] == [0x02, 0x4d] && frame[2..6] == ifindex.to_be_bytes()
}

/// Header and TCP/UDP checksums of an IPv4 frame (RFC 1071).
fn checksums_are_right(frame: &[u8]) -> bool {
    let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let (header, payload) = frame[14..14 + length].split_at(20);
    let pseudo = [&header[12..20], &[0, header[9]], &(payload.len() as u16).to_be_bytes()].concat();
    sum(header) == 0xffff
        && match header[9] {
            6 | 17 => sum(&[&pseudo, payload].concat()) == 0xffff,
            _ => sum(payload) == 0xffff,
        }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Bits a second of a TCP stream of `seconds`, from one namespace to a server in another.
fn iperf(client: &Namespace, server: &Namespace, address: Ipv4Addr, seconds: u32) -> f64 {
    let mut listening = server
        .command("iperf3")
        .args(["-s", "-1"])
        .stdout(Stdio::null())
        .spawn()
        .expect("iperf3 is installed");
    thread::sleep(std::time::Duration::from_millis(300));
    let seconds = seconds.to_string();
    let address = address.to_string();
    let arguments =
        ["netns", "exec", client.name(), "iperf3", "-J", "-t", &seconds, "-c", &address];
    let port = ["--cport", &CLIENT_PORT.to_string()];
    let output = command("ip", &[&arguments[..], &port].concat());
    listening.wait().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let end = text.rsplit("\"sum_received\"").next().unwrap();
    let rate = end.split("\"bits_per_second\":").nth(1).unwrap();
    rate.trim().split([',', '\n', '}']).next().unwrap().trim().parse().unwrap()
}

#[test]
fn tcp_between_pods_arrives_in_segments_with_right_checksums() {
    let mut node = Node::new(2);
    let (rate, seen) = node
        .forward_while(|_, pods| iperf(&pods[0].namespace, &pods[1].namespace, pods[1].address, 2));
    println!("{:.2} Gb/s, {seen:?}", rate / 1e9);
    assert!(rate > 50e6, "{rate} bits a second");
    assert_eq!(seen.bad_checksums, 0, "{seen:?}");
    assert!(seen.frames > 1_000 && seen.longest == 1514, "{seen:?}");
}

#[test]
fn the_host_and_a_pod_reach_each_other() {
    let mut node = Node::new(1);
    let (rate, seen) = node.forward_while(|host, pods| {
        host.exec("ping -c 3 -i 0.05 -W 2 10.9.0.1");
        pods[0].namespace.exec("ping -c 3 -i 0.05 -W 2 10.9.0.254");
        iperf(&pods[0].namespace, host, HOST, 1)
    });
    assert!(rate > 50e6, "{rate} bits a second");
    assert_eq!(seen.bad_checksums, 0, "{seen:?}");
}

/// Both directions of iperf3's data connection between the first two pods.
fn passages(pods: &[Pod]) -> [(Passage, Approval); 2] {
    let ends = [(&pods[0], CLIENT_PORT), (&pods[1], SERVER_PORT)];
    [[0, 1], [1, 0]].map(|[from, to]| {
        let ((source, source_port), (destination, destination_port)) = (ends[from], ends[to]);
        let passage = Passage {
            source: (source.address, source_port).into(),
            destination: (destination.address, destination_port).into(),
            protocol: 6,
            ifindex: source.ifindex,
        };
        let cover = [&destination.mac[..], &[0xee; 6], &[8, 0]].concat();
        let approval = Approval {
            generation: 1,
            ifindex: destination.ifindex,
            to_uplink: false,
            cover: Cover::new(&cover).unwrap(),
            expected: None,
            identification: 0,
            mtu: 1500,
            from: from as u16 + 1,
            to: to as u16 + 1,
            translated: None,
        };
        (passage, approval)
    })
}

/// Once the connection is there: its SYNs go by the trunk.
fn approve_soon(shortcut: &Shortcut, passages: &[(Passage, Approval)]) {
    thread::sleep(std::time::Duration::from_millis(800));
    for (passage, approval) in passages {
        assert!(shortcut.approve(*passage, *approval).unwrap());
    }
}

#[test]
fn approved_tcp_goes_from_pod_to_pod_in_super_frames() {
    let mut node = Node::new(2);
    let shortcut = node.program.shortcut(&InwardProgram::load([2; 6], &node.program).unwrap());
    shortcut.set_generation(1).unwrap();
    let passages = passages(&node.pods);
    let (rate, seen) = node.forward_while(|_, pods| {
        thread::scope(|scope| {
            scope.spawn(|| approve_soon(&shortcut, &passages));
            iperf(&pods[0].namespace, &pods[1].namespace, pods[1].address, 2)
        })
    });
    let [there, back] =
        passages.map(|(passage, _)| shortcut.moved(passage).unwrap().expect("it was approved"));
    println!("{:.2} Gb/s, {seen:?}, {there:?}, {back:?}", rate / 1e9);
    // Who is reset sends no end of its own.
    assert!(there.generation == 0 || back.generation == 0, "the connection's end closes");
    assert_eq!(shortcut.port(1).unwrap().map(|count| count.0), [there.packets, back.packets]);
    assert_eq!(shortcut.port(2).unwrap().map(|count| count.0), [back.packets, there.packets]);
    // Full segments of 1500 bytes, counted one by one though they were moved many at once.
    assert!(there.packets > 10_000 && there.bytes / there.packets > 1450, "{there:?}");
    assert!(rate > 50e6, "{rate} bits a second");
}
