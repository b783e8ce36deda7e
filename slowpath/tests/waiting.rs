//! What the slow path keeps, and how it lets go: fragments and packets without a next hop.

mod support;

use std::net::IpAddr;

use margay_model::reason::{DropReason, PuntReason};
use margay_slowpath::{Action, Ingress, Injection, Limits, Past, Punt, Request, SlowPath};
use margay_slowpath::{neighbours, reassembly};
use support::{POD, ended, injected, no_flows, punt, slow_path, vector, with_limits};

const LOST: Action = Action::Dropped(PuntReason::Reassemble, DropReason::Fragment);
const TAKEN: Action = Action::Consumed(PuntReason::Reassemble);

/// An IPv4 fragment of `len` bytes at `offset`, of the datagram `ident` of the sender 10.0.0.`host`.
fn piece(host: u8, ident: u16, offset: u16, len: usize, more: bool) -> Punt {
    let mut frame = vector("udp")[..34].to_vec();
    frame.resize(34 + len, 0xaa);
    let total = u16::try_from(20 + len).unwrap();
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[18..20].copy_from_slice(&ident.to_be_bytes());
    frame[20..22].copy_from_slice(&((u16::from(more) << 13) | (offset / 8)).to_be_bytes());
    frame[26..30].copy_from_slice(&[10, 0, 0, host]);
    punt(POD, frame, Request::Reassemble)
}

fn add(slow: &mut SlowPath, now: u64, piece: Punt) -> Vec<Action> {
    slow.handle(now, piece, &no_flows)
}

#[test]
fn an_incomplete_datagram_is_given_up_after_its_time() {
    let mut slow = slow_path();
    assert_eq!(add(&mut slow, 0, piece(1, 1, 0, 800, true)), []);
    assert_eq!(add(&mut slow, 20_000, piece(1, 1, 800, 800, true)), []);
    assert_eq!(slow.tick(29_999), []);
    assert_eq!(slow.tick(30_000), [LOST, LOST]);
    assert_eq!(slow.waiting(), 0);
    assert_eq!(add(&mut slow, 30_001, piece(1, 1, 1600, 8, false)), [], "it begins anew");
}

#[test]
fn a_piece_that_came_twice_is_consumed_and_hurts_nothing() {
    let mut slow = slow_path();
    assert_eq!(add(&mut slow, 0, piece(1, 1, 0, 800, true)), []);
    assert_eq!(add(&mut slow, 0, piece(1, 1, 0, 800, true)), [TAKEN]);
    let actions = add(&mut slow, 0, piece(1, 1, 800, 9, false));
    assert_eq!(injected(&actions).len(), 1);
    assert_eq!(ended(&actions), 2);
}

#[test]
fn pieces_that_overlap_spoil_their_datagram_and_all_that_comes_of_it_later() {
    let overlaps =
        [piece(1, 1, 792, 800, true), piece(1, 1, 0, 808, true), piece(1, 1, 8, 16, true)];
    for overlap in overlaps {
        let mut slow = slow_path();
        add(&mut slow, 0, piece(1, 1, 0, 800, true));
        assert_eq!(add(&mut slow, 0, overlap), [LOST, LOST]);
        assert_eq!(add(&mut slow, 0, piece(1, 1, 0, 800, true)), [LOST]);
        assert_eq!(add(&mut slow, 0, piece(1, 1, 800, 8, false)), [LOST]);
        assert_eq!(slow.waiting(), 0);
        let other = add(&mut slow, 0, piece(1, 2, 0, 800, true));
        assert_eq!(other, [], "another datagram is not concerned");
        assert_eq!(slow.tick(30_000), [LOST], "of the spoiled one nothing was left to lose");
    }
}

#[test]
fn two_ends_of_one_datagram_spoil_it() {
    let mut slow = slow_path();
    add(&mut slow, 0, piece(1, 1, 800, 8, false));
    assert_eq!(add(&mut slow, 0, piece(1, 1, 1600, 8, false)), [LOST, LOST]);
    add(&mut slow, 0, piece(1, 2, 800, 8, false));
    assert_eq!(add(&mut slow, 0, piece(1, 2, 808, 8, true)), [LOST, LOST], "beyond the end");
    add(&mut slow, 0, piece(1, 3, 808, 8, true));
    assert_eq!(add(&mut slow, 0, piece(1, 3, 800, 8, false)), [LOST, LOST], "short of the rest");
}

#[test]
fn pieces_that_fit_no_datagram_are_dropped_at_once() {
    let mut slow = slow_path();
    for bad in [
        piece(1, 1, 0, 12, true),
        piece(1, 1, 8, 0, true),
        piece(1, 1, 8, 0, false),
        piece(1, 1, 65_528, 8, false),
        punt(POD, vector("udp"), Request::Reassemble),
        punt(POD, vec![0x45; 20], Request::Reassemble),
    ] {
        assert_eq!(add(&mut slow, 0, bad), [LOST]);
        assert_eq!(slow.waiting(), 0);
    }
}

#[test]
fn tiny_pieces_are_bounded_in_number() {
    let mut slow = slow_path();
    let mut all = Vec::new();
    for i in 0..200 {
        all.extend(add(&mut slow, 0, piece(1, 1, i * 8, 8, true)));
    }
    assert_eq!(all, vec![LOST; 200]);
    assert_eq!(slow.waiting(), 0);
}

#[test]
fn a_source_that_keeps_too_much_loses_its_own_oldest_and_harms_no_other() {
    let limits = reassembly::Limits { source_bytes: 5_000, ..Default::default() };
    let mut slow = with_limits(Limits { reassembly: limits, ..Default::default() });
    add(&mut slow, 0, piece(9, 1, 0, 800, true));
    let mut lost = 0;
    for ident in 0..100 {
        lost += ended(&add(&mut slow, 0, piece(1, ident, 0, 800, true)));
        assert!(slow.waiting() <= 6);
    }
    assert_eq!(lost + slow.waiting(), 101);
    let bystander = add(&mut slow, 0, piece(9, 1, 800, 8, false));
    assert_eq!(injected(&bystander).len(), 1);
    let newest = add(&mut slow, 0, piece(1, 99, 800, 8, false));
    assert_eq!(injected(&newest).len(), 1);
}

#[test]
fn many_sources_together_keep_no_more_than_the_total() {
    let limits = reassembly::Limits { total_bytes: 20_000, ..Default::default() };
    let mut slow = with_limits(Limits { reassembly: limits, ..Default::default() });
    let mut lost = 0;
    for host in 0..=255 {
        lost += ended(&add(&mut slow, 0, piece(host, 1, 0, 800, true)));
        assert!(slow.waiting() <= 20);
    }
    assert_eq!(lost + slow.waiting(), 256);
}

#[test]
fn a_flood_of_spoiled_datagrams_is_bounded_too() {
    let limits = reassembly::Limits { total_bytes: 20_000, ..Default::default() };
    let mut machine = reassembly::Reassembly::new(limits);
    for ident in 0..10_000 {
        machine.add(0, &piece(1, ident, 0, 16, true));
        machine.add(0, &piece(1, ident, 8, 16, true));
    }
    assert_eq!(machine.pieces(), 0);
    assert!(machine.bytes() <= 20_000 && machine.bytes() > 0);
    machine.expire(30_000);
    assert_eq!(machine.bytes(), 0);
}

#[test]
fn pieces_from_different_ports_never_meet() {
    let mut slow = slow_path();
    add(&mut slow, 0, piece(1, 1, 0, 800, true));
    let mut rest = piece(1, 1, 800, 8, false);
    rest.ingress = Ingress::Port(99);
    assert_eq!(add(&mut slow, 0, rest), []);
    assert_eq!(slow.port_gone(99).len(), 1);
    assert_eq!(slow.waiting(), 1);
}

#[test]
fn congestion_met_by_one_piece_is_on_the_whole_and_contradiction_loses_it() {
    let marked = |mut piece: Punt, ecn: u8| {
        piece.frame[15] |= ecn;
        piece
    };
    let mut slow = slow_path();
    add(&mut slow, 0, marked(piece(1, 1, 0, 800, true), 2));
    let actions = add(&mut slow, 0, marked(piece(1, 1, 800, 8, false), 3));
    let [Injection::Again { frame, .. }] = &injected(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(frame[15] & 3, 3);
    add(&mut slow, 0, marked(piece(1, 2, 0, 800, true), 0));
    let actions = add(&mut slow, 0, marked(piece(1, 2, 800, 8, false), 3));
    assert_eq!(actions, [LOST, LOST]);
}

#[test]
fn an_atomic_fragment_is_whole_by_itself() {
    // RFC 6946: offset 0, nothing more; others of its identification do not matter.
    let mut frame = vector("wide_1280_0");
    frame[14 + 40 + 3] &= !1;
    let mut slow = slow_path();
    add(&mut slow, 0, punt(POD, vector("wide_1280_0"), Request::Reassemble));
    let actions = add(&mut slow, 0, punt(POD, frame, Request::Reassemble));
    let [Injection::Again { frame, .. }] = &injected(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(frame[14 + 6], 17, "no fragment header is left");
    assert_eq!(slow.waiting(), 1);
}

// --- next hops

fn hop() -> IpAddr {
    "192.0.2.254".parse().unwrap()
}

fn unresolved(slow: &mut SlowPath, now: u64, mark: u8) -> Vec<Action> {
    let mut frame = vector("udp");
    // The low byte of the identification; 7 is what the vector has.
    frame[14 + 5] = mark;
    let request = Request::Neighbour { egress: 3, hop: hop() };
    slow.handle(now, punt(POD, frame, request), &no_flows)
}

const ASK: fn() -> Action = || Action::ResolveNeighbour { egress: 3, hop: hop() };
const UNRESOLVED: Action = Action::Dropped(PuntReason::Neighbour, DropReason::NeighbourUnresolved);

#[test]
fn what_was_put_together_is_still_that_after_it_waited_for_a_next_hop() {
    for past in [Past { reassembled: true, read: false }, Past { reassembled: true, read: true }] {
        let mut slow = slow_path();
        let request = Request::Neighbour { egress: 3, hop: hop() };
        slow.handle(0, Punt { past, ..punt(POD, vector("wide"), request) }, &no_flows);
        let goes_on = Injection::Again { ingress: POD, frame: vector("wide"), past };
        assert_eq!(injected(&slow.resolved(3, hop())), [goes_on]);
    }
}

#[test]
fn what_waits_for_a_next_hop_goes_on_in_order_when_it_is_known() {
    let mut slow = slow_path();
    assert_eq!(unresolved(&mut slow, 0, 1), [ASK()]);
    assert_eq!(unresolved(&mut slow, 999, 2), []);
    assert_eq!(unresolved(&mut slow, 1000, 3), [ASK()], "once a second");
    let other = slow.resolved(4, hop());
    assert_eq!(other, [], "the same address behind another port is another hop");
    let actions = slow.resolved(3, hop());
    let marks = injected(&actions).into_iter().map(|injection| match injection {
        Injection::Again { ingress: POD, frame, past } if past == Past::default() => frame[14 + 5],
        other => panic!("{other:?}"),
    });
    assert_eq!(marks.collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(ended(&actions), 3);
    assert_eq!(slow.waiting(), 0);
}

#[test]
fn a_packet_of_the_nodes_own_goes_on_as_such() {
    let mut slow = slow_path();
    let request = Request::Neighbour { egress: 3, hop: hop() };
    slow.handle(0, punt(Ingress::Own, vector("udp"), request), &no_flows);
    let own = Injection::Own { packet: vector("udp")[14..].to_vec() };
    assert_eq!(injected(&slow.resolved(3, hop())), [own]);
}

#[test]
fn a_next_hop_that_does_not_answer_in_three_seconds_is_reported_to_the_sender() {
    let mut slow = slow_path();
    unresolved(&mut slow, 0, 7);
    assert_eq!(slow.tick(2_999), []);
    let told = Injection::Own { packet: vector("unreachable_host") };
    let told = Action::Inject(PuntReason::Neighbour, told);
    assert_eq!(slow.tick(3_000), [told.clone(), UNRESOLVED]);
    unresolved(&mut slow, 4_000, 7);
    assert_eq!(slow.unresolvable(4_100, 3, hop()), [told, UNRESOLVED]);
}

#[test]
fn a_full_queue_loses_its_oldest_and_a_full_house_the_newcomer() {
    let limits = neighbours::Limits { per_hop: 2, total: 3, ..Default::default() };
    let mut slow = with_limits(Limits { neighbours: limits, ..Default::default() });
    unresolved(&mut slow, 0, 1);
    unresolved(&mut slow, 0, 2);
    assert_eq!(unresolved(&mut slow, 0, 3), [UNRESOLVED]);
    assert_eq!(slow.waiting(), 2);
    let mut elsewhere = |last: u8| {
        let hop = IpAddr::from([192, 0, 2, last]);
        let request = Request::Neighbour { egress: 3, hop };
        slow.handle(0, punt(POD, vector("udp"), request), &no_flows)
    };
    assert_eq!(elsewhere(1).len(), 1, "asked");
    let asked = Action::ResolveNeighbour { egress: 3, hop: IpAddr::from([192, 0, 2, 2]) };
    assert_eq!(elsewhere(2), [UNRESOLVED, asked], "lost, but the next may go");
    let actions = slow.resolved(3, hop());
    assert_eq!(injected(&actions).len(), 2);
}

#[test]
fn one_that_floods_unknown_next_hops_leaves_room_and_questions_to_the_others() {
    let mut slow = slow_path();
    let mut ask = |now: u64, from: u32, number: u16| {
        let [hi, lo] = number.to_be_bytes();
        let request = Request::Neighbour { egress: 3, hop: IpAddr::from([10, 9, hi, lo]) };
        let actions =
            slow.handle(now, punt(Ingress::Port(from), vector("udp"), request), &no_flows);
        let asked = actions.iter().any(|a| matches!(a, Action::ResolveNeighbour { .. }));
        (ended(&actions) == 0, asked)
    };
    let flood: Vec<_> = (0..2000).map(|number| ask(0, 50, number)).collect();
    assert_eq!(flood.iter().filter(|(held, _)| *held).count(), 128);
    assert_eq!(flood.iter().filter(|(_, asked)| *asked).count(), 2 * 128);
    assert_eq!(ask(0, 51, 5000), (true, true));
    assert_eq!(ask(999, 50, 6000), (false, false));
    assert_eq!(ask(1000, 50, 6000), (false, true), "another second, other questions");
    assert_eq!(ask(1000, 50, 5000), (false, true));
    assert_eq!(ask(1000, 50, 5000), (false, false), "asked for already");
    assert_eq!(slow.waiting(), 129);
    assert_eq!(slow.resolved(3, "10.9.0.0".parse().unwrap()).len(), 2);
    assert_eq!(slow.tick(4000).iter().filter(|a| matches!(a, Action::Dropped(..))).count(), 128);
    assert_eq!(slow.waiting(), 0);
}

#[test]
fn a_port_that_goes_takes_along_what_waits_for_it_or_came_from_it() {
    let mut slow = slow_path();
    unresolved(&mut slow, 0, 1);
    let down = Action::Dropped(PuntReason::Neighbour, DropReason::PortDown);
    assert_eq!(slow.port_gone(3), std::slice::from_ref(&down));
    unresolved(&mut slow, 0, 1);
    assert_eq!(slow.port_gone(support::POD_PORT), [down]);
    assert_eq!(slow.waiting(), 0);
}
