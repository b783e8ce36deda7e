//! A cluster to compile: pods and policies of the usual kinds, the same in every run.

#![allow(dead_code, reason = "each bench uses a part")]

use margay_compile::{Compiler, Connections, NodeConfig, NodePorts, ResourceChange, Scope};
use margay_model::Update;
use margay_resources::{Kind, Resource};
use serde_json::{Value, json};

/// Namespaces, and nodes.
pub(crate) const NAMESPACES: usize = 100;

/// A change that puts an object in.
pub(crate) fn upsert(value: &Value) -> ResourceChange {
    let checked = Resource::check(value).expect("the bench's objects are right");
    ResourceChange::Upsert(Box::new(checked.resource))
}

/// A change that takes a policy away.
pub(crate) fn delete(kind: Kind, namespace: &str, name: &str) -> ResourceChange {
    ResourceChange::Delete { kind, namespace: namespace.into(), name: name.into() }
}

/// A compiler of one of the nodes, `node-0`.
pub(crate) fn of_a_node() -> Compiler {
    Compiler::new(Scope::Node(NodeConfig {
        name: "node-0".into(),
        v4: Some(([192, 168, 0, 1].into(), 24)),
        v6: None,
        mtu: 1500,
        node_ports: NodePorts::All,
        connections: Connections::default(),
    }))
}

/// Applies changes and gives what the dataplane is told.
pub(crate) fn compile(compiler: &mut Compiler, changes: &[ResourceChange]) -> Vec<Update> {
    for change in changes {
        compiler.apply(change.clone()).expect("the bench's objects can be compiled");
    }
    compiler.flush()
}

/// Namespaces, nodes and tiers.
pub(crate) fn surroundings() -> Vec<ResourceChange> {
    let namespaces = (0..NAMESPACES).map(|i| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{i}"),
            "labels": {"team": format!("t{}", i % 10), "env": (["prod", "test", "dev"][i % 3])}}})
    });
    let nodes = (0..NAMESPACES).map(|i| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{i}")},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("192.168.0.{}", i + 1)}]}})
    });
    let tiers = [("security", 100), ("application", 300)].map(|(name, order)| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name},
            "spec": {"order": order, "defaultAction": "Pass"}})
    });
    namespaces.chain(nodes).chain(tiers).map(|value| upsert(&value)).collect()
}

/// A pod with three labels of its own, and perhaps another one.
pub(crate) fn pod(i: usize, extra: Option<&str>) -> ResourceChange {
    let mut labels = json!({"app": format!("a{}", i % 53), "version": format!("v{}", i % 4),
        "role": (["front", "middle", "back"][i % 3])});
    if let Some(value) = extra {
        labels["extra"] = value.into();
    }
    let address = format!("10.{}.{}.{}", 1 + i / 62_500, i / 250 % 250, 1 + i % 250);
    upsert(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{i}"), "namespace": format!("ns-{}", i % NAMESPACES),
            "labels": labels},
        "spec": {"nodeName": format!("node-{}", i / NAMESPACES % NAMESPACES),
            "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}))
}

/// What makes a pod of this node one that its dataplane knows: what the CNI plugin stored.
pub(crate) fn workload(i: usize) -> ResourceChange {
    let address = format!("10.{}.{}.{}/32", 1 + i / 62_500, i / 250 % 250, 1 + i % 250);
    let node = format!("node-{}", i / NAMESPACES % NAMESPACES);
    let (dashed_node, dashed_pod) = (node.replace('-', "--"), format!("pod--{i}"));
    upsert(&json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": format!("{dashed_node}-k8s-{dashed_pod}-eth0"),
            "namespace": format!("ns-{}", i % NAMESPACES),
            "labels": {"app": format!("a{}", i % 53), "version": format!("v{}", i % 4),
                "role": (["front", "middle", "back"][i % 3])}},
        "spec": {"orchestrator": "k8s", "node": node, "pod": format!("pod-{i}"),
            "endpoint": "eth0", "interfaceName": format!("cali{i}"),
            "mac": "02:00:00:00:00:01", "ipNetworks": [address]}}))
}

/// A policy: of four, two are Kubernetes', one Calico's of a namespace, one Calico's of the cluster.
pub(crate) fn policy(i: usize) -> ResourceChange {
    let (namespace, app) = (format!("ns-{}", i % NAMESPACES), format!("a{}", i % 53));
    let (peer, port) = (format!("a{}", i * 7 % 53), 1000 + i % 500);
    let (name, tier) = (format!("p-{i}"), ["security", "application"][i / 4 % 2]);
    let value = match i % 4 {
        0 | 1 => json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"podSelector": {"matchLabels": {"app": app}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": peer}}},
                        {"namespaceSelector": {"matchLabels": {"team": format!("t{}", i % 10)}}}],
                    "ports": [{"protocol": "TCP", "port": port},
                        {"protocol": "TCP", "port": "http"}]}],
                "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8",
                        "except": [format!("10.{}.0.0/16", 100 + i % 100)]}}],
                    "ports": [{"port": 1, "endPort": 9000}]}]}}),
        2 => json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": format!("{tier}.{name}"), "namespace": namespace},
            "spec": {"tier": tier, "order": i % 1000, "types": ["Ingress"],
                "selector": format!("app == '{app}' && role != 'back'"),
                "ingress": [{"action": "Allow", "protocol": "TCP",
                    "source": {"selector": format!("app in {{'{peer}', '{app}'}}"),
                        "namespaceSelector": format!("team == 't{}'", i % 10)},
                    "destination": {"ports": [port, "8000:8100"]}}, {"action": "Pass"}]}}),
        _ => json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": format!("{tier}.{name}")},
            "spec": {"tier": tier, "order": i % 1000, "types": ["Ingress"],
                "selector": format!("app == '{app}' && version == 'v{}'", i % 4),
                "ingress": [{"action": "Allow", "protocol": "TCP",
                    "source": {"nets": [format!("192.0.2.{}/32", i % 256), "10.1.0.0/20"]},
                    "destination": {"ports": [port]}}, {"action": "Pass"}]}}),
    };
    upsert(&value)
}
