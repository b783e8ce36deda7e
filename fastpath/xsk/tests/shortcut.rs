//! The shortcut: what is approved goes into the other pod, everything else takes the trunk.

mod rig;

use std::{net::SocketAddr, time::Duration};

use margay_xsk::program::{Approval, Cover, InwardProgram, Passage, PodProgram, Shortcut, XdpMode};
use rig::{
    Namespace, Station, region,
    transport::{ACK, FIN, Packet, RST, SYN, UDP, checksum},
    veth,
};

const PATIENCE: Duration = Duration::from_secs(5);
const GENERATION: u32 = 7;
/// Numbers of the ports.
const A: u16 = 3;
const B: u16 = 5;

/// A trunk whose far end the test reads, and two pods that it speaks and listens for.
struct Node {
    trunk: Station,
    a: Station,
    b: Station,
    b_mac: [u8; 6],
    /// Host ends of both pods.
    ends: (u32, u32),
    shortcut: Shortcut,
    _program: PodProgram,
    _namespaces: [Namespace; 3],
}

impl Node {
    fn new() -> Self {
        let node = Namespace::new();
        node.ip("link add margay0 address 02:4d:00:00:00:00 type veth peer name margay0x");
        for end in ["margay0", "margay0x"] {
            rig::quiet(&node, end);
            node.ip(&format!("link set dev {end} up"));
        }
        let program = PodProgram::load(node.ifindex("margay0")).unwrap();
        let far = node.ifindex("margay0x");
        let trunk = node.enter(|| Station::open(region(512), "margay0x", far));
        let pod = |end: &str| {
            let pod = Namespace::new();
            veth(&node, end, &pod, "eth0");
            let index = node.ifindex(end);
            node.enter(|| program.attach(index)).unwrap();
            let inside = pod.ifindex("eth0");
            let station = pod.enter(|| {
                let station = Station::open(region(512), "eth0", inside);
                // What is redirected into the pod does not meet its veth's native program.
                station.program.detach(inside).unwrap();
                station.program.attach_as(inside, XdpMode::Generic).unwrap();
                station
            });
            let mac = pod.mac("eth0");
            (pod, station, index, mac)
        };
        let ((a_space, a, a_end, _), (b_space, b, b_end, b_mac)) = (pod("calia"), pod("calib"));
        Self {
            trunk,
            a,
            b,
            b_mac,
            ends: (a_end, b_end),
            shortcut: program.shortcut(&InwardProgram::load([2; 6], &program).unwrap()),
            _program: program,
            _namespaces: [node, a_space, b_space],
        }
    }

    fn passage(&self, packet: &Packet) -> Passage {
        let (source, destination) = (packet.source, packet.destination);
        Passage { source, destination, protocol: packet.protocol, ifindex: self.ends.0 }
    }

    fn approval(&self, packet: &Packet) -> Approval {
        let frame = packet.frame(self.b_mac, [0xee; 6]);
        Approval {
            generation: GENERATION,
            ifindex: self.ends.1,
            to_uplink: false,
            cover: Cover::new(&frame[..14]).unwrap(),
            expected: None,
            identification: 0,
            mtu: 1500,
            from: A,
            to: B,
            translated: None,
        }
    }

    /// Approves packets like this one, and puts the approval's generation in force.
    fn approve(&self, packet: &Packet) {
        self.approve_as(packet, packet);
    }

    /// The same; they are to leave with the ends of the other one.
    fn approve_as(&self, packet: &Packet, seen: &Packet) {
        self.shortcut.set_generation(GENERATION).unwrap();
        let ends = |packet: &Packet| (packet.source, packet.destination);
        let translated = (ends(seen) != ends(packet)).then(|| ends(seen));
        let approval = Approval { translated, ..self.approval(packet) };
        assert!(self.shortcut.approve(self.passage(packet), approval).unwrap());
    }

    /// Sends a frame out of pod a.
    fn send(&mut self, frame: &[u8]) {
        self.a.send([frame]);
    }

    /// Sends a packet with this text out of pod a; it has to appear in pod b as it should.
    #[track_caller]
    fn goes_short(&mut self, packet: &Packet, text: &str) {
        self.goes_as(packet, packet, text);
    }

    /// The same with what a service makes of its ends.
    #[track_caller]
    fn goes_as(&mut self, packet: &Packet, seen: &Packet, text: &str) {
        let packet = Packet { payload: text.into(), ..packet.clone() };
        self.send(&packet.frame([0xee; 6], [2; 6]));
        let arrived = self.b.find(text, PATIENCE).expect("it arrives in the other pod");
        let (source, destination) = (seen.source, seen.destination);
        let forwarded = Packet { ttl: packet.ttl - 1, source, destination, ..packet };
        assert_eq!(arrived, forwarded.frame(self.b_mac, [0xee; 6]));
    }

    /// Sends a packet with this text out of pod a; it has to appear on the trunk, untouched.
    #[track_caller]
    fn goes_long(&mut self, packet: &Packet, text: &str) {
        let packet = Packet { payload: text.into(), ..packet.clone() };
        self.frame_goes_long(packet.frame([0xee; 6], [2; 6]), text);
    }

    #[track_caller]
    fn frame_goes_long(&mut self, frame: Vec<u8>, text: &str) {
        self.send(&frame);
        let arrived = self.trunk.find(text, PATIENCE).expect("it arrives on the trunk");
        assert_eq!(arrived[..2], [0x02, 0x4d]);
        assert_eq!(arrived[2..6], self.ends.0.to_be_bytes());
        assert_eq!(arrived[6..], frame[6..]);
    }

    fn counted(&self) -> [[(u64, u64); 2]; 2] {
        [A, B].map(|port| self.shortcut.port(port).unwrap())
    }
}

/// One of TCP and one of UDP, over IPv4 and over IPv6.
fn packets() -> [Packet; 4] {
    let ends = [["10.1.0.1:4000", "10.1.0.2:80"], ["[fd00::1]:4000", "[fd00::2]:80"]];
    let [four, six] = ends.map(|[source, destination]| Packet::new(source, destination, ""));
    let datagrams = [&four, &six].map(|packet| Packet { protocol: UDP, ..packet.clone() });
    let [udp4, udp6] = datagrams;
    [four, six, udp4, udp6]
}

/// Those of TCP alone.
fn segments() -> [Packet; 2] {
    let [four, six, ..] = packets();
    [four, six]
}

/// Those of UDP alone.
fn datagrams() -> [Packet; 2] {
    let [.., four, six] = packets();
    [four, six]
}

#[test]
fn what_is_approved_goes_into_the_other_pod_and_is_counted() {
    let mut node = Node::new();
    let mut frames = 0;
    let mut bytes = 0;
    for packet in packets() {
        node.goes_long(&packet, "not approved");
        node.approve(&packet);
        node.goes_short(&packet, "approved");
        node.goes_short(&Packet { ttl: 2, ..packet.clone() }, "the last hop but one");
        let other = SocketAddr::new(packet.source.ip(), 4001);
        node.goes_long(&Packet { source: other, ..packet.clone() }, "another connection");
        let lengths = ["approved", "the last hop but one"].map(|text| {
            Packet { payload: text.into(), ..packet.clone() }.frame([0; 6], [0; 6]).len() as u64
        });
        let sum: u64 = lengths.iter().sum();
        (frames, bytes) = (frames + 2, bytes + sum);
        let moved = node.shortcut.moved(node.passage(&packet)).unwrap().unwrap();
        assert_eq!((moved.packets, moved.bytes), (2, sum - 2 * 14));
        assert_eq!(node.counted(), [[(frames, bytes), (0, 0)], [(0, 0), (frames, bytes)]]);
    }
}

#[test]
fn what_a_service_translates_arrives_with_right_checksums() {
    let mut node = Node::new();
    for packet in packets() {
        for seen in seen(&packet) {
            node.approve_as(&packet, &seen);
            for text in ["as another", "of odd length"] {
                node.goes_as(&packet, &seen, text);
            }
            node.shortcut.close(node.passage(&packet)).unwrap();
        }
    }
}

/// What a service could make of a packet.
fn seen(packet: &Packet) -> [Packet; 2] {
    let ends = match packet.source {
        SocketAddr::V4(_) => [["10.1.0.1:4000", "10.1.0.2:8080"], ["10.96.0.1:80", "10.1.0.2:80"]],
        SocketAddr::V6(_) => {
            [["[fd00::1]:4000", "[fd00::2]:8080"], ["[fd96::1]:80", "[fd00::2]:80"]]
        }
    };
    ends.map(|[source, destination]| packet.between(source, destination))
}

#[test]
fn a_translated_datagram_has_a_checksum_if_it_had_one() {
    let mut node = Node::new();
    let [four, six] = datagrams();
    for packet in [&four, &six] {
        for mut seen in seen(packet) {
            // Its new sum is 0, which would say that there is none.
            seen.payload = "a sum of zero".into();
            let is_zero = |port| {
                seen.destination.set_port(port);
                seen.body()[6..8] == [0xff; 2]
            };
            assert!((1..=u16::MAX).any(is_zero));
            node.approve_as(packet, &seen);
            node.goes_as(packet, &seen, "a sum of zero");
            node.shortcut.close(node.passage(packet)).unwrap();
        }
    }
    let bare = Packet { summed: false, ..four };
    for seen in seen(&bare) {
        node.approve_as(&bare, &seen);
        node.goes_as(&bare, &seen, "without a sum");
        node.shortcut.close(node.passage(&bare)).unwrap();
    }
    node.approve(&six);
    node.goes_long(&Packet { summed: false, ..six }, "without a sum");
}

#[test]
fn connections_of_both_protocols_may_have_the_same_ends() {
    let mut node = Node::new();
    for (segment, datagram) in segments().into_iter().zip(datagrams()) {
        for [one, other] in [[&segment, &datagram], [&datagram, &segment]] {
            node.approve(one);
            node.goes_short(one, "approved");
            node.goes_long(other, "not approved");
            node.shortcut.close(node.passage(one)).unwrap();
        }
    }
}

#[test]
fn a_datagram_that_is_not_the_whole_packet_takes_the_trunk() {
    let mut node = Node::new();
    for packet in datagrams() {
        node.approve(&packet);
        let text = "a packet of two parts";
        let frame = Packet { payload: text.into(), ..packet.clone() }.frame([0xee; 6], [2; 6]);
        let at = frame.len() - text.len() - 4;
        for said in [0u16, 7, 8, 8 + text.len() as u16 - 1, 8 + text.len() as u16 + 1] {
            let mut frame = frame.clone();
            frame[at..at + 2].copy_from_slice(&said.to_be_bytes());
            node.frame_goes_long(frame, text);
        }
        node.goes_short(&packet, "a whole one");
    }
}

#[test]
fn another_generation_and_a_closed_passage_lead_to_the_trunk() {
    let mut node = Node::new();
    for packet in packets() {
        node.approve(&packet);
        node.goes_short(&packet, "in force");
        node.shortcut.set_generation(GENERATION + 1).unwrap();
        node.goes_long(&packet, "something newer is in force");
        // A word that comes late changes nothing.
        assert!(!node.shortcut.approve(node.passage(&packet), node.approval(&packet)).unwrap());
        node.goes_long(&packet, "it was approved for something older");
        node.shortcut.set_generation(0).unwrap();
        node.goes_long(&packet, "no shortcut at all");
        node.shortcut.set_generation(GENERATION).unwrap();
        node.goes_short(&packet, "in force again");
        let moved = node.shortcut.close(node.passage(&packet)).unwrap().unwrap();
        assert_eq!((moved.packets, moved.generation), (2, GENERATION));
        node.goes_long(&packet, "closed");
        assert_eq!(node.shortcut.close(node.passage(&packet)).unwrap(), None);
    }
}

#[test]
fn the_first_sign_of_an_end_or_a_beginning_closes_the_passage() {
    let mut node = Node::new();
    for packet in segments() {
        for flags in [FIN | ACK, RST, RST | ACK, SYN] {
            node.approve(&packet);
            node.goes_short(&packet, "open");
            node.goes_long(&Packet { flags, ..packet.clone() }, "the end");
            node.goes_long(&packet, "after the end");
            let moved = node.shortcut.close(node.passage(&packet)).unwrap().unwrap();
            assert_eq!((moved.packets, moved.generation), (1, 0), "flags {flags}");
        }
    }
}

#[test]
fn what_the_dataplane_has_to_answer_or_refuse_takes_the_trunk() {
    let mut node = Node::new();
    for packet in packets() {
        node.approve(&packet);
        node.goes_long(&Packet { ttl: 1, ..packet.clone() }, "the last hop");
        let frame =
            |text: &str| Packet { payload: text.into(), ..packet.clone() }.frame([0xee; 6], [2; 6]);
        node.frame_goes_long([frame("padded"), vec![0; 9]].concat(), "padded");
        let cut = frame("longer than it is");
        node.frame_goes_long(cut[..cut.len() - 1].to_vec(), "longer than it i");
        if packet.protocol != UDP {
            node.goes_long(&Packet { header: 15, ..packet.clone() }, "a header beyond the end");
        }
        let source = SocketAddr::new(packet.source.ip(), 4002);
        let small = Packet { source, ..packet.clone() };
        let approval = Approval { mtu: 600, ..node.approval(&packet) };
        node.shortcut.approve(node.passage(&small), approval).unwrap();
        node.goes_long(&small, &format!("{}too big", "x".repeat(600)));
        node.goes_short(&small, &format!("{}just right", "x".repeat(500)));
    }
    for [packet, _] in [segments(), datagrams()] {
        let frame = Packet { payload: "of no use".into(), ..packet }.frame([0xee; 6], [2; 6]);
        for (what, at, value) in
            [("checksum", 24, 0x55), ("fragment", 20, 0x20), ("version", 14, 0x65)]
        {
            let mut frame = frame.clone();
            frame[at] = value;
            if what == "fragment" {
                frame[24..26].fill(0);
                let sum = checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum);
            }
            node.frame_goes_long(frame, "of no use");
        }
    }
    assert_eq!(node.counted()[0][0].0, 4, "only what was just right");
}

#[test]
fn mapped_addresses_in_an_ipv6_packet_are_another_connection() {
    let mut node = Node::new();
    let [packet, ..] = packets();
    node.approve(&packet);
    let disguised = Packet::new("[fd00::1]:4000", "[fd00::2]:80", "in disguise");
    let mut frame = disguised.frame([0xee; 6], [2; 6]);
    let mapped = |last| [&[0; 10][..], &[0xff, 0xff, 10, 1, 0, last]].concat();
    frame[22..38].copy_from_slice(&mapped(1));
    frame[38..54].copy_from_slice(&mapped(2));
    node.frame_goes_long(frame, "in disguise");
}

#[test]
fn an_approval_is_for_the_pod_that_it_was_given_to() {
    let mut node = Node::new();
    for packet in packets() {
        node.approve(&packet);
        // The same packet out of pod b.
        let packet = Packet { payload: "a lie".into(), ..packet };
        let frame = packet.frame([0xee; 6], [2; 6]);
        node.b.send([&frame[..]]);
        let arrived = node.trunk.find("a lie", PATIENCE).expect("the dataplane is to judge it");
        assert_eq!(arrived[2..6], node.ends.1.to_be_bytes());
    }
}

#[test]
fn a_predecessor_is_recognised() {
    let node = Namespace::new();
    node.ip("link add one type veth peer name two");
    let (one, two) = (node.ifindex("one"), node.ifindex("two"));
    let found = node.enter(|| {
        PodProgram::load(1).unwrap().attach(one).unwrap();
        let next = PodProgram::load(1).unwrap();
        [one, two].map(|end| next.has_predecessor(end))
    });
    assert_eq!(found, [true, false]);
}
