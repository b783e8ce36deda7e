//! Policies that name domains: conversations with name servers are read along, and what is learned
//! is in force at once.

use std::sync::Arc;

use margay_engine::{Why, shortcut};
use margay_model::{AddressSet, DropReason, EntityMatch, Rule, State, Update};
use margay_tables::classifier::Standing;

use crate::support::*;

const OUT: &str = "198.51.100.50";

/// Pod a may ask name servers and reach what a.example is; pod b is one of two servers.
fn with_names(state: &mut State) {
    let domains = ["a.example".parse().unwrap()].into();
    let set = AddressSet { domains, ..AddressSet::default() };
    state.apply(Update::Set("d".into(), Arc::new(set)));
    let dst = EntityMatch { sets: vec!["d".into()], learned: true, ..EntityMatch::default() };
    let named = Rule { dst, ..allow() };
    isolate(state, "a", None, Some(vec![allow_ports(17, 53, 53), allow_ports(6, 53, 53), named]));
    let backends = ["10.65.0.3:53", "10.65.1.5:53"];
    for (key, protocol) in [("dns/UDP/IPv4", 17), ("dns-tcp/TCP/IPv4", 6)] {
        let key = format!("kube-system/kube-dns:{key}");
        serve(state, service(&key, protocol, "10.96.0.10:53", &backends));
    }
}

fn node() -> Node {
    let mut node = Node::default();
    node.change(with_names);
    node
}

#[test]
fn a_pods_conversation_with_a_trusted_server_is_read_both_ways_before_it_goes_on() {
    for question in
        [udp("10.65.0.2:4000", "10.96.0.10:53"), tcp("10.65.0.2:4000", "10.96.0.10:53", SYN)]
    {
        let mut node = node();
        assert_eq!(node.send(A, &question).punted(), Why::Dns);
        let (asked, from_client) = node.conversation(A, &question).unwrap();
        assert_eq!((asked.dst, asked.dst_port), (ip("10.96.0.10").into(), 53));
        assert!(from_client);
        // Which of the two backends was chosen shows where it goes.
        let (port, server) = match node.read(A, &question).fate {
            margay_engine::Fate::Forward(B) => (B, "10.65.0.3:53"),
            _ => (WIRE, "10.65.1.5:53"),
        };
        let answer = question.clone().to(server).answer();
        let answer = if question.protocol() == 6 {
            tcp(server, "10.65.0.2:4000", SYN | ACK)
        } else {
            answer
        };
        assert_eq!(node.send(port, &answer).punted(), Why::Dns);
        assert_eq!(node.conversation(port, &answer), Some((asked, false)));
        node.read(port, &answer).by(A);
        node.read(A, &with_ack(&question)).by(port);
        assert!(node.table.lookup(&asked, node.table.hash(&asked)).is_some());
        let legs = shortcut::legs(&node.snapshot, node.table, &asked);
        assert_eq!(legs, None, "past the workers nobody would read it");
    }
}

/// What follows the answer: of TCP that it is acknowledged.
fn with_ack(question: &Ip) -> Ip {
    match question.protocol() {
        6 => tcp("10.65.0.2:4000", "10.96.0.10:53", ACK),
        _ => question.clone(),
    }
}

#[test]
fn nothing_else_is_read_along_and_nothing_at_all_without_names() {
    let mut node = node();
    // Another server, another port, another protocol; a server's own questions.
    node.send(A, &udp("10.65.0.2:4000", "198.51.100.53:53")).by(WIRE);
    node.send(B, &udp("10.65.0.3:4000", "198.51.100.53:53")).by(WIRE);
    node.send(A, &udp("10.65.0.2:4000", "10.65.0.3:54")).dropped(DropReason::Policy);
    assert_eq!(node.send(A, &udp("10.65.0.2:4001", "10.65.0.3:53")).punted(), Why::Dns);
    // What comes to a server from elsewhere is read where it was asked.
    node.send(WIRE, &udp("10.65.1.9:4000", "10.65.0.3:53")).by(B);
    node.change(|state| drop(state.sets.remove("d")));
    node.send(A, &udp("10.65.0.2:4001", "10.65.0.3:53")).by(B);
    node.send(B, &udp("10.65.0.3:53", "10.65.0.2:4001")).by(A);
}

#[test]
fn what_is_learned_is_allowed_by_the_next_packet_though_the_last_was_denied() {
    let mut node = node();
    let syn = tcp("10.65.0.2:4000", "198.51.100.50:80", SYN);
    let generation = node.snapshot.generation;
    for _ in 0..2 {
        node.send(A, &syn).dropped(DropReason::Policy);
    }
    let misses = node.counters.misses.get();
    node.send(A, &syn).dropped(DropReason::Policy);
    assert_eq!(node.counters.misses.get(), misses, "the denial is remembered");
    node.learn("d", OUT, Standing::Current);
    node.send(A, &syn).by(WIRE);
    assert_eq!(node.snapshot.generation, generation, "what others were told stays");
}

#[test]
fn a_lapsed_address_is_denied_to_new_connections_and_kept_to_those_that_are_there() {
    let mut node = node();
    node.learn("d", OUT, Standing::Current);
    let old = |flags| tcp("10.65.0.2:4000", "198.51.100.50:80", flags);
    node.send(A, &old(SYN)).by(WIRE);
    node.learn("d", OUT, Standing::Lapsed);
    node.send(A, &tcp("10.65.0.2:4001", "198.51.100.50:80", SYN)).dropped(DropReason::Policy);
    node.send(A, &old(ACK)).by(WIRE);
    // All decisions are made anew.
    node.change(|state| drop(state.remotes.remove("far")));
    node.send(A, &old(ACK)).by(WIRE);
    node.learn("d", OUT, Standing::Unknown);
    node.change(with_names);
    node.rewire(|_| {});
    node.send(A, &old(ACK)).dropped(DropReason::Policy);
    // Cut, and pardoned as soon as the name has it again.
    node.learn("d", OUT, Standing::Current);
    node.send(A, &old(ACK)).by(WIRE);
}
