//! ClusterNetworkPolicy, by its own words.

use std::net::IpAddr;

use serde_json::Value;

use super::kubernetes::{is_named, selects, selects_pod};
use super::world::{Item, Net, World, name, number};
use super::{Action, Packet, Policy, Rule, list, text};

pub(super) fn policy(document: &Value) -> Policy {
    let (name, kind) = (name(document), "KubernetesClusterNetworkPolicy");
    let spec = &document["spec"];
    let tier = match text(&spec["tier"]) {
        "Admin" => "kube-admin",
        "Baseline" => "kube-baseline",
        other => panic!("{other:?} is no tier"),
    };
    let of = |direction: &str, peers: &'static str| {
        let rules = list(&spec[direction]);
        let rules = (!rules.is_empty()).then_some(rules)?.iter();
        Some(rules.map(|rule| self::rule(rule, peers)).collect())
    };
    let subject = spec["subject"].clone();
    Policy {
        tier: tier.to_owned(),
        order: spec["priority"].as_f64().unwrap(),
        tie: format!("{name}//{kind}"),
        key: format!("{kind}//{name}"),
        ingress: of("ingress", "from"),
        egress: of("egress", "to"),
        subject: Box::new(move |pod| is_pods(&subject, pod)),
    }
}

/// What cannot be understood denies everything, or allows nothing.
fn rule(rule: &Value, peers: &'static str) -> Rule {
    let rule = rule.clone();
    let is_clear = is_clear(&rule, peers);
    let action = match text(&rule["action"]) {
        "Accept" => Action::Allow,
        "Pass" if is_clear => Action::Pass,
        _ => Action::Deny,
    };
    let matches = move |world: &World, packet: &Packet| {
        if !is_clear {
            return action == Action::Deny;
        }
        let other = if peers == "from" { packet.src } else { packet.dst };
        let protocols = list(&rule["protocols"]);
        list(&rule[peers]).iter().any(|peer| is_peer(peer, world, other))
            && (protocols.is_empty() || protocols.iter().any(|p| is_protocol(p, world, packet)))
    };
    Rule { action, matches: Box::new(matches) }
}

/// Names of domains are for what is accepted, names of ports for pods.
fn is_clear(rule: &Value, peers: &str) -> bool {
    let named = list(&rule["protocols"]).iter().any(|p| p["destinationNamedPort"].is_string());
    list(&rule[peers]).iter().all(|peer| {
        let has = |key: &str| !peer[key].is_null();
        let to_names = has("domainNames") && peers == "to" && rule["action"] == "Accept";
        let to_others = has("networks") || has("nodes") && peers == "to" || to_names;
        has("namespaces") || has("pods") || to_others && !named
    })
}

/// Pods by their namespaces' labels, or by their own too.
fn is_pods(pods: &Value, item: &Item) -> bool {
    match &pods["namespaces"] {
        Value::Null => pods["pods"].is_object() && selects_pod(&pods["pods"], item),
        namespaces => item.pod.is_some() && selects(namespaces, &item.namespace_labels),
    }
}

fn is_peer(peer: &Value, world: &World, address: IpAddr) -> bool {
    list(&peer["networks"]).iter().any(|net| Net::read(text(net)).has(address))
        || world.items.iter().any(|item| item.has(address) && is_pods(peer, item))
        || peer["nodes"].is_object()
            && world.node_at(address).is_some_and(|node| selects(&peer["nodes"], &node.labels))
}

fn is_protocol(says: &Value, world: &World, packet: &Packet) -> bool {
    if let Some(name) = says["destinationNamedPort"].as_str() {
        return is_named(name, world, packet);
    }
    [("tcp", 6), ("udp", 17), ("sctp", 132)].iter().any(|(key, protocol)| {
        let says = &says[*key];
        let ports = &says["destinationPort"];
        let (only, range) = (&ports["number"], &ports["range"]);
        let is_port = |port| match (only, range) {
            (Value::Null, Value::Null) => true,
            (Value::Null, range) => {
                (number(&range["start"])..=number(&range["end"])).contains(&port)
            }
            (only, _) => number(only) == port,
        };
        says.is_object()
            && packet.protocol == *protocol
            && (ports.is_null() || packet.dst_port.is_some_and(is_port))
    })
}
