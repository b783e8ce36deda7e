//! Which connections may go past the workers.

use margay_engine::PortId;
use margay_engine::shortcut::{Leg, is_established, legs};
use margay_model::State;
use margay_tables::addr::Tuple;

use crate::support::*;

/// What somebody changes.
type Edit = fn(&mut State);

/// Packets of a direction after which its connection is mentioned.
const EVERY: usize = 32;

fn tuple(packet: &Ip) -> Tuple {
    let (src, dst, (src_port, dst_port)) = (packet.src.into(), packet.dst.into(), packet.ends());
    Tuple { src, dst, src_port, dst_port, protocol: 6, zone: 0 }
}

fn with_flags(packet: &Ip, flags: u8) -> Ip {
    let mut packet = packet.clone();
    if let Body::Tcp { flags: old, .. } = &mut packet.body {
        *old = flags;
    }
    packet
}

/// A handshake from one pod to the other.
fn open(node: &mut Node, from: PortId, to: PortId, packet: &Ip) {
    let syn = with_flags(packet, SYN);
    node.send(from, &syn);
    node.send(to, &syn.answer());
    node.send(from, packet);
}

fn allowed(node: &Node, packet: &Ip) -> Option<[Leg; 2]> {
    legs(&node.snapshot, node.table, &tuple(packet))
}

#[test]
fn an_established_connection_of_two_pods_may_go_past_the_workers_both_ways() {
    for v4 in [true, false] {
        let [a, b] = pods(v4);
        let packet = tcp(&at(a, 40_000), &at(b, 80), ACK);
        let mut node = Node::default();
        open(&mut node, A, B, &packet);
        let there = Leg {
            tuple: tuple(&packet),
            translated: None,
            from: A,
            from_index: ifindex(A),
            to: B,
            to_index: ifindex(B),
            mac: pod_mac(B),
            mtu: 1500,
        };
        let back = Leg {
            tuple: tuple(&packet.clone().answer()),
            translated: None,
            from: B,
            from_index: ifindex(B),
            to: A,
            to_index: ifindex(A),
            mac: pod_mac(A),
            mtu: 1500,
        };
        assert_eq!(allowed(&node, &packet), Some([there, back]));
        assert_eq!(
            allowed(&node, &packet.clone().answer()),
            Some([there, back]),
            "by either tuple"
        );
        assert_eq!(there.ends(), (at(a, 40_000).parse().unwrap(), at(b, 80).parse().unwrap()));
    }
}

#[test]
fn a_busy_connection_of_two_pods_is_mentioned_and_no_other() {
    let mut node = Node::default();
    let [a, b] = pods(true);
    let local = tcp(&at(a, 40_000), &at(b, 80), ACK);
    let others = [
        (A, tcp(&at(a, 40_001), "10.65.1.2:80", ACK)),
        (A, tcp(&at(a, 40_002), "192.0.2.1:80", ACK)),
        (HOST, tcp("192.0.2.1:4", &at(b, 80), ACK)),
        (A, udp(&at(a, 40_000), &at(b, 80))),
    ];
    for nth in 1..=EVERY {
        node.send(A, &local);
        let mentioned: Vec<_> = node.engine.mentions().collect();
        let due = if nth == EVERY { vec![tuple(&local)] } else { vec![] };
        assert_eq!(mentioned, due, "after {nth} packets");
        for (from, packet) in &others {
            node.send(*from, packet);
            assert_eq!(node.engine.mentions().count(), 0, "{packet:?}");
        }
    }
}

#[test]
fn what_nobody_hears_of_is_mentioned_no_more_than_a_few_times() {
    let mut node = Node::default();
    let packet = tcp("10.65.0.2:40000", "10.65.0.3:80", ACK);
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
    assert!(allowed(&node, &packet).is_some() && is_established(node.table, &tuple(&packet)));
    node.send(B, &with_flags(&packet.clone().answer(), FIN | ACK));
    assert_eq!(allowed(&node, &packet), None, "one end has closed");
    assert!(!is_established(node.table, &tuple(&packet)));
}

#[test]
fn another_generation_takes_a_packet_each_way() {
    let packet = tcp("10.65.0.2:40000", "10.65.0.3:80", ACK);
    let mut node = Node::default();
    open(&mut node, A, B, &packet);
    node.change(|_| ());
    assert_eq!(allowed(&node, &packet), None);
    node.send(A, &packet);
    assert_eq!(allowed(&node, &packet), None, "the answers were not judged yet");
    node.send(B, &packet.clone().answer());
    assert!(allowed(&node, &packet).is_some());
}

#[test]
fn what_is_denied_or_elsewhere_may_not() {
    let cases: [(&str, PortId, &str, Edit); 3] = [
        ("denied", A, "10.65.0.2:40000", |state| {
            isolate(state, "b", Some(vec![]), Some(vec![]));
        }),
        ("a native port", N, "10.65.0.4:40000", |_| ()),
        ("the node", HOST, "192.0.2.1:40000", |_| ()),
    ];
    for (what, from, src, edit) in cases {
        let mut node = Node::default();
        let packet = tcp(src, "10.65.0.3:80", ACK);
        node.change(edit);
        open(&mut node, from, B, &packet);
        assert_eq!(allowed(&node, &packet), None, "{what}");
        assert_eq!(is_established(node.table, &tuple(&packet)), what != "denied", "{what}");
    }
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
    let [there, back] = allowed(&node, &asked).unwrap();
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
    assert!(is_established(node.table, &tuple(&asked)));
    assert_eq!(allowed(&node, &asked), None);
}
