//! ICMP errors of others: the quotation becomes the packet as its sender knows it.

mod support;

use std::cell::RefCell;
use std::net::IpAddr;

use margay_model::flow::FlowTuple;
use margay_model::reason::{DropReason, PuntReason};
use margay_slowpath::{Action, Injection, Request};
use support::{POD, UPLINK, injected, punt, slow_path, vector};

const ERROR: Request = Request::IcmpError { tunnel: false };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16, protocol: u8) -> FlowTuple {
    FlowTuple { src: ip(src), dst: ip(dst), protocol, src_port, dst_port }
}

/// A client's connection to a service that was sent on to a backend: the answer's way back.
fn service(arriving: &FlowTuple) -> Option<FlowTuple> {
    let answer = tuple("10.1.7.7", 8080, "10.1.0.5", 40000, 6);
    (*arriving == answer).then(|| tuple("10.96.0.10", 80, "10.1.0.5", 40000, 6))
}

/// A pod's ping that left in the node's name.
fn masqueraded(arriving: &FlowTuple) -> Option<FlowTuple> {
    let answer = tuple("198.51.100.9", 0, "192.0.2.1", 61001, 1);
    (*arriving == answer).then(|| tuple("198.51.100.9", 0, "10.1.0.5", 33, 1))
}

fn service6(arriving: &FlowTuple) -> Option<FlowTuple> {
    let answer = tuple("fd00:7::7", 5353, "fd00::5", 40000, 17);
    (*arriving == answer).then(|| tuple("fd00:96::a", 53, "fd00::5", 40000, 17))
}

#[track_caller]
fn is_translated(said: &str, flows: &dyn Fn(&FlowTuple) -> Option<FlowTuple>, told: &str) {
    let actions = slow_path().handle(0, punt(POD, vector(said), ERROR), flows);
    assert_eq!(injected(&actions), [Injection::Own { packet: vector(told) }], "{said}");
}

#[test]
fn a_routers_error_about_a_service_connection_quotes_the_service_and_keeps_its_source() {
    is_translated("router_says", &service, "router_told");
}

#[test]
fn eight_bytes_behind_the_header_are_enough() {
    is_translated("router_says_short", &service, "router_told_short");
}

#[test]
fn a_backends_error_comes_in_the_name_of_the_service() {
    is_translated("backend_says", &service, "backend_told");
}

#[test]
fn an_error_about_a_masqueraded_ping_reaches_the_pod_with_its_identifier() {
    is_translated("ping_says", &masqueraded, "ping_told");
}

#[test]
fn ipv6_errors_are_translated_with_all_checksums() {
    is_translated("six_says", &service6, "six_told");
}

#[test]
fn an_error_about_no_connection_of_ours_is_dropped() {
    let punt = punt(POD, vector("router_says"), ERROR);
    let actions = slow_path().handle(0, punt, &|_| None);
    assert_eq!(actions, [Action::Dropped(PuntReason::IcmpError, DropReason::InvalidState)]);
}

#[test]
fn an_error_about_a_tunnels_packet_lowers_its_path_mtu_and_looks_up_no_flow() {
    for name in ["tunnel_mtu", "tunnel_mtu_ipip"] {
        let asked = RefCell::new(0);
        let flows = |_: &FlowTuple| {
            *asked.borrow_mut() += 1;
            None
        };
        let punt = punt(UPLINK, vector(name), Request::IcmpError { tunnel: true });
        let actions = slow_path().handle(0, punt, &flows);
        let lower = Action::PathMtu { peer: ip("192.0.2.2"), mtu: 1400 };
        assert_eq!(actions, [lower, Action::Consumed(PuntReason::IcmpError)], "{name}");
        assert_eq!(*asked.borrow(), 0);
    }
}

#[test]
fn an_error_about_a_tunnels_packet_is_believed_only_from_between_the_nodes_and_of_its_sender() {
    let mut elsewhere = vector("tunnel_mtu");
    // To another address, with the checksum right: 192.0.2.3 instead of 192.0.2.1.
    elsewhere[14 + 19] += 2;
    elsewhere[14 + 11] -= 2;
    for (frame, tunnel) in
        [(vector("tunnel_mtu"), false), (vector("tunnel_mtu_ipip"), false), (elsewhere, true)]
    {
        let punt = punt(POD, frame, Request::IcmpError { tunnel });
        let actions = slow_path().handle(0, punt, &|_| None);
        assert_eq!(actions, [Action::Dropped(PuntReason::IcmpError, DropReason::InvalidState)]);
    }
}

#[test]
fn what_is_no_error_or_quotes_nothing_readable_is_dropped() {
    for (name, cut) in [("udp", 0), ("router_says", 12), ("ns_ask", 0), ("big_500_1", 0)] {
        let mut frame = vector(name);
        let len = frame.len() - cut;
        frame.truncate(len);
        let punt = punt(POD, frame, ERROR);
        let actions = slow_path().handle(0, punt, &|tuple| Some(*tuple));
        let malformed = Action::Dropped(PuntReason::IcmpError, DropReason::Malformed);
        assert_eq!(actions, [malformed], "{name}");
    }
}

#[test]
fn an_error_with_a_wrong_checksum_is_dropped_and_not_mended() {
    let mut frame = vector("router_says");
    *frame.last_mut().unwrap() ^= 1;
    let actions = slow_path().handle(0, punt(POD, frame, ERROR), &service);
    assert_eq!(actions, [Action::Dropped(PuntReason::IcmpError, DropReason::Malformed)]);
}

#[test]
fn an_error_on_its_last_hop_goes_no_further() {
    let mut frame = vector("router_says");
    frame[14 + 8] = 1;
    let actions = slow_path().handle(0, punt(POD, frame, ERROR), &service);
    assert_eq!(actions, [Action::Dropped(PuntReason::IcmpError, DropReason::TtlExpired)]);
}
