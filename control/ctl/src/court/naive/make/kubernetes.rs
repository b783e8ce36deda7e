//! Kubernetes' policies.

use fastrand::Rng;
use serde_json::{Value, json};

use super::{APPS, NAMESPACES, PORT_NAMES, PORTS, ROLES, TEAMS, name, one, perhaps, rarely, some};

/// A NetworkPolicy.
pub(super) fn network_policy(rng: &mut Rng, number: usize) -> Value {
    let mut spec = json!({"podSelector": pods(rng)});
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        perhaps(rng, 2, &mut spec, direction, |rng| json!(some(rng, 3, |rng| rule(rng, peers))));
    }
    let types = [json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])];
    perhaps(rng, 2, &mut spec, "policyTypes", |rng| one(rng, &types));
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name(rng, number), "namespace": one(rng, &NAMESPACES)},
        "spec": spec})
}

fn rule(rng: &mut Rng, peers: &str) -> Value {
    let mut rule = json!({});
    if !rarely(rng, 4) {
        rule[peers] = json!(some(rng, 3, peer));
    }
    perhaps(rng, 2, &mut rule, "ports", |rng| json!(some(rng, 3, port)));
    rule
}

fn peer(rng: &mut Rng) -> Value {
    match rng.u8(0..5) {
        0 => json!({"ipBlock": {"cidr": "10.0.0.0/16",
            "except": some(rng, 2, |rng| one(rng, &["10.0.1.0/30", "10.0.0.2/32"]))}}),
        1 => {
            json!({"ipBlock": {"cidr": one(rng, &["9.9.0.0/29", "0.0.0.0/0", "fd00::/60", "::/0"])}})
        }
        2 => json!({"podSelector": pods(rng)}),
        3 => json!({"namespaceSelector": namespaces(rng)}),
        _ => json!({"podSelector": pods(rng), "namespaceSelector": namespaces(rng)}),
    }
}

fn port(rng: &mut Rng) -> Value {
    let mut port = json!({});
    perhaps(rng, 2, &mut port, "protocol", |rng| json!(one(rng, &["TCP", "UDP", "SCTP"])));
    match rng.u8(0..4) {
        0 => port["port"] = json!(one(rng, &PORT_NAMES)),
        1 => (port["port"], port["endPort"]) = (json!(80), json!(one(rng, &[80, 81, 100]))),
        2 => port["port"] = json!(one(rng, &PORTS)),
        _ => {}
    }
    port
}

/// A ClusterNetworkPolicy.
pub(super) fn cluster_policy(rng: &mut Rng, number: usize) -> Value {
    let mut spec = json!({"tier": one(rng, &["Admin", "Baseline"]),
        "priority": one(rng, &[0, 5, 5, 1000]), "subject": subject(rng)});
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        perhaps(rng, 2, &mut spec, direction, |rng| {
            json!(some(rng, 4, |rng| cluster_rule(rng, peers)))
        });
    }
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name(rng, number)}, "spec": spec})
}

fn subject(rng: &mut Rng) -> Value {
    if rng.bool() {
        return json!({"namespaces": namespaces(rng)});
    }
    json!({"pods": {"namespaceSelector": namespaces(rng), "podSelector": pods(rng)}})
}

fn cluster_rule(rng: &mut Rng, peers: &str) -> Value {
    let to_pods = peers == "from" || rng.bool();
    let of = some(rng, 3, |rng| match rng.u8(0..20) {
        // What a later version knows, and what only rules have that accept.
        0 => one(rng, &[json!({}), json!({"domainNames": ["*.example.org"]})]),
        1..4 if !to_pods => json!({"nodes": labels(rng, "team", &TEAMS)}),
        1.. if !to_pods && rng.bool() => json!({"networks":
            some(rng, 2, |rng| one(rng, &["10.0.0.0/24", "9.9.0.0/16", "fd00::/60", "::/0"]))}),
        _ => subject(rng),
    });
    let mut rule = json!({"action": one(rng, &["Accept", "Deny", "Pass"]), peers: of});
    perhaps(rng, 2, &mut rule, "protocols", |rng| {
        json!(some(rng, 3, |rng| match rng.u8(0..4) {
            0 if to_pods => json!({"destinationNamedPort": one(rng, &PORT_NAMES)}),
            1 => json!({"tcp": {"destinationPort": {"range": {"start": 80, "end": 90}}}}),
            2 => json!({"udp": {}}),
            _ => {
                let protocol = one(rng, &["tcp", "udp", "sctp"]);
                json!({protocol: {"destinationPort": {"number": one(rng, &PORTS)}}})
            }
        }))
    });
    rule
}

fn pods(rng: &mut Rng) -> Value {
    if rng.bool() { labels(rng, "app", &APPS) } else { labels(rng, "role", &ROLES) }
}

fn namespaces(rng: &mut Rng) -> Value {
    if rarely(rng, 3) {
        return labels(rng, "kubernetes.io/metadata.name", &NAMESPACES);
    }
    labels(rng, "team", &TEAMS)
}

/// A selector of labels.
fn labels(rng: &mut Rng, key: &str, values: &[&str]) -> Value {
    let mut selector = json!({});
    perhaps(rng, 2, &mut selector, "matchLabels", |rng| json!({key: one(rng, values)}));
    perhaps(rng, 2, &mut selector, "matchExpressions", |rng| {
        json!(some(rng, 2, |rng| {
            let key = one(rng, &[key, key, "env"]);
            match rng.u8(0..4) {
                0 => json!({"key": key, "operator": "Exists"}),
                1 => json!({"key": key, "operator": "DoesNotExist"}),
                2 => json!({"key": key, "operator": "In",
                    "values": some(rng, 2, |rng| one(rng, values))}),
                _ => json!({"key": key, "operator": "NotIn", "values": [one(rng, values)]}),
            }
        }))
    });
    selector
}
