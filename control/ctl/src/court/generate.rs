//! Random clusters and flows, small and full of coincidences.

use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use margay_resources::{Kind, Resource};
use serde_json::{Value, json};

use super::flow::Flow;

const NAMESPACES: [&str; 2] = ["x", "y"];
const APPS: [&str; 3] = ["a", "b", "c"];
const PORTS: [u16; 4] = [53, 80, 81, 8080];
const PROTOCOLS: [&str; 4] = ["TCP", "UDP", "SCTP", "ICMP"];
const SELECTORS: [&str; 8] = [
    "all()",
    "app == 'a'",
    "app in {'a', 'b'}",
    "app != 'c' && has(role)",
    "has(role)",
    "role == 'front' || app == 'c'",
    "!has(role)",
    "kind == 'set'",
];
const NETS: [&str; 4] = ["10.0.0.0/24", "10.0.1.0/25", "9.9.0.0/16", "0.0.0.0/0"];
const TIERS: [&str; 4] = ["early", "default", "late", "nowhere"];

/// A cluster of some pods, a service, a host endpoint, network sets, tiers and policies.
pub(crate) fn cluster(rng: &mut Rng) -> Vec<Resource> {
    let mut objects = surroundings(rng);
    for number in 0..rng.usize(2..12) {
        objects.push(pod(rng, number));
    }
    for number in 0..rng.usize(0..12) {
        objects.push(policy(rng, number));
    }
    objects.iter().map(|value| Resource::from_value(value).unwrap()).collect()
}

/// The same with more host endpoints, policies for what passes them, and a pool.
pub(crate) fn guarded(rng: &mut Rng) -> Vec<Resource> {
    let v3 = "projectcalico.org/v3";
    let mut objects = cluster(rng);
    let mut add = |value: Value| objects.push(Resource::from_value(&value).unwrap());
    for (name, node) in [("eth-m", "m"), ("eth-n", "n"), ("all-n", "n")] {
        let interface = if name == "all-n" { "*" } else { "eth0" };
        if rng.bool() {
            add(json!({"apiVersion": v3, "kind": "HostEndpoint",
                "metadata": {"name": name, "labels": {"app": one(rng, &APPS)}},
                "spec": {"node": node, "interfaceName": interface,
                    "profiles": one(rng, &[json!([]), json!(["projectcalico-default-allow"])])}}));
        }
    }
    for number in 0..rng.usize(1..8) {
        let mut policy = policy(rng, 200 + number);
        if policy["kind"] != "GlobalNetworkPolicy" {
            continue;
        }
        policy["spec"]["applyOnForward"] = json!(true);
        match rng.u8(0..3) {
            0 => policy["spec"]["doNotTrack"] = json!(true),
            1 => {
                policy["spec"]["preDNAT"] = json!(true);
                policy["spec"]["types"] = json!(["Ingress"]);
                policy["spec"]["egress"] = json!([]);
            }
            _ => {}
        }
        add(policy);
    }
    let mode = one(rng, &["Never", "Always", "CrossSubnet"]);
    add(json!({"apiVersion": v3, "kind": "IPPool", "metadata": {"name": "pods"},
        "spec": {"cidr": "10.0.0.0/16", "vxlanMode": mode, "natOutgoing": rng.bool()}}));
    objects
}

/// The same cluster with another policy more, and perhaps without one object.
pub(crate) fn edited(rng: &mut Rng, cluster: &[Resource]) -> Vec<Resource> {
    let mut edited = cluster.to_vec();
    edited.push(Resource::from_value(&policy(rng, 100)).unwrap());
    let at = rng.usize(0..edited.len());
    if rng.bool() && edited[at].kind() != Kind::Pod {
        edited.remove(at);
    }
    edited
}

/// A flow between addresses some of which are somebody's.
pub(crate) fn flow(rng: &mut Rng) -> Flow {
    let protocol = one(rng, &[6, 17, 132, 1, 47]);
    let has_ports = matches!(protocol, 6 | 17 | 132);
    let port = |rng: &mut Rng| rng.bool().then(|| one(rng, &PORTS)).filter(|_| has_ports);
    Flow {
        src: address(rng),
        dst: address(rng),
        protocol,
        src_port: port(rng),
        dst_port: port(rng).or(port(rng)),
        icmp: (protocol == 1 && rng.bool())
            .then(|| (one(rng, &[0, 8]), rng.bool().then(|| rng.u8(0..2)))),
    }
}

fn one<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())].clone()
}

fn address(rng: &mut Rng) -> IpAddr {
    let last = rng.u8(0..12);
    let address = match rng.u8(0..10) {
        0 => Ipv4Addr::new(9, 9, 0, last),
        1 => Ipv4Addr::new(192, 168, 0, 1 + last % 3),
        2 | 3 => Ipv4Addr::new(10, 96, 0, 1),
        _ => Ipv4Addr::new(10, 0, last % 2, last),
    };
    address.into()
}

fn surroundings(rng: &mut Rng) -> Vec<Value> {
    let v3 = "projectcalico.org/v3";
    let mut objects = vec![
        json!({"apiVersion": v3, "kind": "Tier", "metadata": {"name": "early"},
            "spec": {"order": 10, "defaultAction": one(rng, &["Pass", "Deny"])}}),
        json!({"apiVersion": v3, "kind": "Tier", "metadata": {"name": "late"},
            "spec": {"defaultAction": "Pass"}}),
        json!({"apiVersion": v3, "kind": "GlobalNetworkSet",
            "metadata": {"name": "s", "labels": {"kind": "set"}}, "spec": {"nets": ["9.9.0.0/29"]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "x"},
            "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "a"},
                "ports": [{"port": 80, "targetPort": one(rng, &[json!("web"), json!(8080)])}]}}),
    ];
    for (number, name) in (1..).zip(["n", "m"]) {
        objects.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{number}")}]}}));
    }
    if rng.bool() {
        objects.push(json!({"apiVersion": v3, "kind": "HostEndpoint",
            "metadata": {"name": "h", "labels": {"role": "front"}},
            "spec": {"node": "m", "interfaceName": "*", "expectedIPs": ["192.168.0.2"],
                "profiles": one(rng, &[json!([]), json!(["projectcalico-default-allow"])])}}));
    }
    objects
}

fn pod(rng: &mut Rng, number: usize) -> Value {
    let mut labels = json!({"app": one(rng, &APPS)});
    if rng.bool() {
        labels["role"] = json!(one(rng, &["front", "back"]));
    }
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{number}"), "namespace": one(rng, &NAMESPACES),
            "labels": labels},
        "spec": {"nodeName": one(rng, &["n", "m"]), "containers": [{"name": "c",
            "ports": [{"name": "web", "containerPort": one(rng, &PORTS)}]}]},
        "status": {"podIP": format!("10.0.{}.{number}", number % 2)}})
}

fn policy(rng: &mut Rng, number: usize) -> Value {
    if rng.u8(0..4) == 0 {
        return kubernetes(rng, number);
    }
    let global = rng.bool();
    let mut metadata = json!({"name": format!("c{number}")});
    if !global {
        metadata["namespace"] = json!(one(rng, &NAMESPACES));
    }
    let rules = |rng: &mut Rng| (0..rng.usize(0..4)).map(|_| rule(rng)).collect::<Vec<_>>();
    let types = one(rng, &[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let mut spec = json!({"tier": one(rng, &TIERS), "selector": one(rng, &SELECTORS),
        "types": types, "ingress": rules(rng), "egress": rules(rng)});
    if rng.bool() {
        spec["order"] = json!(rng.u8(0..5));
    }
    let kind = if global { "GlobalNetworkPolicy" } else { "NetworkPolicy" };
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

fn rule(rng: &mut Rng) -> Value {
    let mut rule = json!({"action": one(rng, &["Allow", "Deny", "Pass", "Log", "Allow"])});
    let protocol = one(rng, &PROTOCOLS);
    if rng.bool() {
        rule["protocol"] = json!(protocol);
        if protocol == "ICMP" && rng.bool() {
            let icmp = one(rng, &["icmp", "notICMP"]);
            rule[icmp] = one(rng, &[json!({"type": 8}), json!({"type": 8, "code": 1})]);
        }
    } else if rng.u8(0..4) == 0 {
        rule["notProtocol"] = json!(protocol);
    }
    let has_ports = rule["protocol"].is_string() && protocol != "ICMP";
    for end in ["source", "destination"] {
        rule[end] = entity(rng, has_ports && end == "destination");
    }
    rule
}

fn entity(rng: &mut Rng, has_ports: bool) -> Value {
    let mut entity = json!({});
    match rng.u8(0..8) {
        0 | 1 => entity["selector"] = json!(one(rng, &SELECTORS)),
        2 => entity["notSelector"] = json!(one(rng, &SELECTORS)),
        3 => entity["nets"] = json!([one(rng, &NETS)]),
        4 => entity["notNets"] = json!([one(rng, &NETS)]),
        5 => entity["services"] = json!({"name": "s", "namespace": "x"}),
        _ => {}
    }
    if has_ports && entity["services"].is_null() {
        match rng.u8(0..5) {
            0 => entity["ports"] = json!([one(rng, &PORTS), "80:90"]),
            1 => entity["ports"] = json!(["web"]),
            2 => entity["notPorts"] = json!([one(rng, &PORTS), "web"]),
            _ => {}
        }
    }
    entity
}

fn kubernetes(rng: &mut Rng, number: usize) -> Value {
    let peer = |rng: &mut Rng| match rng.u8(0..3) {
        0 => json!({"podSelector": {"matchLabels": {"app": one(rng, &APPS)}}}),
        1 => json!({"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.1.0/25"]}}),
        _ => json!({"namespaceSelector": {}}),
    };
    let port = one(
        rng,
        &[
            json!({"port": 80}),
            json!({"port": "web"}),
            json!({"port": 53,
        "endPort": 81, "protocol": "UDP"}),
        ],
    );
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("k{number}"), "namespace": one(rng, &NAMESPACES)},
        "spec": {"podSelector": one(rng, &[json!({}), json!({"matchLabels": {"app": "a"}})]),
            "policyTypes": one(rng, &[json!(["Ingress"]), json!(["Ingress", "Egress"])]),
            "ingress": [{"from": [peer(rng), peer(rng)], "ports": [port]}],
            "egress": [{"to": [peer(rng)]}]}})
}
