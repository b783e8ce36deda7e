//! Host endpoints of a node: which of them it is told, and their policies in four lists. States are
//! walked in many orders: what comes out depends on the state, not on the path to it.

mod common;

use common::{Objects, calico, changes, compiled, objects, pod, replay, workload};
use margay_compile::{Compiler, NodeConfig, Scope};
use margay_model::{Failsafe, HostEndpoint, HostInterface, State, TierPolicies};
use serde_json::{Value, json};

fn scope() -> Scope {
    Scope::Node(NodeConfig { name: "n1".into(), mtu: 1450, ..Default::default() })
}

fn host(name: &str, node: &str, spec: Value) -> Value {
    let mut whole = json!({"node": node});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut value = calico("HostEndpoint", "", name, whole);
    value["metadata"]["labels"] = json!({"role": "host"});
    value
}

fn policy(name: &str, spec: Value) -> Value {
    let mut whole = json!({"selector": "role == 'host'", "types": ["Ingress", "Egress"]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    calico("GlobalNetworkPolicy", "", name, whole)
}

fn web() -> Vec<Value> {
    let pod = pod("default", "web", "10.0.0.1", json!({"role": "pod"}));
    vec![pod, workload("default", "web", "n1", "10.0.0.1")]
}

fn every_kind() -> Vec<Value> {
    let ingress = |field: &str| json!({field: true, "applyOnForward": true, "types": ["Ingress"]});
    vec![
        policy("own", json!({})),
        policy("through", json!({"applyOnForward": true})),
        policy("node-ports", ingress("preDNAT")),
        policy("raw", ingress("doNotTrack")),
        policy(
            "pods",
            json!({"selector": "role == 'pod'", "preDNAT": true,
            "applyOnForward": true, "types": ["Ingress"]}),
        ),
    ]
}

fn states() -> Vec<(&'static str, Objects)> {
    let eth0 = || host("eth0", "n1", json!({"interfaceName": "eth0"}));
    let state = |parts: Vec<Vec<Value>>| objects(parts.concat());
    vec![
        ("nothing", objects([])),
        ("one without policy", state(vec![vec![eth0()], web()])),
        (
            "of another node",
            state(vec![vec![host("eth0", "n2", json!({"interfaceName": "eth0"}))]]),
        ),
        ("every kind of policy", state(vec![vec![eth0()], every_kind(), web()])),
        ("policies without host endpoint", state(vec![every_kind(), web()])),
        (
            "all interfaces, with profiles",
            state(vec![
                vec![host("all", "n1", json!({"interfaceName": "*", "profiles": ["p", "q"]}))],
                every_kind(),
            ]),
        ),
        (
            "marked",
            state(vec![vec![{
                let mut host = host("eth0", "n1", json!({"interfaceName": "eth0"}));
                host["metadata"]["annotations"] = json!({"qos.projectcalico.org/dscp": "EF"});
                host
            }]]),
        ),
        (
            "by address, in a tier that passes",
            state(vec![vec![
                host("by-ip", "n1", json!({"expectedIPs": ["192.0.2.1", "2001:db8::1"]})),
                calico("Tier", "", "first", json!({"order": 1, "defaultAction": "Pass"})),
                policy("first.through", json!({"tier": "first", "applyOnForward": true})),
            ]]),
        ),
    ]
}

#[test]
fn states_are_the_same_in_any_order() {
    let states = states();
    for stride in 1..states.len() {
        for flush_each in [false, true] {
            let mut compiler = Compiler::new(scope());
            let (mut replayed, mut last) = (State::default(), Objects::new());
            for nth in 0..states.len() * 2 {
                let (name, objects) = &states[nth * stride % states.len()];
                for change in changes(&last, objects) {
                    compiler.apply(change).unwrap();
                    if flush_each {
                        replay(&mut replayed, compiler.flush());
                    }
                }
                replay(&mut replayed, compiler.flush());
                let fresh = compiled(&scope(), objects);
                assert_eq!(compiler.state(), fresh.state(), "{name}");
                assert_eq!(&replayed, fresh.state(), "{name}");
                assert!(compiler.flush().is_empty(), "{name}: nothing is left to say");
                last = objects.clone();
            }
        }
    }
}

fn state_of(name: &str) -> State {
    let states = states();
    let (_, objects) = states.iter().find(|(known, _)| *known == name).unwrap();
    compiled(&scope(), objects).state().clone()
}

/// The policies of a list by direction.
fn keys(tiers: &[TierPolicies]) -> (Vec<&str>, Vec<&str>) {
    let name = |key: &std::sync::Arc<str>| -> &'static str {
        Box::leak(key.rsplit('/').next().unwrap().to_owned().into_boxed_str())
    };
    let of = |part: fn(&TierPolicies) -> &Vec<std::sync::Arc<str>>| {
        tiers.iter().flat_map(part).map(name).collect()
    };
    (of(|tier| &tier.ingress), of(|tier| &tier.egress))
}

fn only_host(state: &State) -> &HostEndpoint {
    assert_eq!(state.hosts.len(), 1);
    state.hosts.values().next().unwrap()
}

#[test]
fn a_policy_is_asked_where_it_says() {
    let state = state_of("every kind of policy");
    let host = only_host(&state);
    assert_eq!(host.interface, HostInterface::Named("eth0".into()));
    let none = Vec::new;
    assert_eq!(keys(&host.untracked), (vec!["raw"], none()));
    assert_eq!(keys(&host.pre_dnat), (vec!["node-ports"], none()));
    assert_eq!(keys(&host.forward), (vec!["through"], vec!["through"]));
    assert_eq!(keys(&host.tiers), (vec!["own", "through"], vec!["own", "through"]));
    // Only policies that select somebody for whom they are, are there.
    let there = state.policies.keys().filter(|key| key.starts_with("Global")).count();
    assert_eq!(there, 4);
    let state = state_of("policies without host endpoint");
    assert!(!state.policies.keys().any(|key| key.starts_with("Global")));
}

#[test]
fn the_end_of_an_untracked_or_pre_dnat_tier_decides_nothing() {
    use margay_model::DefaultAction::{Deny, Pass};
    let state = state_of("every kind of policy");
    let host = only_host(&state);
    let ends = |tiers: &[TierPolicies]| tiers[0].default_action;
    assert_eq!([ends(&host.untracked), ends(&host.pre_dnat)], [Pass, Pass]);
    assert_eq!([ends(&host.forward), ends(&host.tiers)], [Deny, Deny]);
    let state = state_of("by address, in a tier that passes");
    assert_eq!(ends(&only_host(&state).forward), Pass);
}

#[test]
fn interfaces_are_named_all_or_found_by_address() {
    assert!(state_of("of another node").hosts.is_empty());
    let state = state_of("all interfaces, with profiles");
    let host = only_host(&state);
    assert_eq!(host.interface, HostInterface::All);
    assert_eq!(*host.profiles, ["Profile//p".into(), "Profile//q".into()]);
    // Named, but not there: it denies.
    assert!(state.policies.contains_key("Profile//p"));
    let state = state_of("by address, in a tier that passes");
    let with = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec();
    assert_eq!(only_host(&state).interface, HostInterface::With(with));
}

#[test]
fn a_code_point_is_an_annotation_of_the_host_endpoint() {
    let dscp = |name| only_host(&state_of(name)).dscp.map(margay_model::Dscp::get);
    assert_eq!([dscp("marked"), dscp("every kind of policy")], [Some(46), None]);
}

#[test]
fn failsafe_ports_are_calicos_unless_felix_says_otherwise() {
    let of = |objects: Vec<Value>| {
        let compiler = compiled(&scope(), &common::objects(objects));
        compiler.state().node.settings.clone()
    };
    let tcp = |port| Failsafe { protocol: 6, port, net: None };
    let settings = of(vec![]);
    assert!(settings.failsafe_inbound.contains(&tcp(22)));
    assert!(settings.failsafe_outbound.contains(&Failsafe { protocol: 17, ..tcp(53) }));
    let felix = json!({
        "failsafeInboundHostPorts": [{"protocol": "TCP", "port": 2222, "net": "10.0.0.0/8"}],
        "failsafeOutboundHostPorts": [],
    });
    let settings = of(vec![calico("FelixConfiguration", "", "default", felix)]);
    let net = Some("10.0.0.0/8".parse().unwrap());
    assert_eq!(settings.failsafe_inbound, [Failsafe { net, ..tcp(2222) }]);
    assert!(settings.failsafe_outbound.is_empty());
}
