//! Objects, and a state in words.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::fmt::Write;

use margay_compile::{Compiler, ResourceChange, Scope};
use margay_model::{
    EntityMatch, Member, Policy, PortRange, RouteTarget, Rule, Service, SetId, State, Update,
};
use margay_resources::Resource;
use serde_json::{Value, json};

/// Objects by what they are known by.
pub(crate) type Objects = BTreeMap<String, Value>;

pub(crate) fn resource(value: &Value) -> Resource {
    Resource::check(value).unwrap_or_else(|e| panic!("{e}: {value}")).resource
}

/// Puts objects of one state together.
pub(crate) fn objects(values: impl IntoIterator<Item = Value>) -> Objects {
    let name = |v: &Value| {
        let r = resource(v);
        format!("{:?} {}/{}", r.kind(), r.namespace(), r.name())
    };
    values.into_iter().map(|v| (name(&v), v)).collect()
}

/// The changes that lead from one collection of objects to another.
pub(crate) fn changes(old: &Objects, new: &Objects) -> Vec<ResourceChange> {
    let mut changes = Vec::new();
    for (_, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        let r = resource(value);
        changes.push(ResourceChange::Delete {
            kind: r.kind(),
            namespace: r.namespace().to_owned(),
            name: r.name().to_owned(),
        });
    }
    for (_, value) in new.iter().filter(|(name, value)| old.get(*name) != Some(value)) {
        changes.push(ResourceChange::Upsert(Box::new(resource(value))));
    }
    changes
}

/// A compiler that has seen the objects.
pub(crate) fn compiled(scope: &Scope, objects: &Objects) -> Compiler {
    let mut compiler = Compiler::new(scope.clone());
    for change in changes(&Objects::new(), objects) {
        compiler.apply(change).unwrap();
    }
    compiler.flush();
    compiler
}

/// Applies updates and checks that none of them refers to what is not there.
pub(crate) fn replay(state: &mut State, updates: Vec<Update>) {
    for update in updates {
        match &update {
            Update::Policy(p) => {
                let mut sets = p.ingress.iter().chain(&p.egress).flat_map(|r| r.sets());
                assert!(sets.all(|s| state.sets.contains_key(s)), "{} before its sets", p.key);
            }
            Update::Endpoint(e) => {
                let tiers = e.tiers.iter().flat_map(|t| t.ingress.iter().chain(&t.egress));
                let mut keys = tiers.chain(e.profiles.iter());
                assert!(keys.all(|k| state.policies.contains_key(k)), "{} too early", e.key);
            }
            Update::Route(r) => {
                if let RouteTarget::Node { node, .. } = &r.target {
                    assert!(state.remotes.contains_key(node), "route to {node} too early");
                }
            }
            Update::SetGone(id) => {
                let policies = state.policies.values();
                let mut rules = policies.flat_map(|p| p.ingress.iter().chain(&p.egress));
                assert!(!rules.any(|r| r.sets().any(|s| s == id)), "{id} removed too early");
            }
            Update::PolicyGone(key) => {
                let mut endpoints = state.endpoints.values();
                let names = |e: &margay_model::Endpoint| {
                    e.profiles.contains(key)
                        || e.tiers.iter().any(|t| t.ingress.contains(key) || t.egress.contains(key))
                };
                assert!(!endpoints.any(|e| names(e)), "{key} removed too early");
            }
            _ => {}
        }
        state.apply(update);
    }
}

// === objects ===

pub(crate) fn pod(namespace: &str, name: &str, ip: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [
            {"name": "web", "containerPort": 8080},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]}]},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

pub(crate) fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A Kubernetes policy of the namespace `default`.
pub(crate) fn kubernetes_policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": name}, "spec": spec,
    })
}

pub(crate) fn calico(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let mut value = json!({
        "apiVersion": "projectcalico.org/v3", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    });
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = namespace.into();
    }
    value
}

pub(crate) fn workload(namespace: &str, pod: &str, node: &str, ip: &str) -> Value {
    calico(
        "WorkloadEndpoint",
        namespace,
        &format!("{node}-k8s-{pod}-eth0"),
        json!({
            "orchestrator": "k8s", "node": node, "pod": pod, "endpoint": "eth0",
            "interfaceName": format!("cali{pod}"), "mac": "02:00:00:00:00:01",
            "ipNetworks": [format!("{ip}/32")],
        }),
    )
}

pub(crate) fn calico_node(name: &str, address: &str) -> Value {
    calico("Node", "", name, json!({"bgp": {"ipv4Address": address}}))
}

pub(crate) fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name}, "spec": spec,
    })
}

// === words ===

/// A state in lines that people can read; sets appear as their members.
pub(crate) fn words(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for endpoint in state.endpoints.values() {
        let addresses: Vec<_> = endpoint.addresses.iter().map(|a| a.to_string()).collect();
        let mut line = format!("endpoint {} {}", endpoint.key, addresses.join(","));
        line += &tier_words(&endpoint.tiers);
        write!(line, " | {}", endpoint.profiles.join(" ")).unwrap();
        lines.push(line);
        lines.extend(
            endpoint.pending.as_ref().map(|tiers| format!("  pending{}", tier_words(tiers))),
        );
    }
    for policy in state.policies.values() {
        if policy.key.starts_with("Profile/") {
            continue;
        }
        lines.extend(policy_words(state, policy));
    }
    for (dst, target) in &state.routes {
        lines.push(match target {
            RouteTarget::LocalBlock => format!("route {dst} local"),
            RouteTarget::Node { node, encap } => format!("route {dst} {node} {encap:?}"),
        });
    }
    lines.extend(state.services.values().map(|s| service_words(s)));
    lines
}

fn tier_words(tiers: &[margay_model::TierPolicies]) -> String {
    let mut words = String::new();
    for tier in tiers {
        let (ingress, egress) = (tier.ingress.join(" "), tier.egress.join(" "));
        write!(words, " | {} in[{ingress}] out[{egress}]", tier.name).unwrap();
    }
    words
}

fn policy_words(state: &State, policy: &Policy) -> Vec<String> {
    let mut lines = vec![format!("policy {}", policy.key)];
    for (direction, rules) in [("in", &policy.ingress), ("out", &policy.egress)] {
        lines.extend(rules.iter().map(|r| format!("  {direction} {}", rule_words(state, r))));
    }
    lines
}

fn rule_words(state: &State, rule: &Rule) -> String {
    let mut text = format!("{:?}", rule.action).to_lowercase();
    if let Some(version) = rule.ip_version {
        write!(text, " {version:?}").unwrap();
    }
    if let Some(protocol) = rule.protocol {
        write!(text, " proto {protocol}").unwrap();
    }
    if let Some(protocol) = rule.not_protocol {
        write!(text, " not proto {protocol}").unwrap();
    }
    if let Some(icmp) = rule.icmp {
        write!(text, " icmp {}/{:?}", icmp.kind, icmp.code).unwrap();
    }
    text + &entity_words(state, "from", &rule.src) + &entity_words(state, "to", &rule.dst)
}

fn entity_words(state: &State, side: &str, entity: &EntityMatch) -> String {
    let mut text = String::new();
    let mut note = |what: &str, items: Vec<String>| {
        if !items.is_empty() {
            write!(text, " {side} {what}{}", items.join(",")).unwrap();
        }
    };
    let set = |ids: &[SetId]| ids.iter().map(|id| set_words(state, id)).collect::<Vec<_>>();
    let nets = |nets: &[ipnet::IpNet]| nets.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let ports = |ports: &[PortRange]| {
        ports.iter().map(|p| format!("{}-{}", p.first, p.last)).collect::<Vec<_>>()
    };
    note("", nets(&entity.nets));
    note("not ", nets(&entity.not_nets));
    let learned = if entity.learned { "learned " } else { "" };
    note(learned, set(&entity.sets));
    note("not ", set(&entity.not_sets));
    note("service ", set(&entity.addr_port_sets));
    note("port ", ports(&entity.ports));
    note("port ", set(&entity.named_ports));
    note("not port ", ports(&entity.not_ports));
    text
}

fn set_words(state: &State, id: &SetId) -> String {
    let members = state.sets[id].members.iter().map(|member| match member {
        Member::Net(net) => net.to_string(),
        Member::AddrPort { addr, protocol, port } => format!("{addr}:{port}/{protocol}"),
    });
    let domains = state.sets[id].domains.iter().map(ToString::to_string);
    format!("{{{}}}", members.chain(domains).collect::<Vec<_>>().join(" "))
}

fn service_words(service: &Service) -> String {
    let list = |backends: &[margay_model::Backend]| {
        backends.iter().map(|b| format!("{}:{}", b.addr, b.port)).collect::<Vec<_>>().join(",")
    };
    let (cluster, local) = (list(&service.cluster_backends), list(&service.local_backends));
    format!("service {} {:?} cluster[{cluster}] local[{local}]", service.key, service.cluster_ips)
}
