//! What those can know who keep accounts of connections: rules, packets, ends.

use margay_engine::{denied, rules, view_of};
use margay_model::{Action, DropReason, EndpointKey, Rule, Update};
use margay_tables::flow::{Entry, FlowCopy, FlowWorker};

use crate::support::*;

fn entries(node: &Node) -> Vec<Entry> {
    let journal = node.table.journal().expect("the fixture keeps one");
    std::iter::from_fn(|| journal.take()).collect()
}

/// The only flow of the table.
fn flow(node: &Node) -> FlowCopy {
    let worker = FlowWorker::new(node.table.clone()).unwrap();
    let mut found = Vec::new();
    worker.list(Default::default(), 64, |flow| found.push(FlowCopy::new(flow)));
    let [flow] = found[..] else { panic!("one flow: {found:?}") };
    flow
}

/// The policies and places of the rules that stand for a flow.
fn names(node: &Node, flow: &FlowCopy) -> [Option<(String, u32)>; 2] {
    let name = |id| node.snapshot.classifier.rule(id).map(|(key, place)| (key.to_string(), place));
    rules(&node.snapshot, flow).map(name)
}

fn rule(policy: &str, place: u32) -> Option<(String, u32)> {
    Some((policy.to_owned(), place))
}

const A_POLICY: &str = "NetworkPolicy/default/a";
const B_POLICY: &str = "NetworkPolicy/default/b";

#[test]
fn a_hit_writes_nothing_but_its_own_flow() {
    let mut node = Node::default();
    let packet = udp("10.65.0.2:1", "10.65.0.3:2");
    for _ in 0..10 {
        node.send(A, &packet).by(B);
    }
    assert_eq!(entries(&node), []);
    assert_eq!(flow(&node).packets, [10, 0]);
}

#[test]
fn a_connection_that_ends_leaves_its_counts_and_rules() {
    let mut node = Node::default();
    node.change(|state| {
        isolate(state, "a", None, Some(vec![deny_port(9), allow()]));
        isolate(state, "b", Some(vec![allow()]), None);
    });
    let packet = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &packet).by(B);
    node.send(B, &udp("10.65.0.3:2", "10.65.0.2:1")).by(A);
    node.engine.forget("10.65.0.3".parse::<std::net::IpAddr>().unwrap().into());
    let [Entry::Ended(copy)] = entries(&node)[..] else { panic!("one end") };
    assert_eq!((copy.packets, denied(&copy)), ([1, 1], None));
    assert_eq!(names(&node, &copy), [rule(A_POLICY, 1), rule(B_POLICY, 0)]);
}

#[test]
fn a_denial_knows_its_rule_its_packets_and_where_it_was_going() {
    let mut node = Node::default();
    node.change(|state| {
        isolate(state, "b", Some(vec![allow_ports(6, 80, 80), deny_port(8080)]), None);
        serve(state, service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
    });
    let packet = tcp("10.65.0.2:1", "10.96.0.10:80", SYN);
    for _ in 0..3 {
        node.send(A, &packet).dropped(DropReason::Policy);
    }
    let copy = flow(&node);
    assert_eq!((copy.packets[0], denied(&copy)), (3, Some(DropReason::Policy)));
    // The source's profile allowed it first.
    assert_eq!(names(&node, &copy), [rule(PROFILE, 0), rule(B_POLICY, 1)]);
    let view = view_of(&node.snapshot, &copy, node.now);
    assert_eq!((view.reply.src.to_string(), view.reply.src_port), ("10.65.0.3".into(), 8080));
    assert_eq!(view.denied, Some(DropReason::Policy));
}

#[test]
fn a_tiers_default_action_has_a_name_and_nobodys_word_has_none() {
    let mut node = Node::default();
    node.change(|state| isolate(state, "a", None, Some(vec![])));
    let packet = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &packet).dropped(DropReason::Policy);
    assert_eq!(names(&node, &flow(&node)), [rule("Tier//default", 0), None]);

    node.change(|state| {
        let key: EndpointKey = "default/a/eth0".into();
        let mut endpoint = (*state.endpoints[&key]).clone();
        (endpoint.tiers, endpoint.profiles) = ([].into(), [].into());
        state.apply(Update::Endpoint(endpoint.into()));
    });
    node.send(A, &packet).dropped(DropReason::Policy);
    let copy = flow(&node);
    let [egress, ingress] = rules(&node.snapshot, &copy);
    assert_eq!((egress != 0, ingress, names(&node, &copy)), (true, 0, [None, None]));
}

#[test]
fn packets_before_an_edit_stay_with_the_rule_that_stood_for_them() {
    let mut node = Node::default();
    node.change(|state| isolate(state, "b", Some(vec![allow()]), None));
    let packet = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &packet).by(B);
    // The same rule by another generation is no change.
    node.change(|state| isolate(state, "a", None, Some(vec![allow()])));
    node.change(|state| state.apply(Update::RouteGone("192.0.2.0/24".parse().unwrap())));
    assert_eq!(entries(&node), []);
    node.send(A, &packet).by(B);
    let [Entry::Changing(copy)] = entries(&node)[..] else { panic!("the source's rule changed") };
    assert_eq!(copy.packets[0], 1);

    node.change(|state| isolate(state, "b", Some(vec![deny_port(3), deny_port(2)]), None));
    node.send(A, &packet).dropped(DropReason::Policy);
    let [Entry::Changing(before)] = entries(&node)[..] else { panic!("the verdict changed") };
    assert_eq!((before.packets[0], denied(&before)), (2, None));
    let now = flow(&node);
    assert_eq!((now.packets[0], denied(&now)), (3, Some(DropReason::Policy)));
    assert_eq!(names(&node, &now), [rule(A_POLICY, 0), rule(B_POLICY, 1)]);
    node.send(A, &packet).dropped(DropReason::Policy);
    assert_eq!(entries(&node), []);
}

#[test]
fn a_log_rule_notes_the_first_packet_of_a_connection_and_decides_nothing() {
    let mut node = Node::default();
    node.change(|state| {
        isolate(state, "b", Some(vec![Rule::any(Action::Log), allow()]), None);
    });
    for _ in 0..5 {
        node.send(A, &tcp("10.65.0.2:1", "10.65.0.3:80", SYN)).by(B);
    }
    let [Entry::Logged(packet)] = entries(&node)[..] else { panic!("one packet") };
    assert!(packet.ingress);
    assert_eq!((packet.tuple.dst_port, packet.tuple.protocol), (80, 6));
    let name =
        node.snapshot.classifier.rule(packet.rule).map(|(key, place)| (key.to_string(), place));
    assert_eq!(name, rule(B_POLICY, 0));
}

#[test]
fn a_full_journal_loses_and_counts_and_nobody_waits() {
    let mut node = Node::default();
    node.change(|state| {
        isolate(state, "b", Some(vec![Rule::any(Action::Log), allow()]), None);
    });
    for port in 1..=300 {
        node.send(A, &udp(&format!("10.65.0.2:{port}"), "10.65.0.3:53")).by(B);
    }
    let journal = node.table.journal().unwrap();
    let noted = entries(&node).len() as u64;
    // Packets get no more than half of the room.
    assert_eq!((noted, journal.unlogged(), journal.lost()), (129, 171, 0));
}

fn deny_port(port: u16) -> Rule {
    let any = allow_ports(6, port, port);
    Rule { action: Action::Deny, protocol: None, ..any }
}
