//! How many TCP connections a pod may have.

use std::collections::BTreeMap;
use std::sync::Arc;

use margay_engine::{Counters, Engine, Fate, Why, census};
use margay_model::{DropReason, Limits, State};
use margay_tables::flow::{FlowWorker, Share};
use proptest::prelude::*;

use crate::support::*;

/// A connection of the tests: who begins it at which port, and with whom. Its answers may come from
/// elsewhere.
#[derive(Clone, Debug)]
struct Connection {
    from: margay_engine::PortId,
    to: margay_engine::PortId,
    src: String,
    dst: String,
    answers: String,
}

// === impl Connection ===

impl Connection {
    fn of_a(port: u16) -> Self {
        Self::between(A, B, &format!("10.65.0.2:{port}"), "10.65.0.3:80")
    }

    fn between(
        from: margay_engine::PortId,
        to: margay_engine::PortId,
        src: &str,
        dst: &str,
    ) -> Self {
        Self { from, to, src: src.into(), dst: dst.into(), answers: dst.into() }
    }

    fn ask(&self, flags: u8, own: u32, acknowledged: u32) -> Ip {
        tcp(&self.src, &self.dst, flags).sized(0).numbered(own, acknowledged)
    }

    fn answer(&self, flags: u8, own: u32, acknowledged: u32) -> Ip {
        tcp(&self.answers, &self.src, flags).sized(0).numbered(own, acknowledged)
    }

    /// Whether the connection may begin.
    #[track_caller]
    fn opens(&self, node: &mut Node) -> bool {
        match node.send(self.from, &self.ask(SYN, 1000, 0)).fate {
            Fate::Forward(port) => {
                assert_eq!(port, self.to);
                true
            }
            Fate::Punt(punt) => {
                assert_eq!(punt.why, Why::ConnectionLimit);
                false
            }
            other => panic!("{self:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn is_accepted(&self, node: &mut Node) {
        node.send(self.to, &self.answer(SYN | ACK, 5000, 1001)).by(self.from);
        node.send(self.from, &self.ask(ACK, 1001, 5001)).by(self.to);
    }

    #[track_caller]
    fn is_refused(&self, node: &mut Node) {
        node.send(self.to, &self.answer(RST | ACK, 0, 1001)).by(self.from);
    }

    #[track_caller]
    fn is_reset(&self, node: &mut Node) {
        node.send(self.from, &self.ask(RST, 1001, 0)).by(self.to);
    }

    #[track_caller]
    fn is_closed(&self, node: &mut Node) {
        node.send(self.from, &self.ask(FIN | ACK, 1001, 5001)).by(self.to);
        node.send(self.to, &self.answer(FIN | ACK, 5001, 1002)).by(self.from);
    }
}

fn limit(state: &mut State, pod: &str, edit: impl FnOnce(&mut Limits)) {
    let endpoint = state.endpoints.get_mut(format!("default/{pod}/eth0").as_str()).unwrap();
    edit(&mut Arc::make_mut(endpoint).limits);
}

/// A node whose pod b may have so many connections.
fn limited(to_b: u32) -> Node {
    let mut node = Node::default();
    node.change(|state| limit(state, "b", |limits| limits.ingress.connections = Some(to_b)));
    node
}

fn age(node: &mut Node, milliseconds: u32) {
    node.now += milliseconds;
    let timeouts = node.snapshot.settings.timeouts;
    for _ in 0..64 {
        node.engine.housekeep(&timeouts, node.now, Share { index: 0, of: 1 });
    }
}

/// Connections that count at pod b, and at pod a.
fn counted(node: &Node) -> [u64; 2] {
    let mut guest = FlowWorker::new(node.table.clone()).unwrap();
    let counts = census::counts(&node.snapshot, &mut guest);
    let of = |ingress| counts.iter().find(|c| c.ingress == ingress).map_or(0, |c| c.connections);
    [of(true), of(false)]
}

#[test]
fn one_connection_too_many_is_refused_and_the_others_go_on() {
    for v4 in [true, false] {
        let mut node = limited(2);
        let [a, b] = pods(v4);
        let nth = |port| Connection::between(A, B, &at(a, port), &at(b, 80));
        for port in [1, 2] {
            assert!(nth(port).opens(&mut node));
            nth(port).is_accepted(&mut node);
        }
        assert!(!nth(3).opens(&mut node) && !nth(3).opens(&mut node));
        assert_eq!(node.connections(), 2, "what is refused leaves nothing behind");
        node.send(A, &nth(1).ask(ACK, 1001, 5001)).by(B);
        // The other direction, other protocols and other pods have no limit.
        assert!(Connection::between(B, A, &at(b, 1), &at(a, 80)).opens(&mut node));
        node.send(A, &udp(&at(a, 1), &at(b, 53))).by(B);
        node.send(A, &sctp(&at(a, 1), &at(b, 53))).by(B);
        node.send(A, &ping(a, b, 9)).by(B);
        node.conserved();
    }
}

#[test]
fn a_connection_counts_until_it_is_closed_reset_refused_or_forgotten() {
    let mut node = limited(1);
    let nth = Connection::of_a;
    assert!(nth(1).opens(&mut node) && !nth(2).opens(&mut node));
    nth(1).is_accepted(&mut node);
    assert!(!nth(2).opens(&mut node));
    nth(1).is_closed(&mut node);
    assert!(nth(2).opens(&mut node), "after both FINs");
    nth(2).is_refused(&mut node);
    assert!(nth(3).opens(&mut node), "nobody listened");
    nth(3).is_accepted(&mut node);
    nth(3).is_reset(&mut node);
    assert!(nth(4).opens(&mut node), "after a reset");
    age(&mut node, 30_000);
    assert!(nth(5).opens(&mut node), "nobody answered for long");
    node.engine.forget(ip("10.65.0.2").into());
    assert!(nth(6).opens(&mut node), "the pod at the other end is gone");
    assert_eq!(counted(&node)[0], 1);
}

#[test]
fn one_half_that_is_closed_counts_and_a_connection_that_begins_again_takes_its_place_anew() {
    let mut node = limited(1);
    let nth = Connection::of_a;
    assert!(nth(1).opens(&mut node));
    nth(1).is_accepted(&mut node);
    node.send(A, &nth(1).ask(FIN | ACK, 1001, 5001)).by(B);
    assert!(!nth(2).opens(&mut node), "the other end may still send");
    node.send(B, &nth(1).answer(FIN | ACK, 5001, 1002)).by(A);
    assert!(nth(2).opens(&mut node));
    assert!(!nth(1).opens(&mut node), "the same ports are another connection");
    nth(2).is_refused(&mut node);
    assert!(nth(1).opens(&mut node));
    assert!(nth(1).opens(&mut node), "a SYN that was lost comes again");
}

#[test]
fn what_a_pod_begins_counts_at_the_pod_and_what_one_end_refuses_takes_no_place_at_the_other() {
    let mut node = limited(1);
    node.change(|state| limit(state, "a", |limits| limits.egress.connections = Some(2)));
    let outside =
        |port| Connection::between(A, WIRE, &format!("10.65.0.2:{port}"), "198.51.100.9:80");
    let to_host = Connection::between(A, HOST, "10.65.0.2:9", "192.0.2.1:80");
    assert!(Connection::of_a(1).opens(&mut node) && !Connection::of_a(2).opens(&mut node));
    assert_eq!(counted(&node), [1, 1]);
    assert!(to_host.opens(&mut node) && !outside(1).opens(&mut node));
    assert_eq!(counted(&node), [1, 2]);
    // Who is not limited itself is refused by b all the same.
    assert!(!Connection::between(N, B, "10.65.0.4:1", "10.65.0.3:80").opens(&mut node));
    assert!(!Connection::between(WIRE, B, "198.51.100.9:1", "10.65.0.3:80").opens(&mut node));
}

#[test]
fn connections_through_a_service_count_at_the_client_and_at_the_backend() {
    let mut node = limited(2);
    node.change(|state| {
        serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
        limit(state, "a", |limits| limits.egress.connections = Some(1));
    });
    let by_service = |from, src: &str| Connection::between(from, B, src, "10.96.0.10:80");
    assert!(by_service(A, "10.65.0.2:1").opens(&mut node));
    assert!(!by_service(A, "10.65.0.2:2").opens(&mut node));
    assert!(by_service(N, "10.65.0.4:1").opens(&mut node));
    assert!(!by_service(N, "10.65.0.4:2").opens(&mut node));
    // A pod that asks itself has both ends.
    node.change(|state| limit(state, "b", |limits| limits.ingress.connections = Some(3)));
    assert!(by_service(B, "10.65.0.3:1").opens(&mut node));
    assert_eq!(counted(&node), [3, 1]);
}

#[test]
fn the_node_reaches_its_pods_whatever_their_limit_is() {
    let mut node = limited(1);
    let of_host = |port| Connection::between(HOST, B, &format!("192.0.2.1:{port}"), "10.65.0.3:80");
    assert!(of_host(1).opens(&mut node) && of_host(2).opens(&mut node));
    assert!(Connection::of_a(1).opens(&mut node) && !Connection::of_a(2).opens(&mut node));
    assert!(of_host(3).opens(&mut node));
    assert_eq!(counted(&node)[0], 1);
}

#[test]
fn whom_policy_denies_is_told_nothing_and_takes_no_place() {
    let mut node = limited(1);
    node.change(|state| isolate(state, "b", Some(vec![allow_ports(6, 80, 80)]), None));
    let denied = tcp("10.65.0.2:4000", "10.65.0.3:81", SYN);
    node.send(A, &denied).dropped(DropReason::Policy);
    assert!(Connection::of_a(1).opens(&mut node) && !Connection::of_a(2).opens(&mut node));
    node.send(A, &denied).dropped(DropReason::Policy);
}

#[test]
fn another_limit_applies_to_the_next_connection_and_ends_none() {
    let mut node = limited(3);
    let nth = Connection::of_a;
    let set = |node: &mut Node, limit_of_b| {
        node.change(|state| limit(state, "b", |limits| limits.ingress.connections = limit_of_b));
    };
    for port in 1..=3 {
        assert!(nth(port).opens(&mut node));
        nth(port).is_accepted(&mut node);
    }
    set(&mut node, Some(1));
    for port in 1..=3 {
        node.send(A, &nth(port).ask(ACK, 1001, 5001)).by(B);
    }
    nth(1).is_closed(&mut node);
    nth(2).is_closed(&mut node);
    assert!(!nth(4).opens(&mut node), "one is left, and one may be");
    set(&mut node, Some(2));
    assert!(nth(4).opens(&mut node) && !nth(5).opens(&mut node));
    set(&mut node, None);
    assert!(nth(5).opens(&mut node) && nth(6).opens(&mut node));
    set(&mut node, Some(3));
    assert_eq!(counted(&node)[0], 4, "what began without a limit counts when there is one");
    assert!(!nth(7).opens(&mut node));
}

#[test]
fn a_new_process_counts_the_connections_that_it_finds() {
    let mut node = limited(3);
    node.change(|state| {
        serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
        limit(state, "a", |limits| limits.egress.connections = Some(9));
    });
    let by_service = Connection {
        answers: "10.65.0.3:8080".into(),
        ..Connection::between(N, B, "10.65.0.4:1", "10.96.0.10:80")
    };
    for connection in [&Connection::of_a(1), &Connection::of_a(2), &by_service] {
        assert!(connection.opens(&mut node));
    }
    Connection::of_a(1).is_refused(&mut node);
    assert!(Connection::between(HOST, B, "192.0.2.1:1", "10.65.0.3:80").opens(&mut node));
    let mut node = node.taken_over();
    assert_eq!(counted(&node), [2, 1]);
    assert!(Connection::of_a(3).opens(&mut node) && !Connection::of_a(4).opens(&mut node));
}

#[test]
fn what_goes_on_in_its_midst_counts_and_is_not_refused() {
    let mut node = limited(1);
    for port in [1, 2] {
        let amid = tcp(&format!("10.65.0.2:{port}"), "10.65.0.3:80", ACK);
        node.send(A, &amid).by(B);
    }
    assert_eq!(counted(&node)[0], 2);
    assert!(!Connection::of_a(3).opens(&mut node));
}

#[test]
fn a_pod_that_is_limited_in_this_alone_may_have_the_shortcut_and_pays_for_nothing_else() {
    let mut node = limited(1);
    let only = Connection::of_a(1);
    assert!(only.opens(&mut node));
    only.is_accepted(&mut node);
    let tuple = margay_tables::addr::Tuple {
        src: ip("10.65.0.2").into(),
        dst: ip("10.65.0.3").into(),
        src_port: 1,
        dst_port: 80,
        protocol: 6,
        zone: 0,
    };
    assert!(margay_engine::shortcut::legs(&node.snapshot, node.table, &tuple).is_some());
}

#[test]
fn a_place_is_given_back_where_the_connection_finds_no_room_in_the_table() {
    let mut node = Node::with_capacity(8);
    node.change(|state| limit(state, "b", |limits| limits.ingress.connections = Some(100)));
    let fates: Vec<_> =
        (1..60).map(|port| node.send(A, &Connection::of_a(port).ask(SYN, 1000, 0)).fate).collect();
    let full = fates.iter().filter(|f| **f == Fate::Drop(DropReason::FlowTableFull)).count();
    assert!(full > 0, "{fates:?}");
    assert_eq!(counted(&node)[0], node.connections());
}

#[test]
fn workers_that_race_never_let_in_more_than_the_limit() {
    const LIMIT: u32 = 7;
    let node = Node::with_capacity(4096);
    let mut node = node;
    node.change(|state| limit(state, "b", |limits| limits.ingress.connections = Some(LIMIT)));
    let (table, snapshot, now) = (node.table, &node.snapshot, node.now);
    let (nth, barrier) = (|port| Connection::of_a(port), std::sync::Barrier::new(2));
    for round in 0..40u16 {
        let admitted: usize = std::thread::scope(|scope| {
            let worker = |number: u16| {
                let barrier = &barrier;
                let mut engine = Engine::new(table, Arc::new(Counters::default())).unwrap();
                move || {
                    barrier.wait();
                    let ports = (0..50).map(|n| 1000 + round * 100 + number * 50 + n);
                    let opens = |port: &u16| {
                        let mut chunk = frame_from(A, &nth(*port).ask(SYN, 1000, 0));
                        chunk.splice(0..0, [0; HEADROOM]);
                        let len = chunk.len() - HEADROOM;
                        let mut batch = margay_engine::Batch::default();
                        let frame =
                            margay_engine::Frame::new(&mut chunk, HEADROOM, len, ingress(A));
                        batch.frames.push(frame);
                        engine.run(snapshot, now + u32::from(round), &mut batch);
                        batch.fates[0] == Fate::Forward(B)
                    };
                    ports.filter(opens).count()
                }
            };
            let threads = [0, 1].map(|number| scope.spawn(worker(number)));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, LIMIT as usize, "round {round}");
        let mut guest = FlowWorker::new(table.clone()).unwrap();
        assert_eq!(guest.remove_where(|_| true), LIMIT);
    }
}

/// What a naive model knows of a connection that was let in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    HalfOpen,
    Open,
}

/// The connections of the property: of six kinds, both families, two ports each.
fn connection(number: usize) -> Connection {
    let (kind, v4, port) =
        (number % 6, (number / 6).is_multiple_of(2), 4000 + (number / 12) as u16);
    let [a, b] = pods(v4);
    let (n, host) = if v4 { ("10.65.0.4", "192.0.2.1") } else { ("fd00:65::4", "2001:db8:1::1") };
    let outside = if v4 { "198.51.100.9" } else { "2001:db8:9::9" };
    let elsewhere = if v4 { "10.65.1.5" } else { "fd00:65:0:1::5" };
    let b = at(b, 80);
    match kind {
        0 => Connection::between(A, B, &at(a, port), &b),
        1 if v4 => Connection {
            answers: "10.65.0.3:8080".into(),
            ..Connection::between(A, B, &at(a, port + 100), "10.96.0.10:80")
        },
        1 | 2 => Connection::between(N, B, &at(n, port + 100 * kind as u16), &b),
        3 => Connection::between(WIRE, B, &at(outside, port), &b),
        4 => Connection::between(HOST, B, &at(host, port), &b),
        _ => Connection::between(A, WIRE, &at(a, port), &at(elsewhere, 80)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_pod_has_as_many_connections_as_a_naive_count_allows(
        steps in proptest::collection::vec((0..24usize, 0..12u8), 1..150),
        limits in (1..5u32, 1..5u32),
    ) {
        let mut node = limited(limits.0);
        node.change(|state| {
            serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
            limit(state, "a", |of_a| of_a.egress.connections = Some(limits.1));
        });
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        let at_b = |number: &usize| {
            let Connection { from, to, .. } = connection(*number);
            to == B && from != HOST
        };
        let at_a = |number: &usize| connection(*number).from == A;
        for (number, what) in steps {
            let this = connection(number);
            node.now += 1;
            match (what, known.get(&number).copied()) {
                (0..5, None) => {
                    let room = |at: &dyn Fn(&usize) -> bool, most: u32| {
                        !at(&number) || known.keys().filter(|n| at(n)).count() < most as usize
                    };
                    let expected = room(&at_b, limits.0) && room(&at_a, limits.1);
                    prop_assert_eq!(this.opens(&mut node), expected, "{:?}", this);
                    if expected {
                        known.insert(number, Known::HalfOpen);
                    }
                }
                (5..8, Some(Known::HalfOpen)) => {
                    this.is_accepted(&mut node);
                    known.insert(number, Known::Open);
                }
                (8, Some(Known::HalfOpen)) => {
                    this.is_refused(&mut node);
                    known.remove(&number);
                }
                (8, Some(Known::Open)) => {
                    this.is_reset(&mut node);
                    known.remove(&number);
                }
                (9, Some(Known::Open)) => {
                    this.is_closed(&mut node);
                    known.remove(&number);
                }
                (10, _) => {
                    age(&mut node, 21_000);
                    known.retain(|_, known| *known == Known::Open);
                }
                (11, _) if number % 4 == 0 => node = node.taken_over(),
                _ => {}
            }
        }
        let [to_b, of_a] = [&at_b as &dyn Fn(&usize) -> bool, &at_a]
            .map(|at| known.keys().filter(|n| at(n)).count() as u64);
        prop_assert_eq!(counted(&node), [to_b, of_a]);
    }
}
