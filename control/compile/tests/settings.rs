//! What FelixConfiguration says, as the dataplane is told it: settings that come, change and go, in
//! any order with what they are about.

mod common;

use common::{Objects, calico, changes, compiled, objects, pod, replay, workload};
use margay_compile::{Compiler, NodeConfig, Scope};
use margay_model::State;
use margay_model::node::ServiceLoops;
use serde_json::{Value, json};

fn scope() -> Scope {
    Scope::Node(NodeConfig { name: "n1".into(), mtu: 1450, ..Default::default() })
}

fn felix(name: &str, spec: Value) -> Value {
    calico("FelixConfiguration", "", name, spec)
}

/// A pod that asks for a network's addresses as sources.
fn asking() -> Vec<Value> {
    let mut endpoint = workload("default", "router", "n1", "10.0.0.1");
    endpoint["spec"]["allowSpoofedSourcePrefixes"] = json!(["10.9.0.0/16"]);
    vec![pod("default", "router", "10.0.0.1", json!({})), endpoint]
}

fn sources(state: &State) -> Vec<String> {
    let endpoints = state.endpoints.values();
    endpoints.flat_map(|each| each.allowed_sources.iter().map(ToString::to_string)).collect()
}

#[test]
fn pods_get_no_foreign_sources_unless_felix_lets_them() {
    let may = |name: &str| felix(name, json!({"workloadSourceSpoofing": "Any"}));
    let state = |felix: Vec<Value>| objects([asking(), felix].concat());
    let states: Vec<(Objects, &[&str])> = vec![
        (state(vec![]), &[]),
        (state(vec![may("default")]), &["10.9.0.0/16"]),
        (state(vec![felix("default", json!({"workloadSourceSpoofing": "Disabled"}))]), &[]),
        (state(vec![may("node.n1")]), &["10.9.0.0/16"]),
        (state(vec![may("node.n2")]), &[]),
        (objects([may("default")]), &[]),
        (state(vec![may("default")]), &["10.9.0.0/16"]),
    ];
    let (mut compiler, mut told) = (Compiler::new(scope()), State::default());
    let mut last = Objects::new();
    for (state, expected) in states {
        for change in changes(&last, &state) {
            compiler.apply(change).unwrap();
        }
        replay(&mut told, compiler.flush());
        assert_eq!(sources(&told), *expected);
        assert_eq!(&told, compiled(&scope(), &state).state());
        last = state;
    }
}

#[test]
fn a_selector_of_nodes_sees_the_labels_of_either_node_object() {
    let settings =
        felix("dmz", json!({"nodeSelector": "zone == 'dmz'", "serviceLoopPrevention": "Reject"}));
    let labels = json!({"metadata": {"name": "n1", "labels": {"zone": "dmz"}}, "spec": {}});
    for (version, zone) in [("projectcalico.org/v3", "dmz"), ("v1", "dmz"), ("v1", "lan")] {
        let mut node = labels.clone();
        (node["apiVersion"], node["kind"]) = (version.into(), "Node".into());
        node["metadata"]["labels"]["zone"] = zone.into();
        let state = objects([settings.clone(), node]);
        let loops = compiled(&scope(), &state).state().node.settings.service_loops;
        assert_eq!(loops == ServiceLoops::Reject, zone == "dmz", "{version} {zone}");
    }
}

#[test]
fn unallocated_service_addresses_are_treated_as_felix_says() {
    let of = |spec: Value| {
        let compiler = compiled(&scope(), &objects([felix("default", spec)]));
        compiler.state().node.settings.service_loops
    };
    assert_eq!(of(json!({})), ServiceLoops::Drop);
    assert_eq!(of(json!({"serviceLoopPrevention": "Reject"})), ServiceLoops::Reject);
    assert_eq!(of(json!({"serviceLoopPrevention": "Disabled"})), ServiceLoops::Route);
}
