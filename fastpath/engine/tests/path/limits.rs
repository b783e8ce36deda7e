//! What a pod may use of the network: bits and packets in time.

use margay_engine::{Fate, PortId};
use margay_model::{Bandwidth, DropReason, Limits, PacketRate, Peak, State, Usage};

use crate::support::*;

const MS: u32 = 1_000_000;

fn limit(state: &mut State, pod: &str, edit: impl FnOnce(&mut Limits)) {
    let key = format!("default/{pod}/eth0");
    let endpoint = state.endpoints.get_mut(key.as_str()).unwrap();
    edit(&mut std::sync::Arc::make_mut(endpoint).limits);
}

/// `burst` bytes at once, then a byte a microsecond.
fn megabyte(burst: u64) -> Usage {
    let bandwidth = Bandwidth { rate: 8_000_000, burst: burst * 8, peak: None };
    Usage { bandwidth: Some(bandwidth), ..Usage::default() }
}

fn packets(rate: u32, burst: u32) -> Usage {
    Usage { packets: Some(PacketRate { rate, burst }), ..Usage::default() }
}

/// A packet of 1000 bytes from pod to pod, Ethernet header included.
fn thousand(v4: bool) -> Ip {
    let [a, b] = pods(v4);
    let packet = udp(&at(a, 4000), &at(b, 53));
    let headers = packet.clone().sized(0).frame([0; 6], [0; 6]).len();
    packet.sized(1000 - headers)
}

/// The delays that packets leave with, in nanoseconds; refused ones are left out.
fn delays(node: &mut Node, from: PortId, packet: &Ip, count: usize) -> Vec<u32> {
    let delay = |fate| match fate {
        Fate::Forward(_) => Some(0),
        Fate::Later(_, delay) => Some(delay),
        Fate::Drop(DropReason::Bandwidth | DropReason::PacketRate) => None,
        other => panic!("neither forwarded nor refused: {other:?}"),
    };
    (0..count).filter_map(|_| delay(node.send(from, packet).fate)).collect()
}

#[test]
fn what_exceeds_the_bandwidth_of_either_direction_is_due_later() {
    for v4 in [true, false] {
        for ingress in [true, false] {
            let mut node = Node::default();
            node.change(|state| match ingress {
                true => limit(state, "b", |limits| limits.ingress = megabyte(2000)),
                false => limit(state, "a", |limits| limits.egress = megabyte(2000)),
            });
            let packet = thousand(v4);
            assert_eq!(delays(&mut node, A, &packet, 5), [0, 0, MS, 2 * MS, 3 * MS]);
            let mut answer = packet.clone().answer();
            answer.ttl = 64;
            assert_eq!(delays(&mut node, B, &answer, 50), [0; 50], "the other way is free");
            node.now += 2;
            assert_eq!(delays(&mut node, A, &packet, 1), [2 * MS]);
        }
    }
}

#[test]
fn a_packet_that_is_due_later_is_rewritten_as_any_other() {
    let mut node = Node::default();
    node.change(|state| limit(state, "b", |limits| limits.ingress = megabyte(1000)));
    let packet = thousand(true);
    let now = node.send(A, &packet).by(B);
    let later = node.send(A, &packet);
    assert_eq!((later.fate, later.frame), (Fate::Later(B, MS), now));
}

#[test]
fn what_would_wait_longer_than_25_ms_is_dropped() {
    let mut node = Node::default();
    node.change(|state| limit(state, "b", |limits| limits.ingress = megabyte(1000)));
    assert_eq!(delays(&mut node, A, &thousand(true), 100).len(), 26);
    node.change(|state| {
        let rate = Bandwidth { rate: 80_000_000, burst: 8000, peak: None };
        limit(state, "b", |limits| limits.ingress.bandwidth = Some(rate));
    });
    assert_eq!(delays(&mut node, A, &thousand(true), 1000).len(), 251);
    node.send(A, &thousand(true)).dropped(DropReason::Bandwidth);
}

#[test]
fn a_burst_passes_no_faster_than_its_peak() {
    let mut node = Node::default();
    node.change(|state| {
        let peak = Some(Peak { rate: 80_000_000, burst: 1000 });
        let rate = Bandwidth { rate: 8_000_000, burst: 24_000, peak };
        limit(state, "b", |limits| limits.ingress.bandwidth = Some(rate));
    });
    let delays = delays(&mut node, A, &thousand(true), 5);
    assert_eq!(delays, [0, MS / 10, MS / 5, MS, 2 * MS]);
}

#[test]
fn packets_above_their_rate_are_dropped_and_do_not_wait() {
    for ingress in [true, false] {
        let mut node = Node::default();
        node.change(|state| match ingress {
            true => limit(state, "b", |limits| limits.ingress = packets(100, 3)),
            false => limit(state, "a", |limits| limits.egress = packets(100, 3)),
        });
        let ping = ping("10.65.0.2", "10.65.0.3", 1);
        assert_eq!(delays(&mut node, A, &ping, 10), [0; 3]);
        node.send(A, &ping).dropped(DropReason::PacketRate);
        node.now += 20;
        assert_eq!(delays(&mut node, A, &ping, 10), [0; 2]);
    }
}

#[test]
fn limits_hold_towards_the_wire_the_host_and_out_of_tunnels_of_service_translations_too() {
    let mut node = Node::default();
    node.change(|state| {
        serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
        limit(state, "a", |limits| limits.egress = packets(1, 1));
    });
    for dst in ["198.51.100.9:80", "10.65.2.5:80", "10.65.3.5:80", "10.96.0.10:80", "192.0.2.1:80"]
    {
        node.now += 1000;
        assert!(node.send(A, &tcp("10.65.0.2:4000", dst, SYN)).fate.egress().is_some(), "{dst}");
        node.send(A, &tcp("10.65.0.2:4000", dst, SYN)).dropped(DropReason::PacketRate);
    }
    node.change(|state| limit(state, "a", |limits| *limits = Limits::default()));
    node.change(|state| limit(state, "b", |limits| limits.ingress = packets(1, 1)));
    let from_host = tcp("192.0.2.1:4000", "10.65.0.3:8080", SYN);
    node.send(HOST, &from_host).by(B);
    node.send(HOST, &from_host).dropped(DropReason::PacketRate);
}

#[test]
fn a_packet_that_one_end_refuses_costs_the_other_nothing() {
    let mut node = Node::default();
    node.change(|state| {
        limit(state, "a", |limits| limits.egress = packets(100, 10));
        limit(state, "b", |limits| limits.ingress = packets(100, 2));
    });
    let to_b = ping("10.65.0.2", "10.65.0.3", 1);
    assert_eq!(delays(&mut node, A, &to_b, 50).len(), 2);
    let to_n = ping("10.65.0.2", "10.65.0.4", 1);
    assert_eq!(delays(&mut node, A, &to_n, 50).len(), 8);
}

#[test]
fn what_policy_denies_uses_up_no_limit_and_what_limits_refuse_does_not_advance_a_connection() {
    let mut node = Node::default();
    node.change(|state| {
        isolate(state, "b", Some(vec![allow_ports(6, 80, 80)]), None);
        limit(state, "a", |limits| limits.egress = packets(1, 1));
    });
    node.send(A, &tcp("10.65.0.2:4000", "10.65.0.3:81", SYN)).dropped(DropReason::Policy);
    let syn = tcp("10.65.0.2:4000", "10.65.0.3:80", SYN);
    node.send(A, &syn).by(B);
    let reset = tcp("10.65.0.2:4000", "10.65.0.3:80", RST);
    node.send(A, &reset).dropped(DropReason::PacketRate);
    node.send(B, &tcp("10.65.0.3:80", "10.65.0.2:4000", SYN | ACK)).by(A);
}

#[test]
fn an_edit_of_something_else_keeps_what_is_used_up_and_another_limit_begins_anew() {
    let mut node = Node::default();
    node.change(|state| limit(state, "b", |limits| limits.ingress = packets(1, 3)));
    let ping = ping("10.65.0.2", "10.65.0.3", 1);
    assert_eq!(delays(&mut node, A, &ping, 10).len(), 3);
    node.change(|state| isolate(state, "a", Some(vec![allow()]), None));
    assert_eq!(delays(&mut node, A, &ping, 10).len(), 0);
    node.change(|state| limit(state, "b", |limits| limits.ingress = packets(1, 5)));
    assert_eq!(delays(&mut node, A, &ping, 10).len(), 5);
    let misses = node.counters.misses.get();
    node.change(|state| limit(state, "b", |limits| *limits = Limits::default()));
    assert_eq!(delays(&mut node, A, &ping, 10).len(), 10);
    assert_eq!(node.counters.misses.get(), misses, "the connection went on");
}

#[test]
fn packets_of_the_slow_path_count_once_and_when_they_leave() {
    let mut node = Node::default();
    node.change(|state| limit(state, "a", |limits| limits.egress = packets(1, 1)));
    node.rewire(|underlay| underlay.neighbours.clear());
    let packet = tcp("10.65.0.2:4000", "10.65.1.5:80", SYN);
    for _ in 0..3 {
        node.send(A, &packet).punted();
    }
    node.rewire(|underlay| {
        underlay.neighbours.insert((WIRE, ip("192.0.2.2")), margay_model::Mac(NEAR_MAC));
    });
    let again = node.again(ingress(A), frame_from(A, &packet), false);
    assert_eq!(again.fate, Fate::Forward(WIRE));
    let again = node.again(ingress(A), frame_from(A, &packet), false);
    assert_eq!(again.fate, Fate::Drop(DropReason::PacketRate));
}

#[test]
fn what_a_pod_sends_out_of_the_cluster_is_marked_and_nothing_else() {
    let mut node = Node::default();
    let dscp = margay_model::Dscp::new(46).unwrap();
    node.change(|state| {
        serve(state, service("web", 6, "10.96.0.10:80", &["198.51.100.9:8080"]));
        limit(state, "a", |limits| limits.dscp = Some(dscp));
    });
    let class = |frame: &[u8], v4: bool| match v4 {
        true => frame[15],
        false => frame[14] << 4 | frame[15] >> 4,
    };
    // ECN stays as it was; sums are looked at where a frame leaves.
    for (dst, port, marked) in [
        ("198.51.100.9:80", WIRE, true),
        ("10.96.0.10:80", WIRE, true),
        ("10.65.0.3:80", B, false),
        ("10.65.1.5:80", WIRE, false),
        ("192.0.2.1:80", HOST, false),
        ("192.0.2.2:80", WIRE, false),
        ("[2001:db8:9::9]:80", WIRE, true),
        ("[fd00:65::3]:80", B, false),
    ] {
        let v4 = !dst.starts_with('[');
        let src = at(pods(v4)[0], 4000);
        let frame = node.send(A, &tcp(&src, dst, SYN).class(0b01)).by(port);
        assert_eq!(class(&frame, v4), if marked { 46 << 2 | 0b01 } else { 0b01 }, "{dst}");
    }
    // Answers of the pod too, and nobody else's packets.
    let asked = tcp("198.51.100.9:4000", "10.65.0.2:80", SYN);
    let at_pod = node.send(WIRE, &asked).by(A);
    assert_eq!(class(&at_pod, true), 0);
    let answer = node.send(A, &tcp("10.65.0.2:80", "198.51.100.9:4000", SYN | ACK)).by(WIRE);
    assert_eq!(class(&answer, true), 46 << 2);
    let of_b = node.send(B, &tcp("10.65.0.3:4000", "198.51.100.9:80", SYN)).by(WIRE);
    assert_eq!(class(&of_b, true), 0);
}
