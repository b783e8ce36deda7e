//! Masquerading of what leaves the pools, ICMP through it, and errors about it.

use margay_engine::{Fate, Punt, Why, delivered};
use margay_model::DropReason;
use margay_tables::addr::Tuple;

use crate::support::*;

/// Sends a pod's packet out; it leaves as the node's. Hands out the packet that left.
#[track_caller]
fn out(node: &mut Node, packet: &Ip) -> Ip {
    let frame = node.send(A, packet).by(WIRE);
    let offset = if packet.src.is_ipv4() { 34 } else { 54 };
    let id_at = if matches!(packet.body, Body::Icmp { .. }) { 4 } else { 0 };
    let port = u16::from_be_bytes([frame[offset + id_at], frame[offset + id_at + 1]]);
    let own = if packet.src.is_ipv4() { "192.0.2.1" } else { "2001:db8:1::1" };
    let left = packet.clone().from(&at(own, port)).ttl(packet.ttl - 1);
    let neighbour = if packet.dst == ip("192.0.2.2") { NEAR_MAC } else { GATEWAY_MAC };
    assert_eq!(frame, to_wire(neighbour, &left));
    left
}

#[test]
fn what_leaves_the_pools_carries_the_nodes_address_and_its_answer_comes_back() {
    for packet in [
        tcp("10.65.0.2:4000", "8.8.8.8:443", SYN),
        udp("10.65.0.2:4000", "192.0.2.2:53"),
        sctp("10.65.0.2:4000", "8.8.8.8:7"),
        ping("10.65.0.2", "8.8.8.8", 77),
        tcp("[fd00:65::2]:4000", "[2001:4860::8888]:443", SYN),
        udp("[fd00:65::2]:4000", "[2001:4860::8888]:53"),
        ping("fd00:65::2", "2001:4860::8888", 77),
    ] {
        let mut node = Node::default();
        let left = out(&mut node, &packet);
        match packet.body {
            Body::Icmp { .. } => assert_eq!(left.src_port(), 77, "an identifier is kept"),
            _ => assert!(left.src_port() >= 61_000, "{}", left.src_port()),
        }
        let sent = node.send(WIRE, &left.answer()).by(A);
        assert_eq!(sent, to_pod(A, &packet.answer().ttl(63)));
        assert_eq!((node.connections(), node.counters.misses.get()), (1, 1));
    }
}

#[test]
fn a_port_that_a_process_of_the_node_has_bound_is_given_to_no_pod() {
    let mut node = Node::default();
    let (first, last) = node.snapshot.settings.snat_ports;
    let free = [first + 7, last - 3];
    let all_but = |free: &[u16]| (first..=last).filter(|p| !free.contains(p)).collect::<Vec<_>>();
    node.snapshot.bound.replace(17, all_but(&free));
    let mut taken = std::collections::BTreeSet::new();
    for port in 1000..1200 {
        let packet = udp(&at("10.65.0.2", port), "8.8.8.8:53");
        let sent = node.send(A, &packet);
        match sent.fate {
            margay_engine::Fate::Forward(WIRE) => {
                taken.insert(u16::from_be_bytes([sent.frame[34], sent.frame[35]]));
            }
            _ => sent.dropped(DropReason::SnatExhausted),
        }
    }
    assert!(!taken.is_empty() && taken.is_subset(&free.into()), "{taken:?}");
    // Of TCP nobody has any.
    out(&mut node, &tcp("10.65.0.2:4000", "8.8.8.8:443", SYN));
}

#[test]
fn a_source_port_of_the_range_is_kept_where_it_is_to_be_and_is_free() {
    let mut node = Node::default();
    let left = |node: &mut Node, pod, addr: &str, port| {
        let frame = node.send(pod, &tcp(&at(addr, port), "8.8.8.8:443", SYN)).by(WIRE);
        u16::from_be_bytes([frame[34], frame[35]])
    };
    let ports = 61_100..61_140;
    let kept = ports.clone().filter(|port| left(&mut node, A, "10.65.0.2", *port) == *port);
    assert!(kept.count() < 3, "by default they are drawn");
    node.change(|state| {
        std::sync::Arc::make_mut(&mut state.node).settings.keep_source_ports = true;
    });
    for port in ports.start + 1000..ports.end + 1000 {
        assert_eq!(left(&mut node, A, "10.65.0.2", port), port);
        let other = left(&mut node, B, "10.65.0.3", port);
        assert!(other != port && other >= 61_000, "{port} is taken: {other}");
    }
    assert!(left(&mut node, A, "10.65.0.2", 4000) >= 61_000, "not one of the range");
    node.snapshot.bound.replace(6, [63_000]);
    assert_ne!(left(&mut node, A, "10.65.0.2", 63_000), 63_000, "a process of the node has it");
}

#[test]
fn a_pool_that_does_not_masquerade_and_a_way_between_pools_keep_the_source() {
    let mut node = Node::default();
    node.change(|state| {
        let mut other = state.pools[&"10.65.0.0/16".parse().unwrap()];
        other.cidr = "172.16.0.0/16".parse().unwrap();
        state.pools.insert(other.cidr, other);
    });
    let between = udp("10.65.0.2:1", "172.16.9.9:2");
    assert_eq!(node.send(A, &between).by(WIRE), to_wire(GATEWAY_MAC, &between.ttl(63)));
    node.change(|state| state.pools.values_mut().for_each(|pool| pool.nat_outgoing = false));
    let outside = udp("10.65.0.2:1", "8.8.8.8:2");
    assert_eq!(node.send(A, &outside).by(WIRE), to_wire(GATEWAY_MAC, &outside.ttl(63)));
}

#[test]
fn no_two_connections_share_a_tuple_and_every_answer_finds_its_own() {
    let mut node = Node::with_capacity(4096);
    let mut left = std::collections::BTreeMap::new();
    for (pod, addr) in [(A, "10.65.0.2"), (B, "10.65.0.3")] {
        for port in 1..=500 {
            let packet = udp(&at(addr, port), "8.8.8.8:53");
            let frame = node.send(pod, &packet).by(WIRE);
            let source = u16::from_be_bytes([frame[34], frame[35]]);
            assert!(left.insert(source, (pod, packet)).is_none(), "port {source} twice");
        }
    }
    for (source, (pod, packet)) in left {
        let answer = packet.clone().from(&at("192.0.2.1", source)).answer();
        assert_eq!(node.send(WIRE, &answer).by(pod), to_pod(pod, &packet.answer().ttl(63)));
    }
}

#[test]
fn pings_with_one_identifier_from_two_pods_are_told_apart() {
    let mut node = Node::default();
    let (a, b) = (ping("10.65.0.2", "8.8.8.8", 5), ping("10.65.0.3", "8.8.8.8", 5));
    let first = node.send(A, &a).by(WIRE);
    let second = node.send(B, &b).by(WIRE);
    let id = |frame: &[u8]| u16::from_be_bytes([frame[38], frame[39]]);
    assert_ne!(id(&first), id(&second));
    for (pod, request, frame) in [(A, a, first), (B, b, second)] {
        let answer = request.clone().from(&at("192.0.2.1", id(&frame))).answer();
        assert_eq!(node.send(WIRE, &answer).by(pod), to_pod(pod, &request.answer().ttl(63)));
    }
}

#[test]
fn an_answer_that_becomes_nothing_but_zeros_has_a_right_checksum() {
    let mut node = Node::default();
    let bare = |src: &str, kind| {
        let body = Body::Icmp { kind, code: 0, rest: [0; 4], payload: vec![] };
        packet(ip(src), ip("8.8.8.8"), body)
    };
    node.send(A, &bare("10.65.0.2", 8)).by(WIRE);
    let frame = node.send(B, &bare("10.65.0.3", 8)).by(WIRE);
    let rest = [frame[38], frame[39], 0, 0];
    assert_ne!(rest, [0; 4], "another identifier than the first pod's");
    let answer = Body::Icmp { kind: 0, code: 0, rest, payload: vec![] };
    let arrived = node.send(WIRE, &packet(ip("8.8.8.8"), ip("192.0.2.1"), answer)).by(B);
    assert_eq!(arrived[34..42], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
}

#[test]
fn when_every_port_is_taken_the_connection_is_dropped_and_the_others_go_on() {
    let mut node = Node::default();
    node.change(|state| {
        std::sync::Arc::make_mut(&mut state.node).settings.snat_ports = (62_000, 62_007);
    });
    let packet = |port| udp(&at("10.65.0.2", port), "8.8.8.8:53");
    for port in 1..=8 {
        out(&mut node, &packet(port));
    }
    node.send(A, &packet(9)).dropped(DropReason::SnatExhausted);
    for port in 1..=8 {
        out(&mut node, &packet(port));
    }
    // To somebody else the same ports are free.
    out(&mut node, &udp("10.65.0.2:9", "8.8.4.4:53"));
}

#[test]
fn an_unasked_packet_to_the_nodes_address_is_the_nodes() {
    let mut node = Node::default();
    let unasked = udp("8.8.8.8:53", "192.0.2.1:61234");
    assert_eq!(node.send(WIRE, &unasked).by(HOST), to_host(&unasked));
}

#[test]
fn an_error_about_a_translated_packet_is_handed_over_whole_and_its_flow_is_found() {
    let mut node = Node::default();
    let request = udp("10.65.0.2:4000", "8.8.8.8:53");
    let left = out(&mut node, &request);
    for (kind, code) in [(3, 3), (3, 4), (11, 0)] {
        let payload = left.bytes()[..28].to_vec();
        let error = Body::Icmp { kind, code, rest: [0, 0, 5, 0], payload };
        let error = packet(ip("8.8.8.8"), ip("192.0.2.1"), error);
        let sent = node.send(WIRE, &error);
        assert_eq!(sent.frame, frame_from(WIRE, &error));
        assert_eq!(sent.punted(), Why::IcmpError);
    }
    // The slow path asks the table for the answer that the quoted packet would have had.
    let answer = Tuple {
        src: request.dst.into(),
        dst: left.src.into(),
        src_port: 53,
        dst_port: left.src_port(),
        protocol: 17,
        zone: 0,
    };
    let told = delivered(node.table, &answer).unwrap();
    assert_eq!((told.dst, told.dst_port), (request.src.into(), 4000));
    assert_eq!(node.connections(), 1, "an error opens no flow");
    // And sends what it makes of it in the node's name.
    let told =
        Body::Icmp { kind: 3, code: 3, rest: [0; 4], payload: request.bytes()[..28].to_vec() };
    let told = packet(ip("8.8.8.8"), ip("10.65.0.2"), told);
    assert_eq!(node.own(&told).by(A), to_pod(A, &told));
}

#[test]
fn an_error_from_a_pod_is_handed_over_only_in_its_own_name() {
    let mut node = Node::default();
    let quoted = udp("10.65.0.3:1", "10.65.0.2:2").bytes();
    let error = |src: &str| {
        let body = Body::Icmp { kind: 3, code: 3, rest: [0; 4], payload: quoted.clone() };
        packet(ip(src), ip("10.65.0.3"), body)
    };
    assert_eq!(node.send(A, &error("10.65.0.2")).punted(), Why::IcmpError);
    node.send(A, &error("10.65.0.3")).dropped(DropReason::Spoof);
}

#[test]
fn an_error_is_about_a_tunnel_only_from_between_the_nodes_and_of_this_node_to_another() {
    let mut node = Node::default();
    let errors = [
        (WIRE, "192.0.2.254", "192.0.2.1", "198.51.100.2", true),
        (WIRE, "192.0.2.254", "192.0.2.1", "8.8.8.8", false),
        (WIRE, "192.0.2.254", "203.0.113.1", "198.51.100.2", false),
        (A, "10.65.0.2", "192.0.2.1", "198.51.100.2", false),
    ];
    for (from, says, src, dst, heard) in errors {
        let body = Body::Icmp { kind: 3, code: 4, rest: [0, 0, 5, 0], payload: vec![0; 28] };
        let error = packet(ip(says), ip("192.0.2.1"), body);
        let Fate::Punt(punt) = node.send(from, &error).fate else { panic!("not punted") };
        let [src, dst] = [src, dst].map(|addr| ip(addr).into());
        assert_eq!(node.snapshot.hears_of_tunnel(&punt, src, dst), heard, "{src:?} {dst:?}");
        assert!(!node.snapshot.hears_of_tunnel(&Punt { tunneled: true, ..punt }, src, dst));
    }
}

#[test]
fn packets_of_the_slow_path_go_every_way_without_a_flow() {
    let mut node = Node::default();
    let error = |dst: &str| {
        let body = Body::Icmp { kind: 11, code: 0, rest: [0; 4], payload: vec![0; 28] };
        packet(ip("192.0.2.1"), ip(dst), body)
    };
    let direct = error("10.65.1.5");
    assert_eq!(node.own(&direct).by(WIRE), to_wire(NEAR_MAC, &direct));
    assert_eq!(node.own(&error("192.0.2.1")).by(HOST), to_host(&error("192.0.2.1")));
    let inner = error("10.65.2.5");
    let outer = packet(ip("192.0.2.1"), ip("198.51.100.2"), Body::Raw(4, inner.bytes()));
    assert_eq!(node.own(&inner).by(WIRE), to_wire(GATEWAY_MAC, &outer));
    node.own(&error("224.0.0.1")).dropped(DropReason::Martian);
    assert_eq!(
        node.own(&error("192.0.2.77")).punted().reason(),
        margay_model::PuntReason::Neighbour
    );
    assert_eq!(node.connections(), 0);
}

#[test]
fn a_packet_of_the_slow_path_that_is_too_big_is_cut() {
    let mut node = Node::default();
    let body = Body::Icmp { kind: 0, code: 0, rest: [0; 4], payload: vec![5; 1480] };
    let big = packet(ip("192.0.2.1"), ip("10.65.2.5"), body);
    let out = node.own(&big);
    assert_eq!(out.frame[34..], big.bytes(), "finished, outer header and all");
    assert_eq!(out.punted(), Why::Fragment { egress: WIRE, mtu: 1480, ip: 34 });
}

#[test]
fn the_answers_of_a_protocol_without_ports_are_asked_for_before_its_first_packet_leaves() {
    let raw = |src: &str, dst: &str| packet(ip(src), ip(dst), Body::Raw(50, vec![7; 24]));
    for (pod, own, far) in
        [("10.65.0.2", "192.0.2.1", "8.8.8.8"), ("fd00:65::2", "2001:db8:1::1", "2001:4860::8888")]
    {
        let mut node = Node::default();
        let asked = raw(pod, far);
        assert_eq!(node.send(A, &asked).punted(), Why::Portless);
        let answer = node.answer_to(A, &asked).unwrap();
        assert_eq!((answer.src, answer.dst), (ip(far).into(), ip(own).into()));
        // The slow path has seen to it.
        let left = to_wire(GATEWAY_MAC, &raw(own, far).ttl(63));
        assert_eq!(node.again(ingress(A), frame_from(A, &asked), false).by(WIRE), left);
        assert_eq!(node.send(A, &asked).by(WIRE), left);
        let sent = node.send(WIRE, &raw(far, own)).by(A);
        assert_eq!(sent, to_pod(A, &raw(far, pod).ttl(63)));
    }
    // Answers that say whose they are come by themselves.
    let mut node = Node::default();
    assert!(node.send(A, &raw("10.65.0.2", "10.65.0.3")).by(B).len() > 34);
    assert!(node.send(A, &raw("10.65.0.2", "10.65.2.5")).by(WIRE).len() > 34, "in a tunnel");
}

#[test]
fn a_connection_that_is_taken_back_begins_anew() {
    let mut node = Node::default();
    let asked = packet(ip("10.65.0.2"), ip("8.8.8.8"), Body::Raw(47, vec![0; 8]));
    for _ in 0..2 {
        assert_eq!(node.send(A, &asked).punted(), Why::Portless);
        node.take_back(A, &asked);
        assert_eq!(node.connections(), 0);
    }
}

#[test]
fn a_tuple_that_no_port_can_change_is_refused_without_trying_all_of_them() {
    let mut node = Node::default();
    let gre = |src: &str, dst: &str| packet(ip(src), ip(dst), Body::Raw(47, vec![0; 8]));
    assert_eq!(node.send(A, &gre("10.65.0.2", "8.8.8.8")).punted(), Why::Portless);
    node.send(B, &gre("10.65.0.3", "8.8.8.8")).dropped(DropReason::SnatExhausted);
    // What a pod sends to itself is its own answer.
    node.send(A, &gre("10.65.0.2", "10.65.0.2")).dropped(DropReason::InvalidState);
    assert_eq!(node.connections(), 1);
    // A query has an identifier to change, be it zero.
    node.send(A, &ping("10.65.0.2", "10.65.0.2", 0)).by(A);
    node.send(A, &gre("10.65.0.2", "8.8.8.8")).by(WIRE);
}
