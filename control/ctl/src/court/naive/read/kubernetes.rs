//! Kubernetes' NetworkPolicy, by Kubernetes' own words: of pods, namespaces and blocks.

use std::net::IpAddr;

use serde_json::Value;

use super::selector::Labels;
use super::world::{Item, Net, World, name, namespace, number, protocol};
use super::{Action, Packet, Policy, Rule, list, text};

pub(super) fn policy(document: &Value) -> Policy {
    let (name, namespace) = (name(document), namespace(document));
    let spec = document["spec"].clone();
    let types: Vec<_> = list(&spec["policyTypes"]).iter().map(text).collect();
    let egress = if types.is_empty() {
        !list(&spec["egress"]).is_empty()
    } else {
        types.contains(&"Egress")
    };
    let ingress = types.is_empty() || types.contains(&"Ingress");
    let of = |direction: &str, peers: &'static str| {
        let rules = list(&spec[direction]).iter();
        rules.map(|rule| self::rule(rule, peers, &namespace)).collect::<Vec<_>>()
    };
    let kind = "KubernetesNetworkPolicy";
    Policy {
        tier: "default".to_owned(),
        order: 1000.0,
        tie: format!("{name}/{namespace}/{kind}"),
        key: format!("{kind}/{namespace}/{name}"),
        ingress: ingress.then(|| of("ingress", "from")),
        egress: egress.then(|| of("egress", "to")),
        subject: Box::new(move |pod| {
            pod.namespace == namespace && selects(&spec["podSelector"], &pod.own)
        }),
    }
}

fn rule(rule: &Value, peers: &'static str, namespace: &str) -> Rule {
    let (rule, namespace) = (rule.clone(), namespace.to_owned());
    let matches = move |world: &World, packet: &Packet| {
        let other = if peers == "from" { packet.src } else { packet.dst };
        let (peers, ports) = (list(&rule[peers]), list(&rule["ports"]));
        (peers.is_empty() || peers.iter().any(|peer| is_peer(peer, world, other, &namespace)))
            && (ports.is_empty() || ports.iter().any(|port| is_port(port, world, packet)))
    };
    Rule { action: Action::Allow, matches: Box::new(matches) }
}

fn is_peer(peer: &Value, world: &World, address: IpAddr, namespace: &str) -> bool {
    let block = &peer["ipBlock"];
    if block.is_object() {
        let has = |net: &Value| Net::read(text(net)).has(address);
        return has(&block["cidr"]) && !list(&block["except"]).iter().any(has);
    }
    world.items.iter().any(|item| {
        let namespaces = &peer["namespaceSelector"];
        item.has(address)
            && item.pod.is_some()
            && selects(&peer["podSelector"], &item.own)
            && match namespaces {
                Value::Null => item.namespace == namespace,
                selector => selects(selector, &item.namespace_labels),
            }
    })
}

fn is_port(port: &Value, world: &World, packet: &Packet) -> bool {
    if packet.protocol != protocol(&port["protocol"]) {
        return false;
    }
    match &port["port"] {
        Value::Null => true,
        Value::String(name) => is_named(name, world, packet),
        first => {
            let first = number(first);
            let last = Some(&port["endPort"]).filter(|end| !end.is_null()).map_or(first, number);
            packet.dst_port.is_some_and(|port| (first..=last).contains(&port))
        }
    }
}

/// Whether a packet goes to the port of that name on the pod that it goes to.
pub(super) fn is_named(name: &str, world: &World, packet: &Packet) -> bool {
    let pod = world.pod_at(packet.dst);
    pod.is_some_and(|(_, pod)| {
        let mut ports = pod.ports.iter().filter(|port| port.protocol == packet.protocol);
        ports.any(|port| port.name == name && Some(port.port) == packet.dst_port)
    })
}

/// Whether a selector of labels, where nothing selects everything, selects these.
pub(super) fn selects(selector: &Value, labels: &Labels) -> bool {
    let mut pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = list(&selector["matchExpressions"]);
    pairs.all(|(key, value)| labels.get(key).is_some_and(|has| value == has))
        && expressions.iter().all(|expression| {
            let has = labels.get(text(&expression["key"]));
            let among = has.is_some_and(|has| list(&expression["values"]).iter().any(|v| v == has));
            match text(&expression["operator"]) {
                "In" => among,
                "NotIn" => !among,
                "Exists" => has.is_some(),
                "DoesNotExist" => has.is_none(),
                other => panic!("{other:?} is no operator"),
            }
        })
}

/// Whether a pod is one of those that a pair of selectors names.
pub(super) fn selects_pod(pair: &Value, item: &Item) -> bool {
    item.pod.is_some()
        && selects(&pair["namespaceSelector"], &item.namespace_labels)
        && selects(&pair["podSelector"], &item.own)
}
