//! The shortcut across nodes: what is approved goes from a pod out of the uplink, and from the uplink
//! into a pod, in its tunnel; everything else goes to the dataplane.

mod rig;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use arrayvec::ArrayVec;
use margay_xsk::{
    Mode, Pool, Socket, Umem,
    program::{
        AddressClass, Approval, Cover, HostFlowProgram, InwardProgram, Passage, PodProgram,
        Shortcut, Uplink, UplinkConfig, XdpMode,
    },
};
use rig::{
    Namespace, Station, region,
    transport::{ACK, FIN, Packet, TCP, UDP, checksum},
    veth,
};

const PATIENCE: Duration = Duration::from_secs(5);
const GENERATION: u32 = 7;
/// Numbers of the ports.
const POD: u16 = 3;
const UPLINK: u16 = 5;
/// What the flow puts into outer identifications.
const IDENTIFICATION: u16 = 0x1234;

const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfa];
const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 20, 0, 1), Ipv4Addr::new(172, 20, 0, 2)];
const VXLAN_PORT: u16 = 4789;

/// What is around a packet on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnel {
    None,
    Ipip,
    Vxlan,
}
use Tunnel::{Ipip, Vxlan};

/// A node whose uplink's far end is the test's, one pod, and what the dataplane gets.
struct Node {
    wire: Station,
    pod: Station,
    pod_mac: [u8; 6],
    near_mac: [u8; 6],
    /// The pod's host end and the uplink.
    ends: (u32, u32),
    shortcut: Shortcut,
    socket: Socket,
    pool: Pool,
    _programs: (PodProgram, HostFlowProgram, InwardProgram, Uplink),
    _namespaces: [Namespace; 3],
}

/// The headers of a tunnel around an IP packet of that length, without Ethernet's.
struct Around {
    class: u8,
    identification: u16,
    dont_fragment: bool,
}

impl Around {
    const OF_DF: Self = Self { class: 0, identification: 0, dont_fragment: true };

    fn headers(&self, tunnel: Tunnel, [from, to]: [Ipv4Addr; 2], inner: usize) -> Vec<u8> {
        let vxlan = [
            &[0xc0, 0x01][..],
            &VXLAN_PORT.to_be_bytes(),
            &(inner as u16 + 30).to_be_bytes(),
            &[0, 0, 8, 0, 0, 0, 0, 0x10, 0, 0],
            &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0],
        ]
        .concat();
        let (protocol, rest) = match tunnel {
            Tunnel::None => return Vec::new(),
            Ipip => (4, vec![]),
            Vxlan => (17, vxlan),
        };
        let mut ip = vec![0x45, self.class];
        ip.extend((20 + rest.len() as u16 + inner as u16).to_be_bytes());
        ip.extend(self.identification.to_be_bytes());
        ip.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
        ip.extend(from.octets().into_iter().chain(to.octets()));
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        [ip, rest].concat()
    }
}

/// A frame with a tunnel around its IP packet.
fn around(frame: &[u8], tunnel: Tunnel, nodes: [Ipv4Addr; 2], around: &Around) -> Vec<u8> {
    let (ethernet, ip) = frame.split_at(14);
    [ethernet, &around.headers(tunnel, nodes, ip.len()), ip].concat()
}

impl Node {
    fn new() -> Self {
        let (node, far, space) = (Namespace::new(), Namespace::new(), Namespace::new());
        veth(&node, "uplink", &far, "far");
        veth(&node, "cali", &space, "eth0");
        let (up, cali) = (node.ifindex("uplink"), node.ifindex("cali"));
        let programs = PodProgram::load(1).unwrap();
        let inward = InwardProgram::load([2, 9, 9, 9, 9, 9], &programs).unwrap();
        let hostflow = HostFlowProgram::load(1).unwrap();
        let mut uplink = Uplink::load(&hostflow, &inward, false).unwrap();
        let classes = [
            ("10.1.0.0/16", AddressClass::POOL),
            ("fd00::/64", AddressClass::POOL),
            ("172.20.0.1/32", AddressClass::NODE),
        ];
        let classes = classes.map(|(net, class)| (net.parse().unwrap(), class));
        uplink.set_classes(&BTreeMap::from(classes)).unwrap();
        let vxlan_port = Some(VXLAN_PORT);
        let config = UplinkConfig { vxlan_port, ipip: true, ..UplinkConfig::default() };
        uplink.set_config(&config).unwrap();
        let memory = region(512);
        let mut pool = Pool::new(memory, 256);
        let socket = node.enter(|| {
            let (umem, options) = (rig::SMALL_UMEM, rig::SMALL);
            let (_, mut socket) =
                Umem::open(memory, Mode::Copy, umem, "uplink", 0, options).unwrap();
            uplink.register_socket(&socket).unwrap();
            socket.fill(&mut pool);
            inward.attach(up).unwrap();
            assert_eq!(uplink.attach(up).unwrap().mode, XdpMode::Native);
            hostflow.attach(up).unwrap();
            programs.attach(cali).unwrap();
            socket
        });
        let end = far.ifindex("far");
        let wire = far.enter(|| Station::open(region(512), "far", end));
        let inside = space.ifindex("eth0");
        let pod = space.enter(|| {
            let station = Station::open(region(512), "eth0", inside);
            // What is redirected into the pod does not meet its veth's native program.
            station.program.detach(inside).unwrap();
            station.program.attach_as(inside, XdpMode::Generic).unwrap();
            station
        });
        Self {
            wire,
            pod,
            pod_mac: space.mac("eth0"),
            near_mac: node.mac("uplink"),
            ends: (cali, up),
            shortcut: programs.shortcut(&inward),
            socket,
            pool,
            _programs: (programs, hostflow, inward, uplink),
            _namespaces: [node, far, space],
        }
    }

    /// A packet as it leaves by the wire, or comes by it.
    fn on_wire(&self, packet: &Packet, tunnel: Tunnel, leaves: bool, with: &Around) -> Vec<u8> {
        let [here, there] = NODES;
        match leaves {
            true => around(&packet.frame(FAR_MAC, self.near_mac), tunnel, [here, there], with),
            false => around(&packet.frame(self.near_mac, FAR_MAC), tunnel, [there, here], with),
        }
    }

    fn cover(&self, packet: &Packet, tunnel: Tunnel, leaves: bool) -> Cover {
        let frame = self.on_wire(packet, tunnel, leaves, &Around::OF_DF);
        let length = packet.frame([0; 6], [0; 6]).len() - 14;
        Cover::new(&frame[..frame.len() - length]).unwrap()
    }

    /// Approves packets like this one from the pod to the wire.
    fn approve_out(&self, packet: &Packet, tunnel: Tunnel, translated: Option<&Packet>) {
        let passage = Passage { ifindex: self.ends.0, ..ends(packet) };
        let approval = Approval {
            ifindex: self.ends.1,
            to_uplink: true,
            cover: self.cover(packet, tunnel, true),
            expected: None,
            from: POD,
            to: UPLINK,
            ..self.approval(packet, translated)
        };
        assert!(self.shortcut.approve(passage, approval).unwrap());
    }

    /// Approves packets like this one from the wire to the pod.
    fn approve_in(&self, packet: &Packet, tunnel: Tunnel, translated: Option<&Packet>) {
        let passage = Passage { ifindex: self.ends.1, ..ends(packet) };
        let expected = Some(self.cover(packet, tunnel, false));
        let approval = Approval { expected, ..self.approval(packet, translated) };
        assert!(self.shortcut.approve(passage, approval).unwrap());
    }

    fn approval(&self, packet: &Packet, translated: Option<&Packet>) -> Approval {
        self.shortcut.set_generation(GENERATION).unwrap();
        Approval {
            generation: GENERATION,
            ifindex: self.ends.0,
            to_uplink: false,
            cover: Cover::new(&packet.frame(self.pod_mac, [0xee; 6])[..14]).unwrap(),
            expected: None,
            identification: IDENTIFICATION,
            mtu: 1400,
            from: UPLINK,
            to: POD,
            translated: translated.map(|packet| (packet.source, packet.destination)),
        }
    }

    /// The text, coming by the wire, has to appear in the pod as this packet does.
    #[track_caller]
    fn comes_short(&mut self, frame: &[u8], packet: &Packet, text: &str) {
        self.wire.send([frame]);
        let arrived = self.pod.find(text, PATIENCE).expect("it arrives in the pod");
        let forwarded = Packet { ttl: packet.ttl - 1, ..packet.clone() };
        assert_eq!(arrived, forwarded.frame(self.pod_mac, [0xee; 6]));
    }

    /// The frame has to come to the dataplane, untouched.
    #[track_caller]
    fn comes_long(&mut self, frame: &[u8]) {
        self.wire.send([frame]);
        let mut frames = ArrayVec::<_, 4>::new();
        let mut arrived = Vec::new();
        for _ in 0..5000 {
            self.socket.rx(&mut frames);
            arrived.extend(frames.iter().map(|frame| frame.bytes().to_vec()));
            frames.drain(..).for_each(|frame| self.pool.put(frame));
            self.socket.fill(&mut self.pool);
            if !arrived.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(arrived, [frame]);
    }
}

fn ends(packet: &Packet) -> Passage {
    let (source, destination, protocol) = (packet.source, packet.destination, packet.protocol);
    Passage { source, destination, protocol, ifindex: 0 }
}

/// What goes out, and what comes back.
fn packets(v4: bool, protocol: u8) -> [Packet; 2] {
    let [pod, other] =
        if v4 { ["10.1.0.1:4000", "10.1.9.1:80"] } else { ["[fd00::1]:4000", "[fd00::9]:80"] };
    [[pod, other], [other, pod]].map(|[from, to]| Packet { protocol, ..Packet::new(from, to, "") })
}

/// Tunnels, whether IPv4 is in them, and what that carries.
const WAYS: [(Tunnel, bool, u8); 8] = [
    (Tunnel::None, true, TCP),
    (Tunnel::None, false, TCP),
    (Ipip, true, TCP),
    (Vxlan, true, TCP),
    (Tunnel::None, true, UDP),
    (Tunnel::None, false, UDP),
    (Ipip, true, UDP),
    (Vxlan, true, UDP),
];

fn saying(packet: &Packet, text: &str) -> Packet {
    Packet { payload: text.into(), ..packet.clone() }
}

#[test]
fn what_is_approved_leaves_by_the_uplink_in_its_tunnel_and_is_counted() {
    let mut node = Node::new();
    let (mut frames, mut inside, mut outside) = (0, 0, 0);
    for (tunnel, v4, protocol) in WAYS {
        let [packet, _] = packets(v4, protocol);
        node.approve_out(&packet, tunnel, None);
        for text in ["a word", "another word of odd length"] {
            let sent = saying(&packet, text);
            let frame = sent.frame([0xee; 6], [2; 6]);
            node.pod.send([&frame[..]]);
            let arrived = node.wire.find(text, PATIENCE).expect("it arrives on the wire");
            let forwarded = Packet { ttl: 63, ..sent };
            let expected = node.on_wire(&forwarded, tunnel, true, &Around::OF_DF);
            assert_eq!(arrived, expected, "{tunnel:?}");
            (frames, inside, outside) =
                (frames + 1, inside + frame.len() as u64, outside + expected.len() as u64);
        }
        node.shortcut.close(Passage { ifindex: node.ends.0, ..ends(&packet) }).unwrap();
    }
    let counted = [POD, UPLINK].map(|port| node.shortcut.port(port).unwrap());
    assert_eq!(counted, [[(frames, inside), (0, 0)], [(0, 0), (frames, outside)]]);
}

#[test]
fn what_the_inner_header_says_is_said_by_the_outer_one() {
    let mut node = Node::new();
    for (tunnel, protocol) in [(Ipip, TCP), (Vxlan, TCP), (Ipip, UDP), (Vxlan, UDP)] {
        let [packet, _] = packets(true, protocol);
        node.approve_out(&packet, tunnel, None);
        let mut frame = saying(&packet, "no DF and a class").frame([0xee; 6], [2; 6]);
        (frame[15], frame[18], frame[19], frame[20]) = (0xb9, 0x77, 0x01, 0);
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum);
        node.pod.send([&frame[..]]);
        let arrived = node.wire.find("no DF and a class", PATIENCE).expect("it arrives");
        let identification = 0x7701 ^ IDENTIFICATION;
        let with = Around { class: 0xb9, identification, dont_fragment: false };
        let outer = with.headers(tunnel, NODES, frame.len() - 14);
        assert_eq!(arrived[14..14 + outer.len()], outer, "{tunnel:?}");
        node.shortcut.close(Passage { ifindex: node.ends.0, ..ends(&packet) }).unwrap();
    }
}

#[test]
fn what_is_approved_comes_out_of_its_tunnel_into_the_pod_and_is_counted() {
    let mut node = Node::new();
    let (mut frames, mut inside, mut outside) = (0, 0, 0);
    for (tunnel, v4, protocol) in WAYS {
        let [_, packet] = packets(v4, protocol);
        let sent = saying(&packet, "not approved");
        node.comes_long(&node.on_wire(&sent, tunnel, false, &Around::OF_DF));
        node.approve_in(&packet, tunnel, None);
        for text in ["a word", "another word of odd length"] {
            let sent = saying(&packet, text);
            let frame = node.on_wire(&sent, tunnel, false, &Around::OF_DF);
            node.comes_short(&frame, &sent, text);
            let length = sent.frame([0; 6], [0; 6]).len() as u64;
            (frames, inside, outside) = (frames + 1, inside + length, outside + frame.len() as u64);
        }
        node.shortcut.close(Passage { ifindex: node.ends.1, ..ends(&packet) }).unwrap();
    }
    let counted = [UPLINK, POD].map(|port| node.shortcut.port(port).unwrap());
    assert_eq!(counted, [[(frames, outside), (0, 0)], [(0, 0), (frames, inside)]]);
    assert_eq!(node.shortcut.lost().unwrap(), 0);
}

#[test]
fn both_ways_are_translated() {
    let mut node = Node::new();
    for (tunnel, v4, protocol) in WAYS {
        let [out, back] = packets(v4, protocol);
        let [asked, answer] = match v4 {
            true => [["10.1.0.1:4000", "10.1.9.1:80"], ["10.96.0.1:81", "10.1.0.1:4000"]],
            false => [["[fd00::1]:4000", "[fd00::9]:80"], ["[fd96::1]:81", "[fd00::1]:4000"]],
        };
        let service = out.between(asked[0], answer[0]);
        let [asked, answer] = [asked, answer].map(|[from, to]| out.between(from, to));
        node.approve_out(&service, tunnel, Some(&asked));
        node.approve_in(&back, tunnel, Some(&answer));
        node.pod.send([&saying(&service, "to a service").frame([0xee; 6], [2; 6])[..]]);
        let arrived = node.wire.find("to a service", PATIENCE).expect("it arrives on the wire");
        let seen = Packet { ttl: 63, ..saying(&out, "to a service") };
        assert_eq!(arrived, node.on_wire(&seen, tunnel, true, &Around::OF_DF), "{tunnel:?}");
        let frame = node.on_wire(&saying(&back, "from one"), tunnel, false, &Around::OF_DF);
        node.comes_short(&frame, &saying(&answer, "from one"), "from one");
        node.shortcut.close(Passage { ifindex: node.ends.0, ..ends(&service) }).unwrap();
        node.shortcut.close(Passage { ifindex: node.ends.1, ..ends(&back) }).unwrap();
    }
}

#[test]
fn what_is_not_exactly_as_expected_comes_to_the_dataplane() {
    let mut node = Node::new();
    for (tunnel, v4, protocol) in WAYS {
        let [_, packet] = packets(v4, protocol);
        node.approve_in(&packet, tunnel, None);
        let good = node.on_wire(&saying(&packet, "good"), tunnel, false, &Around::OF_DF);
        // Octets of the outer IPv4 header and what else a tunnel has; their checksum is mended.
        let outer = [(15, 0x03), (20, 0x20), (29, 9)];
        let vxlan = [(39, 7), (41, 1), (42, 0), (48, 1)];
        let changed = match tunnel {
            Tunnel::None => &[][..],
            Ipip => &outer[..],
            Vxlan => &[&outer[..], &vxlan].concat(),
        };
        for (at, value) in changed {
            let mut frame = good.clone();
            frame[*at] = *value;
            frame[24..26].fill(0);
            let sum = checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum);
            node.comes_long(&frame);
        }
        if tunnel != Tunnel::None {
            let mut frame = good.clone();
            frame[24] ^= 0x10;
            node.comes_long(&frame);
        }
        let mut elsewhere = good.clone();
        elsewhere[5] ^= 1;
        node.comes_long(&elsewhere);
        node.comes_long(&[&good[..], &[0; 7]].concat());
        for odd in [
            Packet { ttl: 1, ..saying(&packet, "the last hop") },
            saying(&packet, &"x".repeat(1390)),
        ] {
            node.comes_long(&node.on_wire(&odd, tunnel, false, &Around::OF_DF));
        }
        if protocol == TCP {
            for odd in [
                Packet { flags: FIN | ACK, ..saying(&packet, "the end") },
                saying(&packet, "after the end"),
            ] {
                node.comes_long(&node.on_wire(&odd, tunnel, false, &Around::OF_DF));
            }
        }
        let generation = if protocol == TCP { 0 } else { GENERATION };
        let closed = node.shortcut.close(Passage { ifindex: node.ends.1, ..ends(&packet) });
        assert_eq!(
            closed.unwrap().map(|moved| (moved.packets, moved.generation)),
            Some((0, generation))
        );
    }
}
