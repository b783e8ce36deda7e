//! Policy on both ends, stateful, and edited while connections are open.

use std::sync::Arc;

use margay_engine::Fate;
use margay_model::{
    Action, AddressSet, DefaultAction, DropReason, EntityMatch, Member, Rule, Update,
};

use crate::support::*;

fn isolated(pod: &str, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Node {
    let mut node = Node::default();
    node.change(|state| isolate(state, pod, ingress, egress));
    node
}

fn allowed(node: &mut Node, packet: &Ip) -> bool {
    let from = if packet.src == ip("10.65.0.2") { A } else { WIRE };
    match node.send(from, packet).fate {
        Fate::Forward(_) => true,
        Fate::Drop(DropReason::Policy) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ingress_is_judged_by_ports_and_protocol() {
    let mut node = isolated("b", Some(vec![allow_ports(6, 80, 89), allow_ports(17, 53, 53)]), None);
    for (packet, expected) in [
        (tcp("10.65.0.2:1", "10.65.0.3:80", SYN), true),
        (tcp("10.65.0.2:1", "10.65.0.3:89", SYN), true),
        (tcp("10.65.0.2:1", "10.65.0.3:90", SYN), false),
        (tcp("10.65.0.2:80", "10.65.0.3:79", SYN), false),
        (udp("10.65.0.2:1", "10.65.0.3:53"), true),
        (udp("10.65.0.2:1", "10.65.0.3:80"), false),
        (sctp("10.65.0.2:1", "10.65.0.3:80"), false),
        (ping("10.65.0.2", "10.65.0.3", 80), false),
    ] {
        assert_eq!(allowed(&mut node, &packet), expected, "{packet:?}");
    }
}

#[test]
fn egress_is_judged_on_the_translated_destination() {
    let mut node = isolated("a", None, Some(vec![allow_ports(6, 8080, 8080)]));
    node.change(|state| {
        serve(state, service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
        serve(state, service("t", 6, "10.96.0.11:8080", &["10.65.0.3:80"]));
    });
    assert!(allowed(&mut node, &tcp("10.65.0.2:1", "10.96.0.10:80", SYN)));
    assert!(!allowed(&mut node, &tcp("10.65.0.2:1", "10.96.0.11:8080", SYN)));
}

#[test]
fn ingress_is_judged_on_the_source_before_it_is_masqueraded() {
    let mut node = isolated("b", Some(vec![allow_from("192.0.2.100/32")]), None);
    node.change(|state| {
        let web = service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"]);
        serve(state, margay_model::Service { node_port: Some(30_080), ..web });
    });
    assert!(allowed(&mut node, &tcp("192.0.2.100:1", "192.0.2.1:30080", SYN)));
    assert!(!allowed(&mut node, &tcp("192.0.2.101:1", "192.0.2.1:30080", SYN)));
}

#[test]
fn both_ends_have_to_agree() {
    let yes = || Some(vec![allow()]);
    for (egress, ingress) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut node = Node::default();
        node.change(|state| {
            isolate(state, "a", None, if egress { yes() } else { Some(vec![]) });
            isolate(state, "b", if ingress { yes() } else { Some(vec![]) }, None);
        });
        assert_eq!(allowed(&mut node, &udp("10.65.0.2:1", "10.65.0.3:2")), egress && ingress);
    }
}

#[test]
fn icmp_is_judged_by_type() {
    let mut node = isolated("b", Some(vec![allow_icmp(8)]), None);
    let request = ping("10.65.0.2", "10.65.0.3", 3);
    assert!(allowed(&mut node, &request));
    node.send(B, &request.answer()).by(A);
    let timestamp = Body::Icmp { kind: 13, code: 0, rest: [0, 9, 0, 0], payload: vec![0; 12] };
    assert!(!allowed(&mut node, &packet(ip("10.65.0.2"), ip("10.65.0.3"), timestamp)));
}

#[test]
fn a_ping_with_identifier_zero_is_answered_like_any_other() {
    let mut node = isolated("b", Some(vec![allow_icmp(8)]), None);
    let request = ping("10.65.0.2", "10.65.0.3", 0);
    assert!(allowed(&mut node, &request));
    node.send(B, &request.answer()).by(A);
}

#[test]
fn the_answer_to_a_timestamp_is_judged_as_its_question() {
    let mut node = isolated("b", Some(vec![allow_icmp(13)]), None);
    let message = |kind| Body::Icmp { kind, code: 0, rest: [0, 9, 0, 0], payload: vec![0; 12] };
    node.send(A, &packet(ip("10.65.0.2"), ip("10.65.0.3"), message(13))).by(B);
    node.send(B, &packet(ip("10.65.0.3"), ip("10.65.0.2"), message(14))).by(A);
}

#[test]
fn another_query_does_not_ride_on_a_ping_with_its_identifier() {
    let mut node = isolated("b", Some(vec![allow_icmp(8)]), None);
    let message = |kind| Body::Icmp { kind, code: 0, rest: [0, 9, 0, 0], payload: vec![0; 12] };
    let timestamp = packet(ip("10.65.0.2"), ip("10.65.0.3"), message(13));
    // A denial of the one is none of the other.
    node.send(A, &timestamp).dropped(DropReason::Policy);
    node.send(A, &ping("10.65.0.2", "10.65.0.3", 9)).by(B);
    node.send(A, &timestamp).dropped(DropReason::InvalidState);
    // A message without answers, whose type and code are the identifier in disguise.
    let disguised = Body::Icmp { kind: 0x28, code: 1, rest: [0; 4], payload: vec![] };
    node.send(A, &ping("10.65.0.2", "10.65.0.3", 0x2801)).by(B);
    node.send(A, &packet(ip("10.65.0.2"), ip("10.65.0.3"), disguised))
        .dropped(DropReason::InvalidState);
}

#[test]
fn a_set_decides_and_its_members_come_and_go() {
    let mut node = isolated("b", Some(vec![allow_set("s:web")]), None);
    let packet = |port| udp(&at("10.65.0.2", port), "10.65.0.3:2");
    let member = Member::Net("10.65.0.2/32".parse().unwrap());
    node.change(|state| state.apply(Update::Set("s:web".into(), Arc::new(AddressSet::default()))));
    assert!(!allowed(&mut node, &packet(1)));
    node.change(|state| state.apply(Update::Set("s:web".into(), Arc::new([member].into()))));
    assert!(allowed(&mut node, &packet(1)), "the cached denial has ended with its generation");
    node.change(|state| state.apply(Update::Set("s:web".into(), Arc::new(AddressSet::default()))));
    assert!(!allowed(&mut node, &packet(1)), "and so has the open flow");
}

#[test]
fn tiers_pass_and_profiles_decide_in_order() {
    use DefaultAction::{Deny, Pass};
    let port = |action: Action, port: u16| Rule { action, ..allow_ports(17, port, port) };
    let mut node = Node::default();
    node.change(|state| {
        let first =
            policy(state, "first", vec![port(Action::Deny, 1), port(Action::Pass, 2)], vec![]);
        let logs =
            policy(state, "logs", vec![port(Action::Log, 5), port(Action::Allow, 3)], vec![]);
        let second =
            policy(state, "second", vec![port(Action::Allow, 1), port(Action::Allow, 4)], vec![]);
        let tiers = vec![
            tier("security", Pass, &[&first, &logs], &[]),
            tier("default", Deny, &[&second], &[]),
        ];
        police(state, "b", tiers);
    });
    let mut to = |port: u16| allowed(&mut node, &udp("10.65.0.2:9", &at("10.65.0.3", port)));
    assert!(!to(1), "denied by the first tier, whatever the second says");
    assert!(!to(2), "passed on, not allowed by the second: its default");
    assert!(to(3));
    assert!(to(4), "not decided by the first tier, whose default is Pass");
    assert!(!to(5), "logged, not decided");
    // Where all tiers pass, the profile decides.
    node.change(|state| {
        let passes = policy(state, "passes", vec![pass()], vec![]);
        police(state, "b", vec![tier("security", Deny, &[&passes], &[])]);
    });
    assert!(allowed(&mut node, &udp("10.65.0.2:9", "10.65.0.3:1")));
    node.change(|state| {
        let key = "default/b/eth0";
        Arc::make_mut(state.endpoints.get_mut(key).unwrap()).profiles = Arc::new([]);
    });
    assert!(!allowed(&mut node, &udp("10.65.0.2:9", "10.65.0.3:1")), "no profile, no traffic");
}

#[test]
fn a_policy_that_is_missing_fails_closed() {
    let mut node = isolated("b", Some(vec![allow()]), None);
    node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).by(B);
    node.change(|state| drop(state.policies.remove("NetworkPolicy/default/b")));
    node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).dropped(DropReason::PolicyMissing);
    node.send(A, &udp("10.65.0.2:2", "10.65.0.3:2")).dropped(DropReason::PolicyMissing);
}

#[test]
fn answers_pass_where_nothing_may_be_begun() {
    let mut node = isolated("b", Some(vec![allow()]), Some(vec![]));
    let syn = tcp("10.65.0.2:1", "10.65.0.3:80", SYN);
    node.send(A, &syn).by(B);
    node.send(B, &syn.clone().answer()).by(A);
    node.send(A, &tcp("10.65.0.2:1", "10.65.0.3:80", ACK)).by(B);
    node.send(B, &tcp("10.65.0.3:1", "10.65.0.2:80", SYN)).dropped(DropReason::Policy);
    let mut node = isolated("a", Some(vec![]), None);
    let request = ping("10.65.0.2", "10.65.0.3", 4);
    node.send(A, &request).by(B);
    node.send(B, &request.answer()).by(A);
    node.send(B, &ping("10.65.0.3", "10.65.0.2", 4)).dropped(DropReason::Policy);
}

#[test]
fn an_edit_cuts_an_open_connection_in_both_directions() {
    let syn = tcp("10.65.0.2:1", "10.65.0.3:80", SYN);
    for answer_first in [false, true] {
        let mut node = Node::default();
        node.send(A, &syn).by(B);
        node.send(B, &syn.clone().answer()).by(A);
        node.change(|state| isolate(state, "b", Some(vec![]), None));
        let forth = |node: &mut Node| {
            node.send(A, &tcp("10.65.0.2:1", "10.65.0.3:80", ACK)).dropped(DropReason::Policy);
        };
        let back = |node: &mut Node| {
            node.send(B, &tcp("10.65.0.3:80", "10.65.0.2:1", ACK)).dropped(DropReason::Policy);
        };
        if answer_first {
            back(&mut node);
            forth(&mut node);
        } else {
            forth(&mut node);
            back(&mut node);
        }
        // Allowed again, it goes on.
        node.change(|state| isolate(state, "b", Some(vec![allow()]), None));
        node.send(B, &tcp("10.65.0.3:80", "10.65.0.2:1", ACK)).by(A);
        node.send(A, &tcp("10.65.0.2:1", "10.65.0.3:80", ACK)).by(B);
    }
}

#[test]
fn an_edit_cuts_translated_connections_too() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"])));
    let syn = tcp("10.65.0.2:1", "10.96.0.10:80", SYN);
    let answer = syn.clone().to("10.65.0.3:8080").answer();
    node.send(A, &syn).by(B);
    node.send(B, &answer).by(A);
    node.change(|state| isolate(state, "b", Some(vec![allow_ports(6, 8080, 8080)]), None));
    node.send(B, &answer).by(A);
    node.change(|state| isolate(state, "b", Some(vec![allow_ports(6, 80, 80)]), None));
    node.send(B, &answer).dropped(DropReason::Policy);
    node.send(A, &syn).dropped(DropReason::Policy);
}

#[test]
fn where_the_setting_says_so_an_edit_leaves_open_connections() {
    let mut node = Node::default();
    node.change(|state| {
        Arc::make_mut(&mut state.node).settings.cut_flows_on_policy_change = false;
    });
    let packet = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &packet).by(B);
    node.change(|state| isolate(state, "b", Some(vec![]), None));
    node.send(A, &packet).by(B);
    node.send(B, &packet.answer()).by(A);
    node.send(A, &udp("10.65.0.2:2", "10.65.0.3:2")).dropped(DropReason::Policy);
}

#[test]
fn a_denied_flood_walks_the_order_once() {
    let mut node = isolated("b", Some(vec![]), None);
    for _ in 0..20 {
        node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).dropped(DropReason::Policy);
    }
    assert_eq!(node.counters.misses.get(), 1);
    assert_eq!((node.connections(), node.table.counts().denials), (0, 1));
}

#[test]
fn a_cached_denial_does_not_stand_in_the_way_of_the_other_direction() {
    let raw = |src: &str, dst: &str| packet(ip(src), ip(dst), Body::Raw(47, vec![0; 8]));
    for (unasked, asked) in [
        (udp("10.65.0.3:5060", "10.65.0.2:5060"), udp("10.65.0.2:5060", "10.65.0.3:5060")),
        (raw("10.65.0.3", "10.65.0.2"), raw("10.65.0.2", "10.65.0.3")),
    ] {
        let mut node = isolated("a", Some(vec![]), None);
        node.send(B, &unasked).dropped(DropReason::Policy);
        assert_eq!(node.send(A, &asked).by(B), to_pod(B, &asked.ttl(63)));
        assert_eq!(
            node.send(B, &unasked).by(A),
            to_pod(A, &unasked.ttl(63)),
            "it is an answer now"
        );
        assert_eq!((node.connections(), node.table.counts().denials), (1, 0));
    }
}

#[test]
fn the_rules_that_decided_are_kept_for_those_who_ask() {
    let mut node = isolated("b", Some(vec![allow_ports(6, 1, 1), allow_ports(17, 2, 2)]), None);
    node.send(A, &udp("10.65.0.2:1", "10.65.0.3:2")).by(B);
    let worker = margay_tables::flow::FlowWorker::new(node.table.clone()).unwrap();
    let mut views = Vec::new();
    worker.list(Default::default(), 64, |flow| {
        views.push(margay_engine::view(&node.snapshot, *flow, node.now));
    });
    let view = &views[0];
    assert_eq!(view.ingress, Some(("NetworkPolicy/default/b".into(), 1)));
    assert_eq!(view.egress, Some((PROFILE.into(), 0)));
    assert_eq!((view.state, view.allowed, view.orig_count.packets), ("UNREPLIED", true, 1));
    assert_eq!(view.orig_count.bytes, 31);
}

#[test]
fn a_condition_on_the_source_port_is_one_on_the_senders() {
    let ports = vec![margay_model::PortRange { first: 7, last: 9 }];
    let src = EntityMatch { ports, ..EntityMatch::default() };
    let mut node = isolated("b", Some(vec![Rule { protocol: Some(17), src, ..allow() }]), None);
    assert!(allowed(&mut node, &udp("10.65.0.2:8", "10.65.0.3:1")));
    assert!(!allowed(&mut node, &udp("10.65.0.2:1", "10.65.0.3:8")));
}

/// Lets a pod send from a network beside its own addresses.
fn lend(node: &mut Node, pod: &str, net: &str) {
    let key = format!("default/{pod}/eth0");
    node.change(|state| {
        let endpoint = Arc::make_mut(state.endpoints.get_mut(&*key).unwrap());
        endpoint.allowed_sources = vec![net.parse().unwrap()];
    });
}

#[test]
fn an_edit_cuts_what_a_pod_sends_from_a_source_it_was_allowed() {
    for answer_first in [false, true] {
        let mut node = Node::default();
        lend(&mut node, "a", "198.18.7.0/24");
        let packet = udp("198.18.7.1:1", "10.65.0.3:2");
        node.send(A, &packet).by(B);
        node.send(B, &packet.clone().answer()).by(WIRE);
        node.change(|state| isolate(state, "a", None, Some(vec![])));
        if answer_first {
            node.send(B, &packet.clone().answer()).dropped(DropReason::Policy);
        }
        node.send(A, &packet).dropped(DropReason::Policy);
        node.send(B, &packet.answer()).dropped(DropReason::Policy);
    }
}

#[test]
fn of_two_pods_with_one_allowed_source_each_is_judged_by_its_own_policy() {
    let mut node = Node::default();
    lend(&mut node, "a", "198.18.7.0/24");
    lend(&mut node, "n", "198.18.7.0/24");
    let packet = udp("198.18.7.1:1", "10.65.0.3:2");
    node.send(N, &packet).by(B);
    node.send(B, &packet.clone().answer()).by(WIRE);
    node.change(|state| isolate(state, "n", None, Some(vec![])));
    // The answer is taken for one to the other pod; that is not the sender's excuse.
    let _ = node.send(B, &packet.clone().answer());
    node.send(N, &packet).dropped(DropReason::Policy);
}

#[test]
fn before_the_state_is_complete_flows_that_were_taken_over_wait_and_stay() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 17, "10.96.0.10:80", &["10.65.0.3:8080"])));
    let translated = udp("10.65.0.2:1", "10.96.0.10:80");
    node.send(A, &translated).by(B);
    node.snapshot.ready = false;
    node.snapshot.generation += 1;
    node.snapshot.services = Default::default();
    node.send(A, &translated).dropped(DropReason::NotReady);
    let answer = translated.clone().to("10.65.0.3:8080").answer();
    node.send(B, &answer).dropped(DropReason::NotReady);
    assert_eq!(node.connections(), 1);
    node.change(|_| ());
    node.send(B, &answer).by(A);
    assert_eq!(node.counters.misses.get(), 1, "it is the flow that it was");
}
