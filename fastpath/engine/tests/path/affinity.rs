//! Session affinity: a client stays with its backend, as long as the service says and it serves.

use std::collections::BTreeSet;

use margay_model::{Selection, Service, TrafficPolicy};

use crate::support::*;

const BACKENDS: [&str; 4] = ["10.65.0.3:80", "10.65.0.4:80", "10.65.1.7:80", "10.65.2.7:80"];
const TIMEOUT: u32 = 100;
const MS: u32 = 1_000;

fn sticky(key: &str, protocol: u8, frontend: &str, backends: &[&str]) -> Service {
    Service { affinity: Some(TIMEOUT), ..service(key, protocol, frontend, backends) }
}

fn with(services: impl IntoIterator<Item = Service>) -> Node {
    let mut node = Node::with_capacity(16_384);
    node.change(|state| services.into_iter().for_each(|s| serve(state, s)));
    node
}

/// A new connection of client `n` outside to the service; the backend that it is sent to.
fn connect(node: &mut Node, n: u16, frontend: &str, port: u16) -> String {
    let src = format!("192.0.2.{}", n % 100 + 100);
    let source_port = 1_000 + n / 100 * 500 + port;
    let out = node.send(WIRE, &udp(&at(&src, source_port), frontend));
    let seen = &out.frame[14..];
    // Behind a tunnel's header, where there is one.
    let inner = if seen[9] == 4 { &seen[20..] } else { seen };
    let addr: [u8; 4] = inner[16..20].try_into().unwrap();
    std::net::Ipv4Addr::from(addr).to_string()
}

#[test]
fn a_client_stays_while_backends_come_and_others_go() {
    let mut node = with([sticky("s", 17, "10.96.0.10:80", &BACKENDS)]);
    let first: Vec<_> = (0..50).map(|n| connect(&mut node, n, "10.96.0.10:80", 1)).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4, "clients spread");
    let more = [&BACKENDS[..], &["10.65.1.8:80", "10.65.1.9:80"]].concat();
    node.change(|state| serve(state, sticky("s", 17, "10.96.0.10:80", &more)));
    for (n, before) in (0..).zip(&first) {
        assert_eq!(connect(&mut node, n, "10.96.0.10:80", 2), *before);
    }
    node.change(|state| serve(state, sticky("s", 17, "10.96.0.10:80", &more[1..])));
    for (n, before) in (0..).zip(&first).filter(|(_, before)| *before != "10.65.0.3") {
        assert_eq!(connect(&mut node, n, "10.96.0.10:80", 3), *before);
    }
}

#[test]
fn each_new_connection_begins_the_timeout_anew_and_an_idle_client_chooses_again() {
    let mut node = with([sticky("s", 17, "10.96.0.10:80", &BACKENDS)]);
    let first: Vec<_> = (0..50).map(|n| connect(&mut node, n, "10.96.0.10:80", 1)).collect();
    // Three timeouts long nobody is idle for a whole one.
    for turn in 2..=6 {
        node.now += TIMEOUT * MS * 2 / 3;
        for (n, before) in (0..).zip(&first) {
            assert_eq!(connect(&mut node, n, "10.96.0.10:80", turn), *before, "{turn}");
        }
    }
    node.now += TIMEOUT * MS + MS;
    let moved = (0..).zip(&first);
    let moved = moved.filter(|(n, before)| connect(&mut node, *n, "10.96.0.10:80", 7) != **before);
    assert!(moved.count() > 20, "three of four choose another");
}

#[test]
fn a_backend_that_is_gone_loses_its_clients_for_good() {
    let mut node = with([sticky("s", 17, "10.96.0.10:80", &BACKENDS)]);
    node.now = (10 * TIMEOUT - 10) * MS;
    let first: Vec<_> = (0..60).map(|n| connect(&mut node, n, "10.96.0.10:80", 1)).collect();
    node.change(|state| serve(state, sticky("s", 17, "10.96.0.10:80", &BACKENDS[1..])));
    node.change(|state| serve(state, sticky("s", 17, "10.96.0.10:80", &BACKENDS)));
    // In another round of the clock, where who is not known chooses anew.
    node.now += TIMEOUT * MS / 2;
    let (mut back, mut were) = (0, 0);
    for (n, before) in (0..).zip(&first) {
        let now = connect(&mut node, n, "10.96.0.10:80", 2);
        if before == "10.65.0.3" {
            were += 1;
            back += u32::from(now == "10.65.0.3");
        } else {
            assert_eq!(now, *before);
        }
    }
    assert!(were >= 6 && back <= were / 2, "{back} of {were} went back");
}

#[test]
fn every_port_and_protocol_of_a_service_has_clients_of_its_own() {
    let mut node = with([
        sticky("s:80/UDP", 17, "10.96.0.10:80", &BACKENDS),
        sticky("s:81/UDP", 17, "10.96.0.10:81", &BACKENDS),
    ]);
    let of = |node: &mut Node, frontend| -> Vec<_> {
        (0..50).map(|n| connect(node, n, frontend, 1)).collect()
    };
    let (one, other) = (of(&mut node, "10.96.0.10:80"), of(&mut node, "10.96.0.10:81"));
    let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!((3..30).contains(&same), "chance alone makes them equal: {same} of 50");
}

#[test]
fn a_client_that_is_held_to_this_node_on_one_way_keeps_its_backend_on_the_other() {
    let both = Service {
        external: TrafficPolicy::Local,
        external_ips: vec![ip("198.18.0.1")],
        ..sticky("s", 17, "10.96.0.10:80", &BACKENDS)
    };
    let mut node = with([both]);
    for n in 0..50 {
        let everywhere = connect(&mut node, n, "10.96.0.10:80", 1);
        let here = connect(&mut node, n, "198.18.0.1:80", 2);
        assert!(["10.65.0.3", "10.65.0.4"].contains(&&*here), "{here}");
        assert_eq!(connect(&mut node, n, "10.96.0.10:80", 3), everywhere);
        assert_eq!(connect(&mut node, n, "198.18.0.1:80", 4), here);
    }
}

#[test]
fn who_is_denied_is_not_remembered() {
    let mut node = with([sticky("s", 6, "10.96.0.10:80", &["10.65.0.3:80"])]);
    node.change(|state| isolate(state, "b", Some(Vec::new()), None));
    node.send(A, &tcp("10.65.0.2:1", "10.96.0.10:80", SYN))
        .dropped(margay_model::DropReason::Policy);
    let backend = node.snapshot.services.get(&"s".into()).unwrap();
    let names: Vec<_> = backend.names_lost(None).collect();
    assert_eq!(node.table.affinities().forget(&names[..1]), 0);
    node.change(|state| isolate(state, "b", None, None));
    node.now += 10_000;
    node.send(A, &tcp("10.65.0.2:1", "10.96.0.10:80", SYN)).by(B);
    assert_eq!(node.table.affinities().forget(&names[..1]), 1);
}

#[test]
fn nodes_with_other_secrets_choose_alike_where_they_are_told_to() {
    let alike = |selection| Service {
        selection,
        node_port: Some(30_080),
        ..service("s", 17, "10.96.0.10:80", &BACKENDS)
    };
    let moved = |selection| {
        let (mut one, mut other) = (with([alike(selection)]), Node::with_secret(0xdead));
        other.change(|state| serve(state, alike(selection)));
        let connections = (0..100).map(|n| {
            let there = connect(&mut other, n, "192.0.2.1:30080", 1);
            (connect(&mut one, n, "10.96.0.10:80", 1), there)
        });
        connections.filter(|(here, there)| here != there).count()
    };
    assert_eq!(moved(Selection::Maglev), 0);
    assert!(moved(Selection::Even) > 50, "by chance a quarter is the same");
}

#[test]
fn with_maglev_a_backend_that_comes_takes_its_share_and_moves_few_others() {
    let of = |backends: &[&str]| Service {
        selection: Selection::Maglev,
        ..service("s", 17, "10.96.0.10:80", backends)
    };
    let (mut before, mut after) =
        (with([of(&BACKENDS)]), with([of(&[&BACKENDS[..], &["10.65.1.8:80"]].concat())]));
    let moved = (0..500).filter(|n| {
        let old = connect(&mut before, *n, "10.96.0.10:80", 1);
        let new = connect(&mut after, *n, "10.96.0.10:80", 1);
        old != new && new != "10.65.1.8"
    });
    assert!(moved.count() < 50);
}
