//! Which connections may go past the workers.

use margay_engine::PortId;
use margay_engine::shortcut::{Leg, Legs, holds, legs};
use margay_model::{Mac, State};
use margay_tables::addr::Tuple;

use crate::support::*;

/// What somebody changes.
type Edit = fn(&mut State);

/// Packets of a direction after which its connection is mentioned.
const EVERY: usize = 32;

fn tuple(packet: &Ip) -> Tuple {
    let (src, dst, (src_port, dst_port)) = (packet.src.into(), packet.dst.into(), packet.ends());
    let protocol = if matches!(packet.body, Body::Udp { .. }) { 17 } else { 6 };
    Tuple { src, dst, src_port, dst_port, protocol, zone: 0 }
}

fn with_flags(packet: &Ip, flags: u8) -> Ip {
    let mut packet = packet.clone();
    if let Body::Tcp { flags: old, .. } = &mut packet.body {
        *old = flags;
    }
    packet
}

/// Whether both ends have been heard, and none has closed.
fn is_assured(node: &Node, packet: &Ip) -> bool {
    let flow = node.table.lookup(&tuple(packet), node.table.hash(&tuple(packet))).unwrap();
    let state = margay_engine::view(&node.snapshot, flow, node.now).state;
    ["ESTABLISHED", "REPLIED"].contains(&state)
}

/// A handshake from one pod to the other.
fn open(node: &mut Node, from: PortId, to: PortId, packet: &Ip) {
    // Of UDP it is a question, an answer, and another question.
    let syn = with_flags(packet, SYN);
    node.send(from, &syn);
    node.send(to, &syn.answer());
    node.send(from, packet);
}

fn allowed(node: &Node, packet: &Ip) -> Option<Legs> {
    legs(&node.snapshot, node.table, &tuple(packet))
}

/// Both directions, where both may.
fn both(node: &Node, packet: &Ip) -> [Leg; 2] {
    allowed(node, packet).unwrap().legs.into_inner().unwrap()
}

#[test]
fn an_established_connection_of_two_pods_may_go_past_the_workers_both_ways() {
    for v4 in [true, false] {
        let [a, b] = pods(v4);
        for packet in [tcp(&at(a, 40_000), &at(b, 80), ACK), udp(&at(a, 40_000), &at(b, 80))] {
            let mut node = Node::default();
            open(&mut node, A, B, &packet);
            let legs = both(&node, &packet);
            for (leg, from, to, packet) in
                [(&legs[0], A, B, packet.clone()), (&legs[1], B, A, packet.clone().answer())]
            {
                assert_eq!((leg.tuple, leg.translated), (tuple(&packet), None));
                assert_eq!((leg.from, leg.from_index), (from, ifindex(from)));
                assert_eq!((leg.to, leg.to_index, leg.to_uplink), (to, ifindex(to), false));
                assert_eq!(leg.cover.as_bytes(), &packet.frame(pod_mac(to), [0xee; 6])[..14]);
                assert_eq!((leg.expected, leg.mtu), (None, 1500));
            }
            assert_eq!(both(&node, &packet.clone().answer()), legs, "by either tuple");
            assert_eq!(
                legs[0].ends(),
                (at(a, 40_000).parse().unwrap(), at(b, 80).parse().unwrap())
            );
        }
    }
}

#[test]
fn a_busy_connection_of_a_pod_is_mentioned_and_no_other() {
    let mut node = Node::default();
    let [a, b] = pods(true);
    let busy = [
        (A, tcp(&at(a, 40_000), &at(b, 80), ACK), B),
        (A, udp(&at(a, 40_000), &at(b, 80)), B),
        (A, tcp(&at(a, 40_001), "10.65.1.2:80", ACK), WIRE),
        (WIRE, tcp("10.65.1.2:4000", &at(b, 80), ACK), B),
        (WIRE, udp("10.65.1.2:4000", &at(b, 80)), B),
    ];
    let others = [
        (A, tcp(&at(a, 40_002), "192.0.2.1:80", ACK), HOST),
        (HOST, tcp("192.0.2.1:4", &at(b, 80), ACK), B),
        (HOST, udp("192.0.2.1:4", &at(b, 80)), B),
        (A, sctp(&at(a, 40_000), &at(b, 80)), B),
    ];
    for (from, packet, to) in busy.iter().chain(&others) {
        node.send(*from, packet);
        node.send(*to, &packet.clone().answer());
    }
    for nth in 2..=EVERY {
        for (from, packet, _) in &busy {
            node.send(*from, packet);
            let mentioned: Vec<_> = node.engine.mentions().collect();
            let due = if nth == EVERY { vec![tuple(packet)] } else { vec![] };
            assert_eq!(mentioned, due, "after {nth} packets");
        }
        for (from, packet, _) in &others {
            node.send(*from, packet);
            assert_eq!(node.engine.mentions().count(), 0, "{packet:?}");
        }
    }
}

#[test]
fn segments_that_nobody_answers_are_not_mentioned() {
    let mut node = Node::default();
    let packet = tcp("10.65.0.2:4", "10.65.0.3:80", ACK);
    for _ in 0..2 * EVERY {
        node.send(A, &packet);
    }
    assert_eq!(node.engine.mentions().count(), 0);
    assert_eq!(allowed(&node, &packet), None);
}

#[test]
fn what_nobody_hears_of_is_mentioned_no_more_than_a_few_times() {
    let mut node = Node::default();
    let packet = tcp("10.65.0.2:40000", "10.65.0.3:80", ACK);
    open(&mut node, A, B, &packet);
    for _ in 0..40 * EVERY {
        node.send(A, &packet);
    }
    assert_eq!(node.engine.mentions().count(), margay_engine::shortcut::MENTIONS);
}

#[test]
fn neither_an_opening_nor_an_ending_connection_may() {
    let packet = tcp("10.65.0.2:40000", "10.65.0.3:80", ACK);
    let mut node = Node::default();
    assert_eq!(allowed(&node, &packet), None, "unknown");
    let syn = with_flags(&packet, SYN);
    node.send(A, &syn);
    assert_eq!(allowed(&node, &packet), None, "one end alone");
    node.send(B, &syn.answer());
    assert_eq!(allowed(&node, &packet), None, "not acknowledged");
    node.send(A, &packet);
    let legs = both(&node, &packet);
    assert!(legs.iter().all(|leg| holds(node.table, &tuple(&packet), leg)));
    node.send(B, &with_flags(&packet.clone().answer(), FIN | ACK));
    assert_eq!(allowed(&node, &packet), None, "one end has closed");
    assert!(!legs.iter().any(|leg| holds(node.table, &tuple(&packet), leg)));
}

#[test]
fn another_generation_takes_a_packet_each_way() {
    let ends = ["10.65.0.2:40000", "10.65.0.3:80"];
    for packet in [tcp(ends[0], ends[1], ACK), udp(ends[0], ends[1])] {
        let mut node = Node::default();
        open(&mut node, A, B, &packet);
        let before = both(&node, &packet);
        node.change(|_| ());
        assert_eq!(allowed(&node, &packet), None);
        node.send(A, &packet);
        // The answers were not judged yet: of TCP nothing may, of UDP what was.
        let found = allowed(&node, &packet);
        let udp = matches!(packet.body, Body::Udp { .. });
        assert_eq!(found.map(|found| found.legs.to_vec()), udp.then(|| vec![before[0]]));
        node.send(B, &packet.clone().answer());
        assert_eq!(both(&node, &packet), before);
    }
}

#[test]
fn datagrams_may_that_nobody_answers() {
    let packet = udp("10.65.0.2:40000", "10.65.0.3:80");
    let mut node = Node::default();
    for nth in 1..=EVERY {
        node.send(A, &packet);
        assert_eq!(node.engine.mentions().count(), nth / EVERY, "after {nth} packets");
    }
    let alone = allowed(&node, &packet).unwrap();
    assert_eq!((alone.tuple, alone.legs.len()), (tuple(&packet), 1));
    assert!(holds(node.table, &tuple(&packet), &alone.legs[0]));
    node.send(B, &packet.clone().answer());
    assert_eq!(both(&node, &packet)[0], alone.legs[0], "as it was without an answer");
    assert_eq!(allowed(&node, &tcp("10.65.0.2:40000", "10.65.0.3:80", ACK)), None, "not TCP's");
}

#[test]
fn datagrams_from_and_to_another_node_may_that_nobody_answers() {
    for (nth, far) in AFAR.into_iter().enumerate() {
        let there = udp("10.65.0.2:40000", far);
        for (from, packet) in [(A, there.clone()), (WIRE, there.clone().answer())] {
            let mut node = Node::default();
            let sent = if from == A { packet.clone() } else { from_afar(nth, &packet) };
            node.send(from, &sent);
            let alone = allowed(&node, &packet).unwrap();
            assert_eq!((alone.tuple, alone.legs.len()), (tuple(&packet), 1));
            // With an answer it is the same.
            let answer = packet.clone().answer();
            let (back, answer) = match from {
                A => (WIRE, from_afar(nth, &answer)),
                _ => (A, answer),
            };
            node.send(back, &answer);
            assert_eq!(both(&node, &packet)[0], alone.legs[0], "{far}");
        }
    }
}

#[test]
fn answers_may_while_the_questions_were_not_judged_again() {
    let packet = udp("10.65.0.2:40000", "10.65.0.3:80");
    let mut node = Node::default();
    open(&mut node, A, B, &packet);
    let before = both(&node, &packet);
    node.change(|_| ());
    node.send(B, &packet.clone().answer());
    let found = allowed(&node, &packet).unwrap();
    assert_eq!((found.tuple, &found.legs[..]), (tuple(&packet), &before[1..]));
}

/// A service has this backend, and no other.
fn serving(backend: &'static str) -> impl Fn(&mut State) {
    move |state| serve(state, service("s", 17, "10.96.0.1:53", &[backend]))
}

/// A node where a service's backend has answered a pod; question and answer.
fn served() -> (Node, Ip, Ip) {
    let mut node = Node::default();
    node.change(serving("10.65.0.3:53"));
    let asked = udp("10.65.0.2:40000", "10.96.0.1:53");
    let answer = udp("10.65.0.3:53", "10.65.0.2:40000");
    node.send(A, &asked);
    node.send(B, &answer);
    (node, asked, answer)
}

#[test]
fn a_service_that_loses_its_backend_loses_its_datagrams_way_past_the_workers() {
    let (mut node, asked, answer) = served();
    let [there, _] = both(&node, &asked);
    assert_eq!(there.translated, Some(tuple(&asked.clone().to("10.65.0.3:53"))));
    node.change(serving("10.65.0.4:53"));
    assert_eq!(allowed(&node, &asked), None, "nothing was judged yet");
    node.send(A, &asked);
    node.send(B, &answer);
    // The one that is gone is not who answers, and the one that is there is behind no trunk.
    assert_eq!(allowed(&node, &asked), None);
}

#[test]
fn answers_of_a_backend_that_is_gone_leave_it_with_the_connection() {
    let (mut node, asked, answer) = served();
    node.change(serving("10.65.0.4:53"));
    // Who goes on answering is allowed to until the client asks again.
    node.send(B, &answer);
    let found = allowed(&node, &answer).unwrap();
    let [leg] = found.legs[..] else { panic!("{found:?}") };
    assert_eq!((found.tuple, leg.tuple), (tuple(&asked), tuple(&answer)));
    assert!(holds(node.table, &found.tuple, &leg));
    node.send(A, &asked);
    assert!(node.table.lookup(&tuple(&asked), node.table.hash(&tuple(&asked))).is_some());
    assert!(!holds(node.table, &found.tuple, &leg), "that is another connection");
}

#[test]
fn what_is_denied_or_elsewhere_may_not() {
    let limited: Edit = |state| {
        let endpoint = state.endpoints.get_mut("default/b/eth0").unwrap();
        let rate = margay_model::PacketRate { rate: 10_000, burst: 10_000 };
        std::sync::Arc::make_mut(endpoint).limits.ingress.packets = Some(rate);
    };
    let cases: [(&str, PortId, &str, Edit); 4] = [
        ("limited", A, "10.65.0.2:40000", limited),
        ("denied", A, "10.65.0.2:40000", |state| {
            isolate(state, "b", Some(vec![]), Some(vec![]));
        }),
        ("a native port", N, "10.65.0.4:40000", |_| ()),
        ("the node", HOST, "192.0.2.1:40000", |_| ()),
    ];
    for (what, from, src, edit) in cases {
        for packet in [tcp(src, "10.65.0.3:80", ACK), udp(src, "10.65.0.3:80")] {
            let mut node = Node::default();
            node.change(edit);
            open(&mut node, from, B, &packet);
            assert_eq!(allowed(&node, &packet), None, "{what}");
            assert_eq!(is_assured(&node, &packet), what != "denied", "{what}");
        }
    }
}

/// What stands before an IP packet in a frame, without what depends on the packet: class, lengths,
/// identification, DF and checksum.
fn outer(frame: &[u8], inner: usize) -> Vec<u8> {
    let mut outer = frame[..frame.len() - inner].to_vec();
    for range in [15..22, 24..26, 38..40] {
        if let Some(part) = outer.get_mut(range).filter(|_| frame.len() - inner > 14) {
            part.fill(0);
        }
    }
    outer
}

/// A packet as the far node sends it: plain, by IPIP, by VXLAN.
fn from_afar(nth: usize, inner: &Ip) -> Ip {
    let (far, near) = (ip("198.51.100.2"), ip("192.0.2.1"));
    let frame = inner.frame(VTEP_MAC, FAR_VTEP_MAC);
    let payload = [&[8, 0, 0, 0, 0, 0x10, 0, 0][..], &frame].concat();
    match nth {
        0 => inner.clone(),
        1 => packet(far, near, Body::Raw(4, inner.bytes())),
        _ => packet(far, near, Body::Udp { ports: (50_000, 4789), payload, checksum: false }),
    }
}

/// A handshake of pod a with a pod of another node.
fn open_to(node: &mut Node, nth: usize, packet: &Ip) {
    let syn = with_flags(packet, SYN);
    node.send(A, &syn);
    node.send(WIRE, &from_afar(nth, &syn.answer()));
    node.send(A, packet);
}

const AFAR: [&str; 3] = ["10.65.1.5:80", "10.65.2.5:80", "10.65.3.5:80"];

#[test]
fn a_connection_to_another_node_may_behind_the_headers_that_the_path_writes() {
    for (nth, (dst, mtu)) in AFAR.into_iter().zip([1500, 1480, 1450]).enumerate() {
        for packet in [tcp("10.65.0.2:40000", dst, ACK), udp("10.65.0.2:40000", dst)] {
            let packet = packet.df();
            let mut node = Node::default();
            open_to(&mut node, nth, &packet);
            let [there, back] = both(&node, &packet);
            let written = node.send(A, &packet).by(WIRE);
            let inner = packet.bytes().len();
            assert_eq!(outer(there.cover.as_bytes(), 0), outer(&written, inner), "{dst}");
            assert_eq!((there.from, there.from_index, there.expected), (A, ifindex(A), None));
            assert_eq!((there.to, there.to_uplink, there.mtu), (WIRE, true, mtu));

            let answer = packet.clone().answer();
            let came = from_afar(nth, &answer).frame(UPLINK_MAC, [0; 6]);
            let expected = back.expected.unwrap();
            let (mut expected, mut came) =
                (outer(expected.as_bytes(), 0), outer(&came, answer.bytes().len()));
            // Who sent it on, and by which port, may be any.
            for headers in [&mut expected, &mut came] {
                headers[6..12].fill(0);
                headers.get_mut(34..36).into_iter().for_each(|port| port.fill(0));
            }
            assert_eq!(expected, came, "{dst}");
            assert_eq!(back.cover.as_bytes(), &answer.frame(pod_mac(A), [0xee; 6])[..14]);
            assert_eq!((back.from, back.from_index), (WIRE, there.to_index));
            assert_eq!((back.to, back.to_index, back.to_uplink), (A, ifindex(A), false));
        }
    }
}

#[test]
fn outer_identifications_are_those_that_the_path_writes() {
    for (nth, dst) in AFAR.into_iter().enumerate().skip(1) {
        let mut node = Node::default();
        let mut packet = tcp("10.65.0.2:40000", dst, ACK);
        packet.identification = 0x4711;
        open_to(&mut node, nth, &packet);
        let [there, _] = both(&node, &packet);
        let written = node.send(A, &packet).by(WIRE);
        let identification = u16::from_be_bytes([written[18], written[19]]);
        assert_eq!(identification, packet.identification ^ there.identification, "{dst}");
    }
}

#[test]
fn ipv6_to_another_node_may_without_a_tunnel_only() {
    let mut node = Node::default();
    let packet = tcp("[fd00:65::2]:40000", "[fd00:65:0:1::5]:80", ACK);
    open_to(&mut node, 0, &packet);
    assert!(allowed(&node, &packet).is_some());
    // Each packet's outer UDP checksum is its own.
    let packet = tcp("[fd00:65::2]:40000", "[fd00:65:0:3::5]:80", ACK);
    let syn = with_flags(&packet, SYN);
    node.send(A, &syn);
    node.send(WIRE, &syn.answer());
    node.send(A, &packet);
    assert!(is_assured(&node, &packet));
    assert_eq!(allowed(&node, &packet), None);
}

#[test]
fn what_a_neighbours_new_address_changes_is_not_the_same_leg() {
    let mut node = Node::default();
    let packet = tcp("10.65.0.2:40000", AFAR[0], ACK);
    open_to(&mut node, 0, &packet);
    let before = both(&node, &packet);
    node.rewire(|underlay| {
        for neighbour in underlay.neighbours.values_mut().filter(|mac| **mac == Mac(NEAR_MAC)) {
            *neighbour = Mac(CLIENT_MAC);
        }
    });
    node.send(A, &packet);
    node.send(WIRE, &packet.clone().answer());
    let after = both(&node, &packet);
    assert_eq!(after[1].tuple, before[1].tuple);
    assert_ne!(after[0].cover, before[0].cover);
}

#[test]
fn what_a_service_translates_may_and_is_translated_there_too() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 6, "10.96.0.1:80", &["10.65.0.3:8080"])));
    let asked = tcp("10.65.0.2:40000", "10.96.0.1:80", ACK);
    let answer = tcp("10.65.0.3:8080", "10.65.0.2:40000", ACK);
    node.send(A, &with_flags(&asked, SYN));
    node.send(B, &with_flags(&answer, SYN | ACK));
    node.send(A, &asked);
    let [there, back] = both(&node, &asked);
    let seen = tuple(&asked.clone().to("10.65.0.3:8080"));
    assert_eq!((there.tuple, there.translated), (tuple(&asked), Some(seen)));
    assert_eq!((back.tuple, back.translated), (tuple(&answer), Some(tuple(&asked).reversed())));
    assert_eq!((there.to, back.to), (B, A));
    assert_eq!(
        there.translated_ends(),
        Some(("10.65.0.2:40000".parse().unwrap(), "10.65.0.3:8080".parse().unwrap()))
    );
}

#[test]
fn a_pod_that_is_its_own_backend_may_not() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 6, "10.96.0.1:80", &["10.65.0.2:8080"])));
    let asked = tcp("10.65.0.2:40000", "10.96.0.1:80", ACK);
    for flags in [SYN, ACK] {
        let seen = node.send(A, &with_flags(&asked, flags)).by(A);
        // Its source is the node's, or it would answer itself.
        let client = std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&seen[26..30]).unwrap());
        let port = u16::from_be_bytes([seen[34], seen[35]]);
        let answer = tcp("10.65.0.2:8080", &at(&client.to_string(), port), flags | ACK);
        node.send(A, &answer);
    }
    assert!(is_assured(&node, &asked));
    assert_eq!(allowed(&node, &asked), None);
}
