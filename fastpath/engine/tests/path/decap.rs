//! What comes out of tunnels.

use margay_model::DropReason;

use crate::support::*;

fn ipip(outer_src: &str, class: u8, inner: &Ip) -> Ip {
    packet(ip(outer_src), ip("192.0.2.1"), Body::Raw(4, inner.bytes())).class(class)
}

fn vxlan(class: u8, header: [u8; 8], inner: &Ip) -> Ip {
    let payload = [&header[..], &inner.frame(VTEP_MAC, FAR_VTEP_MAC)].concat();
    let udp = Body::Udp { ports: (50_000, 4789), payload, checksum: false };
    let (src, dst) = match inner.src.is_ipv4() {
        true => ("198.51.100.2", "192.0.2.1"),
        false => ("2001:db8:2::2", "2001:db8:1::1"),
    };
    packet(ip(src), ip(dst), udp).class(class)
}

const HEADER: [u8; 8] = [8, 0, 0, 0, 0, 0x10, 0, 0];

#[test]
fn a_packet_from_a_known_peer_reaches_the_pod_with_its_ttl_lowered_once() {
    let inner = tcp("10.65.2.5:1", "10.65.0.2:2", SYN);
    let expected = to_pod(A, &inner.clone().ttl(63));
    assert_eq!(Node::default().send(WIRE, &ipip("198.51.100.2", 0, &inner)).by(A), expected);
    assert_eq!(Node::default().send(WIRE, &vxlan(0, HEADER, &inner)).by(A), expected);
    let inner = tcp("[fd00:65:0:3::5]:1", "[fd00:65::2]:2", SYN);
    let expected = to_pod(A, &inner.clone().ttl(63));
    assert_eq!(Node::default().send(WIRE, &vxlan(0, HEADER, &inner)).by(A), expected);
}

#[test]
fn the_answer_goes_back_through_the_tunnel() {
    let mut node = Node::default();
    let inner = tcp("10.65.2.5:1", "10.65.0.2:2", SYN);
    node.send(WIRE, &ipip("198.51.100.2", 0, &inner)).by(A);
    let answer = inner.answer().df();
    let raw = Body::Raw(4, answer.clone().ttl(63).bytes());
    let outer = packet(ip("192.0.2.1"), ip("198.51.100.2"), raw).df();
    assert_eq!(node.send(A, &answer).by(WIRE), to_wire(GATEWAY_MAC, &outer));
    assert_eq!(node.connections(), 1);
}

#[test]
fn congestion_marks_are_merged_as_rfc_6040_figure_4_says() {
    const NOT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    // Inner, outer, result; nothing is a drop.
    let table = [
        (NOT, NOT, Some(NOT)),
        (NOT, ECT0, Some(NOT)),
        (NOT, ECT1, Some(NOT)),
        (NOT, CE, None),
        (ECT0, NOT, Some(ECT0)),
        (ECT0, ECT0, Some(ECT0)),
        (ECT0, ECT1, Some(ECT1)),
        (ECT0, CE, Some(CE)),
        (ECT1, NOT, Some(ECT1)),
        (ECT1, ECT0, Some(ECT1)),
        (ECT1, ECT1, Some(ECT1)),
        (ECT1, CE, Some(CE)),
        (CE, NOT, Some(CE)),
        (CE, ECT0, Some(CE)),
        (CE, ECT1, Some(CE)),
        (CE, CE, Some(CE)),
    ];
    for (inner, outer, result) in table {
        let four = udp("10.65.2.5:1", "10.65.0.2:2").class(0xb8 | inner);
        let six = udp("[fd00:65:0:3::5]:1", "[fd00:65::2]:2").class(0xb8 | inner);
        let tunneled = [
            (ipip("198.51.100.2", 0x20 | outer, &four), &four),
            (vxlan(0x20 | outer, HEADER, &four), &four),
            (vxlan(0x20 | outer, HEADER, &six), &six),
        ];
        for (packet, inside) in tunneled {
            let out = Node::default().send(WIRE, &packet);
            match result {
                Some(mark) => {
                    let expected = to_pod(A, &inside.clone().ttl(63).class(0xb8 | mark));
                    assert_eq!(out.by(A), expected, "inner {inner} outer {outer}");
                }
                None => out.dropped(DropReason::TunnelEcn),
            }
        }
    }
}

#[test]
fn a_stranger_has_no_tunnel_here() {
    let inner = udp("10.65.2.5:1", "10.65.0.2:2");
    let mut node = Node::default();
    node.send(WIRE, &ipip("198.51.100.3", 0, &inner)).dropped(DropReason::UnknownTunnelPeer);
    let mut strange = vxlan(0, HEADER, &inner);
    strange.src = ip("192.0.2.9");
    node.send(WIRE, &strange).dropped(DropReason::UnknownTunnelPeer);
    node.change(|state| drop(state.remotes.remove("far")));
    node.send(WIRE, &ipip("198.51.100.2", 0, &inner)).dropped(DropReason::UnknownTunnelPeer);
}

#[test]
fn a_vxlan_header_of_another_network_or_cut_short_is_malformed() {
    let inner = udp("10.65.2.5:1", "10.65.0.2:2");
    let mut node = Node::default();
    for header in
        [[0, 0, 0, 0, 0, 0x10, 0, 0], [8, 0, 0, 0, 0, 0x10, 1, 0], [8, 0, 0, 0, 0, 0, 0, 0]]
    {
        node.send(WIRE, &vxlan(0, header, &inner)).dropped(DropReason::TunnelMalformed);
    }
    // Reserved bits are ignored (RFC 7348 §5).
    let reserved = [0xff, 1, 2, 3, 0, 0x10, 0, 0xff];
    node.send(WIRE, &vxlan(0, reserved, &inner)).by(A);
    let full = vxlan(0, HEADER, &inner);
    let Body::Udp { payload, .. } = &full.body else { unreachable!() };
    for len in 0..payload.len() {
        let out = node.send(WIRE, &full.clone().body_of(payload[..len].to_vec()));
        let margay_engine::Fate::Drop(reason) = out.fate else { panic!("{len}: {out:?}") };
        assert!(
            matches!(reason, DropReason::TunnelMalformed | DropReason::Malformed),
            "{reason:?}"
        );
    }
    let raw = |len: usize| Body::Raw(4, inner.bytes()[..len].to_vec());
    for len in 0..inner.bytes().len() {
        let out = node.send(WIRE, &packet(ip("198.51.100.2"), ip("192.0.2.1"), raw(len)));
        let margay_engine::Fate::Drop(reason) = out.fate else { panic!("{len}: {out:?}") };
        assert!(
            matches!(reason, DropReason::TunnelMalformed | DropReason::Malformed),
            "{reason:?}"
        );
    }
}

#[test]
fn a_tunnel_does_not_hide_a_stolen_address() {
    let mut node = Node::default();
    // Of a pod here, of this node, and of nobody who may send.
    let stolen = udp("10.65.0.3:1", "10.65.0.2:2");
    node.send(WIRE, &ipip("198.51.100.2", 0, &stolen)).dropped(DropReason::Spoof);
    node.send(WIRE, &vxlan(0, HEADER, &stolen)).dropped(DropReason::Spoof);
    let ours = udp("192.0.2.1:1", "10.65.0.2:2");
    node.send(WIRE, &ipip("198.51.100.2", 0, &ours)).dropped(DropReason::Spoof);
    let loopback = udp("127.0.0.1:1", "10.65.0.2:2");
    node.send(WIRE, &ipip("198.51.100.2", 0, &loopback)).dropped(DropReason::Martian);
}

#[test]
fn a_stolen_address_does_not_ride_on_an_open_flow() {
    let mut node = Node::default();
    let open = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &open).by(B);
    node.send(WIRE, &open).dropped(DropReason::Spoof);
    node.send(HOST, &open).dropped(DropReason::Spoof);
    node.send(WIRE, &ipip("198.51.100.2", 0, &open)).dropped(DropReason::Spoof);
    node.send(A, &open).by(B);
}

#[test]
fn a_tunnel_in_a_tunnel_is_not_opened() {
    let inner = udp("10.65.2.5:1", "10.65.0.2:2");
    let twice = ipip("198.51.100.2", 0, &ipip("198.51.100.2", 0, &inner));
    // What is left is for the node's own stack to judge.
    let mut node = Node::default();
    node.send(WIRE, &twice).by(HOST);
}
