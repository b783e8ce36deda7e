//! Answers are compared, byte for byte, with packets that scapy made (`golden/make.py`).

mod support;

use margay_model::reason::{DropReason, PuntReason};
use margay_slowpath::{Action, Ingress, Injection, Past, Request, Unreachable};
use support::{
    POD, POD_PORT, TUNNEL, ask, drop_reason, ended, injected, no_flows, punt, slow_path, vector,
};

#[track_caller]
fn sends(frame: &str, request: Request, answer: &str) {
    let actions = ask(POD, vector(frame), request);
    let sent = Injection::Send { port: POD_PORT, frame: vector(answer) };
    assert_eq!(injected(&actions), [sent], "{frame}");
    assert_eq!(ended(&actions), 1);
}

#[track_caller]
fn originates(ingress: Ingress, frame: &str, request: Request, answer: &str) {
    let actions = ask(ingress, vector(frame), request);
    assert_eq!(injected(&actions), [Injection::Own { packet: vector(answer) }], "{frame}");
    assert_eq!(ended(&actions), 1);
}

#[track_caller]
fn is_silent(frame: &str, request: Request) {
    let reason = request.reason();
    assert_eq!(ask(POD, vector(frame), request), [Action::Consumed(reason)], "{frame}");
}

#[test]
fn a_pod_that_asks_for_its_gateway_gets_the_hosts_address() {
    sends("arp_ask", Request::Arp, "arp_answer");
    sends("ns_ask", Request::Ndisc, "na_answer");
    sends("ns_ask_bare", Request::Ndisc, "na_answer");
}

#[test]
fn a_pod_that_looks_for_others_with_its_own_address_hears_nothing() {
    is_silent("arp_probe", Request::Arp);
    is_silent("arp_announce", Request::Arp);
    is_silent("dad", Request::Ndisc);
}

#[test]
fn answers_solicitations_of_routers_and_what_came_from_afar_are_consumed() {
    is_silent("arp_reply", Request::Arp);
    is_silent("na_answer", Request::Ndisc);
    is_silent("ns_routed", Request::Ndisc);
    is_silent("rs", Request::Ndisc);
    is_silent("rs", Request::Dhcp);
}

#[test]
fn an_expired_packet_is_answered_from_the_nodes_address_or_the_tunnels() {
    originates(POD, "udp", Request::TtlExpired, "ttl_expired");
    originates(TUNNEL, "udp", Request::TtlExpired, "ttl_expired_tunnel");
    originates(POD, "udp6", Request::TtlExpired, "hop_limit");
    // There is no tunnel address of this family: the node's own is better than none.
    originates(TUNNEL, "udp6", Request::TtlExpired, "hop_limit");
}

#[test]
fn a_packet_too_large_is_answered_with_the_mtu() {
    originates(POD, "udp", Request::TooBig { mtu: 600 }, "too_big");
    originates(POD, "udp6", Request::TooBig { mtu: 1300 }, "packet_too_big");
}

#[test]
fn a_packet_without_a_way_is_answered_with_the_reason() {
    let reasons = [
        ("net", Unreachable::Net),
        ("host", Unreachable::Host),
        ("port", Unreachable::Port),
        ("prohibited", Unreachable::Prohibited),
    ];
    for (name, why) in reasons {
        originates(POD, "udp", Request::Unreachable(why), &format!("unreachable_{name}"));
        originates(POD, "udp6", Request::Unreachable(why), &format!("unreachable6_{name}"));
    }
}

#[test]
fn a_connection_to_nobody_is_reset_in_the_name_of_the_service() {
    originates(POD, "syn", Request::Reject, "syn_rst");
    originates(POD, "data", Request::Reject, "data_rst");
    originates(POD, "fin", Request::Reject, "fin_rst");
    originates(POD, "syn6", Request::Reject, "syn6_rst");
}

#[test]
fn a_connection_too_many_is_dropped_and_reset_in_the_name_of_whom_it_was_meant_for() {
    let (reason, dropped) = (PuntReason::ConnectionLimit, DropReason::ConnectionLimit);
    for (frame, answer) in [("syn", "syn_rst"), ("syn6", "syn6_rst")] {
        let actions = ask(POD, vector(frame), Request::ConnectionLimit);
        let reset = Action::Inject(reason, Injection::Own { packet: vector(answer) });
        assert_eq!(actions, [reset, Action::Dropped(reason, dropped)], "{frame}");
    }
    // Nothing but SYNs comes here: what else there is ends without an answer.
    for frame in ["rst", "udp", "arp_ask"] {
        let actions = ask(POD, vector(frame), Request::ConnectionLimit);
        assert_eq!(actions.last(), Some(&Action::Dropped(reason, dropped)), "{frame}");
    }
}

#[test]
fn a_reset_is_not_answered() {
    is_silent("rst", Request::Reject);
}

#[test]
fn a_question_to_nobody_is_refused_in_the_name_of_the_service() {
    originates(POD, "question", Request::Reject, "question_refused");
    originates(POD, "question6", Request::Reject, "question6_refused");
}

#[track_caller]
fn is_cut(frame: &str, ip_start: usize, mtu: u16, pieces: &[&str]) {
    let mut whole = punt(POD, vector(frame), Request::Fragment { egress: 3, mtu });
    whole.ip_start = ip_start;
    let actions = slow_path().handle(0, whole, &no_flows);
    let sent = pieces.iter().map(|name| Injection::Send { port: 3, frame: vector(name) });
    assert_eq!(injected(&actions), sent.collect::<Vec<_>>(), "{frame}");
    assert_eq!(ended(&actions), 1);
}

#[test]
fn a_packet_is_cut_as_scapy_cuts_it() {
    is_cut("big", 14, 500, &["big_500_0", "big_500_1", "big_500_2"]);
    is_cut("wide", 14, 1280, &["wide_1280_0", "wide_1280_1"]);
    is_cut("big", 14, 1500, &["big"]);
}

#[test]
fn inside_a_tunnel_the_inner_packet_is_cut_and_each_piece_has_its_outer_headers() {
    is_cut("vxlan", 14 + 20 + 8 + 8 + 14, 1020, &["vxlan_1020_0", "vxlan_1020_1"]);
    is_cut("ipip", 14 + 20, 1020, &["ipip_1020_0", "ipip_1020_1"]);
}

#[track_caller]
fn is_joined(pieces: &[&str], ip_start: usize, whole: &str) {
    for order in [pieces.to_vec(), pieces.iter().rev().copied().collect()] {
        let mut slow = slow_path();
        let mut all = Vec::new();
        for name in &order {
            let mut piece = punt(TUNNEL, vector(name), Request::Reassemble);
            piece.ip_start = ip_start;
            all.extend(slow.handle(0, piece, &no_flows));
        }
        let frame = vector(whole);
        let past = Past { reassembled: true, read: false };
        let again = Injection::Again { ingress: TUNNEL, frame, past };
        assert_eq!(injected(&all), [again], "{order:?}");
        assert_eq!(ended(&all), order.len());
        assert_eq!(slow.waiting(), 0);
    }
}

#[test]
fn pieces_become_the_datagram_they_were_cut_from() {
    is_joined(&["big_500_0", "big_500_1", "big_500_2"], 14, "big");
    is_joined(&["wide_1280_0", "wide_1280_1"], 14, "wide");
    is_joined(&["optional_0", "optional_1"], 14, "optional");
    is_joined(&["vxlan_1020_0", "vxlan_1020_1"], 64, "vxlan");
    is_joined(&["ipip_1020_0", "ipip_1020_1"], 34, "ipip");
}

#[test]
fn the_sender_of_an_ipv6_datagram_that_stays_incomplete_is_told() {
    let mut slow = slow_path();
    let piece = |name| punt(POD, vector(name), Request::Reassemble);
    assert_eq!(slow.handle(0, piece("wide_1280_0"), &no_flows), []);
    assert_eq!(slow.handle(9, piece("optional_1"), &no_flows), []);
    let lost = Action::Dropped(PuntReason::Reassemble, DropReason::Fragment);
    let told = Injection::Own { packet: vector("wide_expired") };
    let told = Action::Inject(PuntReason::Reassemble, told);
    assert_eq!(slow.tick(30_000), [told, lost.clone()]);
    assert_eq!(slow.tick(30_009), [lost], "without its first piece nobody is told");
}

#[test]
fn the_sender_of_an_ipv6_piece_that_fits_nowhere_is_told_which_field_is_wrong() {
    for (piece, answer) in [("uneven", "uneven_told"), ("beyond", "beyond_told")] {
        originates(POD, piece, Request::Reassemble, answer);
        // An ICMP error in pieces cannot be told from other messages.
        let mut frame = vector(piece);
        frame[14 + 40] = 58;
        let actions = ask(POD, frame, Request::Reassemble);
        assert_eq!(actions, [Action::Dropped(PuntReason::Reassemble, DropReason::Fragment)]);
    }
}

#[test]
fn a_datagram_too_large_for_its_tunnel_is_lost_and_counted() {
    // The outer packet would pass 65,535 bytes: the headers before a whole datagram do not fit.
    let header = &vector("ipip")[..34];
    let mut slow = slow_path();
    let mut all = Vec::new();
    let inner = vector("big")[14..34].to_vec();
    for (offset, more) in [(0u16, true), (4096, false)] {
        let len = if more { 4096 * 8 } else { 65_535 - 20 - 4096 * 8 };
        let mut piece = [header, &inner[..], &vec![0; len]].concat();
        let flags = (u16::from(more) << 13 | offset).to_be_bytes();
        piece[34 + 6..34 + 8].copy_from_slice(&flags);
        let total = u16::try_from(len + 20).unwrap().to_be_bytes();
        piece[34 + 2..34 + 4].copy_from_slice(&total);
        let mut piece = punt(TUNNEL, piece, Request::Reassemble);
        piece.ip_start = 34;
        all.extend(slow.handle(0, piece, &no_flows));
    }
    let lost = Action::Dropped(PuntReason::Reassemble, DropReason::Fragment);
    assert_eq!(all, [lost.clone(), lost]);
}

#[test]
fn what_may_not_be_cut_is_dropped() {
    let mut frame = vector("big");
    frame[14 + 6] |= 0x40;
    let request = || Request::Fragment { egress: 3, mtu: 500 };
    assert_eq!(drop_reason(&ask(POD, frame, request())), Some(DropReason::TooBig));
    assert_eq!(
        drop_reason(&ask(POD, vector("wide_1280_0"), request())),
        Some(DropReason::TooBig),
        "an IPv6 fragment"
    );
    let narrow = Request::Fragment { egress: 3, mtu: 27 };
    assert_eq!(drop_reason(&ask(POD, vector("big"), narrow)), Some(DropReason::TooBig));
}
