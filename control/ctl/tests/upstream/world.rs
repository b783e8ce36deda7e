//! Pods a, b and c in each of the namespaces w, x, y and z, two nodes, and what is outside.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::table::Step;

const SPACES: [&str; 4] = ["w", "x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];

/// Everybody's addresses, IPv4 and IPv6, by name.
pub(crate) struct World {
    ends: BTreeMap<String, [String; 2]>,
}

// === impl World ===

impl World {
    pub(crate) fn new() -> Self {
        let mut ends = BTreeMap::new();
        for (i, space) in (1..).zip(SPACES) {
            for (j, pod) in (1..).zip(PODS) {
                let addresses = [format!("10.{i}.0.{j}"), format!("fd00:{i}::{j}")];
                ends.insert(format!("{space}/{pod}"), addresses);
            }
        }
        for (name, v4, v6) in [
            ("n1", "172.20.0.1", "fd20::1"),
            ("n2", "172.20.0.2", "fd20::2"),
            ("out", "203.0.113.9", "2001:db8::9"),
        ] {
            ends.insert(name.to_owned(), [v4.to_owned(), v6.to_owned()]);
        }
        Self { ends }
    }

    /// The words that stand for addresses.
    pub(crate) fn words(&self) -> BTreeMap<String, Value> {
        let word = |name: &str, [v4, v6]: &[String; 2]| {
            [(format!("{name}.4"), json!(v4)), (format!("{name}.6"), json!(v6))]
        };
        self.ends.iter().flat_map(|(name, addresses)| word(name, addresses)).collect()
    }

    /// The world's documents and these.
    pub(crate) fn documents(&self, put: &BTreeMap<String, Value>) -> String {
        let labels = |name: &str| put.get(&format!("labels {name}"));
        let mut all = Vec::new();
        for node in ["n1", "n2"] {
            let addresses = self.ends[node].iter();
            let addresses: Vec<_> =
                addresses.map(|a| json!({"type": "InternalIP", "address": a})).collect();
            all.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node},
                "status": {"addresses": addresses}}));
        }
        for space in SPACES {
            let mut own = json!({"ns": space});
            add(&mut own, labels(space));
            all.push(json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": space, "labels": own}}));
            all.extend(PODS.map(|pod| {
                let name = format!("{space}/{pod}");
                self.pod(space, pod, labels(&name))
            }));
        }
        let put = put.iter().filter(|(key, _)| !key.starts_with("labels "));
        all.extend(put.map(|(key, spec)| document(key, spec)));
        all.iter().map(|document| format!("{document}\n---\n")).collect()
    }

    fn pod(&self, space: &str, pod: &str, labels: Option<&Value>) -> Value {
        let [v4, v6] = &self.ends[&format!("{space}/{pod}")];
        let mut own = json!({"pod": pod, "space": space});
        add(&mut own, labels);
        let mut ports = Vec::new();
        for (port, protocol) in
            [80, 81].into_iter().flat_map(|p| ["TCP", "UDP", "SCTP"].map(|q| (p, q)))
        {
            let name = format!("serve-{port}-{}", protocol.to_lowercase());
            ports.push(json!({"name": name, "containerPort": port, "protocol": protocol}));
        }
        let node = match (pod, space) {
            ("b", _) | ("c", "y") => "n2",
            _ => "n1",
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "namespace": space, "labels": own},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": ports}]},
            "status": {"podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]},
        })
    }

    /// The flows that a step speaks of, as lines of the simulation, and whether they are allowed.
    pub(crate) fn flows(&self, step: &Step) -> Vec<(Value, bool)> {
        let pods: Vec<_> = self.ends.keys().filter(|name| name.contains('/')).collect();
        let mut flows = Vec::new();
        for at in &step.at {
            for (source, target) in pods.iter().flat_map(|s| pods.iter().map(move |t| (*s, *t))) {
                let says = |patterns: &[String]| patterns.iter().any(|p| means(p, source, target));
                let allowed = source == target || !says(&step.closed) || says(&step.open);
                let (from, to) = (&self.ends[source], &self.ends[target]);
                flows.extend((0..2).map(|v| (flow(&from[v], &to[v], at), allowed)));
            }
        }
        flows.extend(step.probes.iter().map(|probe| {
            let (allowed, probe) = (probe.starts_with('+'), &probe[1..]);
            let (source, rest) = probe.split_once(" > ").unwrap();
            let (target, at) = rest.split_once(' ').unwrap();
            (flow(self.address(source), self.address(target), at), allowed)
        }));
        flows
    }

    /// The IPv4 address of an end; what is no name is one.
    fn address<'a>(&'a self, name: &'a str) -> &'a str {
        self.ends.get(name).map_or(name, |[v4, _]| v4)
    }
}

fn flow(source: &str, target: &str, at: &str) -> Value {
    let (protocol, port) = at.split_once(' ').unwrap();
    let port: u16 = port.parse().unwrap();
    json!({"src": source, "dst": target, "protocol": protocol, "srcPort": 40_000, "dstPort": port})
}

/// Whether `SOURCE > DESTINATION` is about these pods.
fn means(pattern: &str, source: &str, target: &str) -> bool {
    let (from, to) = pattern.split_once(" > ").unwrap();
    let is = |who: &str, name: &str| {
        who == "*"
            || who == name
            || name.strip_prefix(who).is_some_and(|rest| rest.starts_with('/'))
    };
    is(from, source) && is(to, target)
}

fn add(labels: &mut Value, more: Option<&Value>) {
    let more = more.and_then(Value::as_object).cloned().unwrap_or_default();
    labels.as_object_mut().unwrap().extend(more);
}

/// A document from `KIND [NAMESPACE/]NAME [LABEL=VALUE]` and its specification.
fn document(key: &str, spec: &Value) -> Value {
    let words: Vec<_> = key.split(' ').collect();
    let (api_version, kind) = match words[0] {
        "kubernetes" => ("networking.k8s.io/v1", "NetworkPolicy"),
        "cluster" => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        kind @ ("Service" | "ServiceAccount") => ("v1", kind),
        kind => ("projectcalico.org/v3", kind),
    };
    let mut metadata = Map::new();
    let name = match words[1].split_once('/') {
        Some((namespace, name)) => {
            metadata.insert("namespace".to_owned(), json!(namespace));
            name
        }
        None => words[1],
    };
    metadata.insert("name".to_owned(), json!(name));
    if let Some((label, value)) = words.get(2).and_then(|label| label.split_once('=')) {
        metadata.insert("labels".to_owned(), json!({label: value}));
    }
    let mut value = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
    if spec.as_object().is_some_and(|spec| !spec.is_empty()) {
        value["spec"] = spec.clone();
    }
    value
}
