//! A flow table that is full, connections that age, and pods that go.

use margay_engine::{Counters, Engine, Fate};
use margay_model::DropReason;
use margay_tables::flow::Share;

use crate::support::*;

const ALL: Share = Share { index: 0, of: 1 };

/// A connection of TCP with its handshake complete.
fn established(node: &mut Node, port: u16) {
    let syn = tcp(&at("10.65.0.2", port), "10.65.0.3:80", SYN);
    node.send(A, &syn).by(B);
    node.send(B, &syn.answer()).by(A);
    node.send(A, &tcp(&at("10.65.0.2", port), "10.65.0.3:80", ACK)).by(B);
}

fn housekeep(node: &mut Node, steps: usize) {
    let timeouts = node.snapshot.settings.timeouts;
    for _ in 0..steps {
        node.engine.housekeep(&timeouts, node.now, ALL);
    }
}

#[test]
fn a_flood_is_counted_and_established_connections_go_on() {
    let mut node = Node::with_capacity(256);
    (1..=100).for_each(|port| established(&mut node, port));
    let mut dropped = 0;
    for n in 0..4000u16 {
        let syn = tcp(&at("192.0.2.100", 1000 + n), "10.65.0.3:80", SYN);
        match node.send(WIRE, &syn).fate {
            Fate::Forward(_) => {}
            Fate::Drop(DropReason::FlowTableFull) => dropped += 1,
            other => panic!("{other:?}"),
        }
        // The worker keeps house between batches.
        if n % 8 == 0 {
            node.now += 1;
            housekeep(&mut node, 1);
        }
        let port = 1 + n % 100;
        node.send(A, &tcp(&at("10.65.0.2", port), "10.65.0.3:80", ACK)).by(B);
        node.send(B, &tcp("10.65.0.3:80", &at("10.65.0.2", port), ACK)).by(A);
    }
    let (drops, _) = node.counters.by_reason();
    assert_eq!(drops[DropReason::FlowTableFull as usize], dropped);
    assert!(node.counters.evicted.get() > 3000, "{} evicted", node.counters.evicted.get());
    assert!(dropped < 400, "{dropped} new connections found no room");
    assert_eq!(node.counters.misses.get(), 100 + 4000, "no established connection was made anew");
}

#[test]
fn where_only_established_connections_lie_the_flood_is_looked_for_elsewhere() {
    let mut node = Node::with_capacity(2048);
    (1..=600).for_each(|port| established(&mut node, port));
    for n in 0..20_000u32 {
        let client = format!("192.0.2.{}", 100 + n / 10_000);
        let syn = tcp(&at(&client, (n % 10_000) as u16), "10.65.0.3:80", SYN);
        let _ = node.send(WIRE, &syn);
        if n % 8 == 0 {
            node.now += 1;
            housekeep(&mut node, 1);
        }
    }
    let before = node.counters.misses.get();
    for port in 1..=600 {
        node.send(A, &tcp(&at("10.65.0.2", port), "10.65.0.3:80", ACK)).by(B);
    }
    assert_eq!(node.counters.misses.get() - before, 0);
}

#[test]
fn a_table_without_housekeeping_drops_the_new_and_keeps_the_old() {
    let mut node = Node::with_capacity(64);
    (1..=10).for_each(|port| established(&mut node, port));
    let mut full = 0;
    for n in 0..500 {
        match node.send(WIRE, &udp(&at("192.0.2.100", n), "10.65.0.3:80")).fate {
            Fate::Drop(DropReason::FlowTableFull) => full += 1,
            fate => assert_eq!(fate, Fate::Forward(B)),
        }
    }
    assert_eq!(full, 500 - 54);
    for port in 1..=10 {
        node.send(B, &tcp("10.65.0.3:80", &at("10.65.0.2", port), ACK)).by(A);
    }
    assert_eq!(node.counters.misses.get(), 10 + 500);
}

/// One pod sends `flood` with ever new tuples, many more between two steps of housekeeping than
/// one step used to take out; the share of another pod's connections that come about in percent.
fn new_connections_under(flood: u8) -> usize {
    let mut node = Node::with_capacity(2048);
    (1..=100).for_each(|port| established(&mut node, port));
    let mut tuple = 0u32;
    let mut opened = 0;
    for step in 0..50u16 {
        for burst in 0..4 {
            for _ in 0..125 {
                let (port, to) = (1000 + (tuple % 60_000) as u16, 1000 + (tuple / 60_000) as u16);
                let _ = node.send(A, &tcp(&at("10.65.0.2", port), &at("10.65.0.3", to), flood));
                tuple += 1;
            }
            if burst == 1 {
                let syn = tcp(&at("10.65.0.4", 1000 + step), "10.65.0.3:80", SYN);
                opened += usize::from(
                    node.send(N, &syn).fate == Fate::Forward(B)
                        && node.send(B, &syn.clone().answer()).fate == Fate::Forward(N),
                );
            }
        }
        node.now += 1;
        housekeep(&mut node, 1);
    }
    let before = node.counters.misses.get();
    for port in 1..=100 {
        node.send(A, &tcp(&at("10.65.0.2", port), "10.65.0.3:80", ACK)).by(B);
    }
    assert_eq!(node.counters.misses.get(), before, "established connections are where they were");
    2 * opened
}

#[test]
fn a_fast_flood_of_one_pod_leaves_room_for_new_connections_of_the_others() {
    for flags in [SYN, ACK, FIN | ACK] {
        let opened = new_connections_under(flags);
        assert!(opened >= 95, "{opened} % under flags {flags}");
    }
}

#[test]
fn denials_take_their_share_of_the_table_and_no_more() {
    let mut node = Node::with_capacity(256);
    node.change(|state| isolate(state, "b", Some(vec![]), None));
    for n in 0..2000 {
        node.send(A, &udp(&at("10.65.0.2", n), "10.65.0.3:80")).dropped(DropReason::Policy);
    }
    assert!(node.table.counts().denials <= 512 / 8);
    node.send(A, &udp("10.65.0.2:1", "10.65.0.4:80")).by(N);
}

/// Idles one connection for a while; whether it is still there.
fn survives(open: &[(margay_engine::PortId, Ip)], idle: u32) -> bool {
    let mut node = Node::default();
    for (from, packet) in open {
        assert!(matches!(node.send(*from, packet).fate, Fate::Forward(_)));
    }
    assert_eq!(node.connections(), 1);
    node.now = node.now.wrapping_add(idle);
    housekeep(&mut node, 32);
    assert_eq!(node.counters.expired.get() + node.connections(), 1);
    node.connections() == 1
}

#[test]
fn connections_end_by_the_age_of_their_state() {
    let syn = tcp("10.65.0.2:1", "10.65.0.3:2", SYN);
    let flags = |flags| tcp("10.65.0.2:1", "10.65.0.3:2", flags);
    let back = |flags| tcp("10.65.0.3:2", "10.65.0.2:1", flags);
    let opened = vec![(A, syn.clone()), (B, syn.clone().answer()), (A, flags(ACK))];
    let and = |more: &[(margay_engine::PortId, Ip)]| [&opened[..], more].concat();
    let cases = [
        (vec![(A, syn.clone())], 20_000),
        (vec![(A, syn.clone()), (B, syn.clone().answer())], 20_000),
        (vec![(A, flags(ACK))], 300_000),
        (vec![(A, flags(FIN | ACK))], 300_000),
        (vec![(A, flags(ACK)), (B, back(ACK))], 3_600_000),
        (opened.clone(), 3_600_000),
        (and(&[(A, flags(FIN | ACK))]), 3_600_000),
        (and(&[(A, flags(FIN | ACK)), (B, back(FIN | ACK))]), 120_000),
        (and(&[(B, back(RST).numbered(1001, 0))]), 40_000),
        (vec![(A, udp("10.65.0.2:1", "10.65.0.3:2"))], 60_000),
        (vec![(A, ping("10.65.0.2", "10.65.0.3", 1))], 5_000),
        (vec![(A, sctp("10.65.0.2:1", "10.65.0.3:2"))], 600_000),
    ];
    for (packets, lifetime) in cases {
        assert!(survives(&packets, lifetime), "{lifetime} ms: {packets:?}");
        assert!(!survives(&packets, lifetime + 1), "{lifetime} ms: {packets:?}");
    }
}

#[test]
fn ageing_survives_the_wrap_of_the_clock() {
    let mut node = Node::default();
    node.now = u32::MAX - 10;
    node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).by(B);
    node.now = node.now.wrapping_add(59_000);
    housekeep(&mut node, 32);
    assert_eq!(node.connections(), 1);
    node.now = node.now.wrapping_add(2_000);
    housekeep(&mut node, 32);
    assert_eq!(node.connections(), 0);
}

#[test]
fn either_direction_keeps_a_connection_alive() {
    let mut node = Node::default();
    let request = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &request).by(B);
    for _ in 0..10 {
        node.now += 50_000;
        node.send(B, &request.clone().answer()).by(A);
        housekeep(&mut node, 32);
    }
    assert_eq!((node.connections(), node.counters.misses.get()), (1, 1));
}

#[test]
fn a_denial_is_forgotten_soon() {
    let mut node = Node::default();
    node.change(|state| isolate(state, "b", Some(vec![]), None));
    node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).dropped(DropReason::Policy);
    node.now += 1_001;
    housekeep(&mut node, 32);
    assert_eq!(node.table.counts().denials, 0);
}

#[test]
fn the_flows_of_a_pod_that_is_gone_are_gone_whichever_end_it_was() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"])));
    node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).by(B); // its destination
    node.send(B, &udp("10.65.0.3:3", "8.8.8.8:2")).by(WIRE); // its source, translated
    node.send(A, &tcp("10.65.0.2:1", "10.96.0.10:80", SYN)).by(B); // behind a service
    node.send(A, &udp("10.65.0.2:1", "10.65.0.4:2")).by(N); // not its own
    node.change(|state| drop(state.endpoints.remove("default/b/eth0")));
    assert_eq!(node.engine.forget(ip("10.65.0.3").into()), 3);
    assert_eq!(node.connections(), 1);
    node.send(A, &udp("10.65.0.2:1", "10.65.0.4:2")).by(N);
    assert_eq!(node.counters.misses.get(), 4, "the bystander's flow is the one it was");
}

#[test]
fn a_new_connection_takes_the_place_of_one_that_has_ended() {
    let mut node = Node::default();
    established(&mut node, 1);
    node.send(A, &tcp("10.65.0.2:1", "10.65.0.3:80", FIN | ACK)).by(B);
    node.send(B, &tcp("10.65.0.3:80", "10.65.0.2:1", FIN | ACK)).by(A);
    node.send(A, &tcp("10.65.0.2:1", "10.65.0.3:80", ACK)).by(B);
    assert_eq!(node.counters.misses.get(), 1);
    node.change(|state| isolate(state, "b", Some(vec![allow_ports(6, 80, 80)]), None));
    established(&mut node, 1);
    assert_eq!((node.counters.misses.get(), node.connections()), (2, 1));
    housekeep(&mut node, 32);
    node.now += 3_000_000;
    housekeep(&mut node, 32);
    assert_eq!(node.connections(), 1, "it is established, not closing");
}

#[test]
fn a_reset_without_connection_opens_none() {
    let mut node = Node::default();
    let reset = tcp("10.65.0.2:1", "10.65.0.3:80", RST);
    node.send(A, &reset).dropped(DropReason::InvalidState);
    assert_eq!(node.connections(), 0);
}

#[test]
fn two_workers_carry_the_two_directions_of_one_connection() {
    let mut node = Node::default();
    let counters = std::sync::Arc::new(Counters::default());
    let mut other = Engine::new(node.table, counters.clone()).unwrap();
    let request = udp("10.65.0.2:1", "8.8.8.8:2");
    let sent = node.send(A, &request).by(WIRE);
    let source = u16::from_be_bytes([sent[34], sent[35]]);
    let answer = request.clone().from(&at("192.0.2.1", source)).answer();
    let bytes = frame_from(WIRE, &answer);
    let mut chunk = [&[0; HEADROOM][..], &bytes].concat();
    let mut batch = margay_engine::Batch::default();
    let (start, len, ingress) = (HEADROOM, bytes.len(), ingress(WIRE));
    let frame = margay_engine::Frame::new(&mut chunk, start, len, ingress);
    batch.frames.push(frame);
    other.run(&node.snapshot, node.now, &mut batch);
    assert_eq!(batch.fates[0], Fate::Forward(A));
    assert_eq!(batch.frames[0].bytes(), to_pod(A, &request.answer().ttl(63)));
    assert_eq!(counters.misses.get(), 0);
}

#[test]
fn workers_that_masquerade_at_once_never_hand_out_one_port_twice() {
    use std::collections::BTreeMap;
    let mut node = Node::with_capacity(8192);
    node.change(|state| {
        std::sync::Arc::make_mut(&mut state.node).settings.snat_ports = (61_000, 65_535);
    });
    let node = &node;
    // Each pod's connections through a worker of its own, all to one address and port.
    let worker = move |pod, addr: &'static str| {
        let mut engine = Engine::new(node.table, Default::default()).unwrap();
        let mut taken = Vec::new();
        let mut port = 1;
        while port <= 1500 {
            let request = udp(&at(addr, port), "8.8.8.8:53");
            let bytes = frame_from(pod, &request);
            let mut chunk = [&[0; HEADROOM][..], &bytes].concat();
            let mut batch = margay_engine::Batch::default();
            let (start, len, ingress) = (HEADROOM, bytes.len(), ingress(pod));
            let chunk = &mut chunk[..];
            batch.frames.push(margay_engine::Frame::new(chunk, start, len, ingress));
            engine.run(&node.snapshot, node.now, &mut batch);
            // A worker that was interrupted in the midst of an entry may be met: once more, then.
            if batch.fates[0] == Fate::Drop(DropReason::FlowTableFull) {
                std::thread::yield_now();
                continue;
            }
            assert_eq!(batch.fates[0], Fate::Forward(WIRE));
            let sent = batch.frames[0].bytes();
            taken.push((u16::from_be_bytes([sent[34], sent[35]]), request));
            port += 1;
        }
        taken
    };
    let taken = std::thread::scope(|scope| {
        let workers = [(A, "10.65.0.2"), (B, "10.65.0.3")];
        let workers = workers.map(|(pod, addr)| scope.spawn(move || worker(pod, addr)));
        workers.map(|worker| worker.join().unwrap()).concat()
    });
    let ports: BTreeMap<u16, Ip> = taken.iter().cloned().collect();
    assert_eq!(ports.len(), taken.len());
}
