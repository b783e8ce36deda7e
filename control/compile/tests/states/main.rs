//! Named states, each a collection of objects and what is expected of it. They are walked in many
//! orders: what comes out depends on the state, not on the path to it.

#[path = "../common/mod.rs"]
mod common;

mod calico;
mod cluster;
mod kubernetes;
mod names;
mod services;

use common::{
    Objects, changes, compiled, kubernetes_policy, objects, pod, replay, words, workload,
};
use margay_compile::{Compiler, Scope};
use margay_model::State;
use serde_json::{Value, json};

struct Named {
    name: &'static str,
    objects: Objects,
    expected: &'static [&'static str],
}

fn named(name: &'static str, values: Vec<Value>, expected: &'static [&'static str]) -> Named {
    Named { name, objects: objects(values), expected }
}

fn web() -> Value {
    pod("default", "web", "10.0.0.1", json!({"app": "web"}))
}

fn db() -> Value {
    pod("default", "db", "10.0.0.2", json!({"app": "db", "tier": "back"}))
}

fn other() -> Value {
    pod("other", "web", "10.0.0.3", json!({"app": "web"}))
}

const WEB: &str =
    "endpoint default/web/eth0 10.0.0.1 | Profile//kns.default Profile//ksa.default.default";
const DB: &str =
    "endpoint default/db/eth0 10.0.0.2 | Profile//kns.default Profile//ksa.default.default";
const OTHER: &str =
    "endpoint other/web/eth0 10.0.0.3 | Profile//kns.other Profile//ksa.other.default";

fn states() -> Vec<Named> {
    let mut states = vec![
        named("nothing", vec![], &[]),
        named("pods without policy", vec![web(), db(), other()], &[DB, WEB, OTHER]),
    ];
    states.extend(kubernetes::states());
    states.extend(calico::states());
    states.extend(names::states());
    states.extend(cluster::states());
    states.extend(services::states());
    states
}

/// Walks the states in an order and compares each with what is expected, with what a compiler
/// that never saw another state gives, and with the updates applied one by one.
fn walk(states: &[&Named], flush_each: bool) {
    let mut compiler = Compiler::new(Scope::Cluster);
    let mut replayed = State::default();
    let mut last = Objects::new();
    for state in states {
        for change in changes(&last, &state.objects) {
            compiler.apply(change).unwrap();
            if flush_each {
                replay(&mut replayed, compiler.flush());
            }
        }
        replay(&mut replayed, compiler.flush());
        assert_eq!(words(compiler.state()), state.expected, "{}", state.name);
        let fresh = compiled(&Scope::Cluster, &state.objects);
        assert_eq!(compiler.state(), fresh.state(), "{}", state.name);
        assert_eq!(&replayed, fresh.state(), "{}", state.name);
        assert!(compiler.flush().is_empty(), "{}: nothing is left to say", state.name);
        last = state.objects.clone();
    }
}

#[test]
fn every_state_is_as_expected_from_nothing() {
    for state in &states() {
        walk(&[state], false);
    }
}

#[test]
fn states_are_the_same_forward_and_backward() {
    let states = states();
    let forward: Vec<_> = states.iter().collect();
    let backward: Vec<_> = states.iter().rev().collect();
    for flush_each in [false, true] {
        walk(&forward, flush_each);
        walk(&backward, flush_each);
    }
}

#[test]
fn states_are_the_same_in_any_order() {
    let states = states();
    // A fixed sequence of orders that visits every state after every other one.
    for stride in 1..states.len() {
        let order: Vec<_> =
            (0..states.len() * 2).map(|i| &states[(i * stride) % states.len()]).collect();
        walk(&order, stride % 2 == 0);
    }
}

#[test]
fn a_node_sees_its_own_endpoints_only() {
    let scope = Scope::Node(margay_compile::NodeConfig {
        name: "n1".into(),
        mtu: 1450,
        ..Default::default()
    });
    let objects = objects([
        web(),
        db(),
        workload("default", "web", "n1", "10.0.0.1"),
        workload("default", "db", "n2", "10.0.0.2"),
        kubernetes_policy(
            "p",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
            }),
        ),
        kubernetes_policy("q", json!({"podSelector": {"matchLabels": {"app": "db"}}})),
    ]);
    let compiler = compiled(&scope, &objects);
    assert_eq!(
        words(compiler.state()),
        [
            "endpoint default/web/eth0 10.0.0.1 | default in[KubernetesNetworkPolicy/default/p] out[] | Profile//kns.default Profile//ksa.default.default",
            "policy KubernetesNetworkPolicy/default/p",
            "  in allow from {10.0.0.2/32}",
        ]
    );
    let endpoint = &compiler.state().endpoints["default/web/eth0"];
    assert_eq!((&*endpoint.interface, endpoint.mtu), ("caliweb", 1450));
}
