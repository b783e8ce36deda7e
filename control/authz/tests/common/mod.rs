//! A node with a workload, its clients, and the questions of its proxy.

#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use margay_authz::proto::attribute_context::{HttpRequest, Peer, Request};
use margay_authz::proto::{Address, AttributeContext, CheckRequest, SocketAddress};
use margay_authz::{Authorizer, Law, Ruling, Scribe};
use margay_compile::{Compiler, Connections, NodeConfig, NodePorts, ResourceChange, Scope};
use margay_resources::Resource;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The workload behind the proxy: pod `web` of namespace `shop`.
pub(crate) const WEB: &str = "10.0.0.2";
/// Pod `till` of namespace `shop`, service account `till`.
pub(crate) const TILL: &str = "10.0.0.3";
/// Pod `till` of namespace `yard`, service account `till`.
pub(crate) const YARD: &str = "10.0.0.4";

/// A compiler and all that hangs on it.
pub(crate) struct Node {
    compiler: Compiler,
    scribe: Scribe,
    pub(crate) law: watch::Receiver<Option<Arc<Law>>>,
    pub(crate) authorizer: Authorizer,
}

/// A question in the making.
#[derive(Clone)]
pub(crate) struct Asking(pub(crate) AttributeContext);

// === impl Node ===

impl Node {
    /// A node that has read nothing.
    pub(crate) fn unread() -> Self {
        let compiler = Compiler::new(Scope::Node(NodeConfig {
            name: "n1".into(),
            v4: None,
            v6: None,
            mtu: 1500,
            node_ports: NodePorts::All,
            connections: Connections::default(),
        }));
        let (scribe, law) = Scribe::new();
        let authorizer = Authorizer::new(law.clone());
        Self { compiler, scribe, law, authorizer }
    }

    /// A node with its workloads and these policies.
    pub(crate) fn with(policies: impl IntoIterator<Item = Value>) -> Self {
        let mut node = Self::unread();
        for (namespace, pod, ip, at) in
            [("shop", "web", WEB, "n1"), ("shop", "till", TILL, "n2"), ("yard", "till", YARD, "n2")]
        {
            node.take(&workload(namespace, pod, ip, at));
            node.take(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": pod, "labels": {"app": pod}},
                "spec": {"nodeName": at, "serviceAccountName": pod, "containers": []},
            }));
        }
        policies.into_iter().for_each(|policy| node.take(&policy));
        node.flush();
        node
    }

    fn take(&mut self, value: &Value) {
        let resource = Resource::check(value).unwrap_or_else(|e| panic!("{e}: {value}")).resource;
        self.compiler.apply(ResourceChange::Upsert(Box::new(resource))).unwrap();
    }

    fn flush(&mut self) -> usize {
        let updates = self.compiler.flush();
        self.scribe.note(&updates, &self.compiler);
        updates.len()
    }

    /// Puts a change in force; tells how much of it the dataplane sees.
    pub(crate) fn change(&mut self, value: &Value) -> usize {
        self.take(value);
        self.flush()
    }

    pub(crate) fn delete(&mut self, value: &Value) {
        let resource = Resource::check(value).unwrap().resource;
        let (kind, namespace, name) =
            (resource.kind(), resource.namespace().into(), resource.name().into());
        self.compiler.apply(ResourceChange::Delete { kind, namespace, name }).unwrap();
        self.flush();
    }

    pub(crate) fn ask(&self, asking: Asking) -> Ruling {
        self.authorizer.rule(asking.request())
    }

    pub(crate) fn allows(&self, asking: Asking) -> bool {
        self.ask(asking).allowed()
    }
}

// === impl Asking ===

impl Asking {
    /// From `src`, in plain text, to port 80 of the workload.
    pub(crate) fn from(src: &str) -> Self {
        let source = Some(peer(src, 40_000));
        Self(AttributeContext { source, destination: Some(peer(WEB, 80)), request: None })
    }

    pub(crate) fn to(mut self, dst: &str, port: u32) -> Self {
        self.0.destination = Some(peer(dst, port));
        self
    }

    pub(crate) fn http(mut self, method: &str, path: &str) -> Self {
        let http = HttpRequest { method: method.into(), path: path.into() };
        self.0.request = Some(Request { http: Some(http) });
        self
    }

    /// Proven by a certificate.
    pub(crate) fn proven(mut self, principal: &str) -> Self {
        self.0.source.get_or_insert_default().principal = principal.into();
        self
    }

    pub(crate) fn account(self, namespace: &str, name: &str) -> Self {
        self.proven(&format!("spiffe://cluster.local/ns/{namespace}/sa/{name}"))
    }

    pub(crate) fn server(mut self, namespace: &str, name: &str) -> Self {
        let principal = format!("spiffe://cluster.local/ns/{namespace}/sa/{name}");
        self.0.destination.get_or_insert_default().principal = principal;
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        let source = self.0.source.get_or_insert_default();
        source.labels.insert(key.into(), value.into());
        self
    }

    pub(crate) fn request(self) -> CheckRequest {
        CheckRequest { attributes: Some(self.0) }
    }
}

fn peer(address: &str, port: u32) -> Peer {
    let address = SocketAddress { address: address.into(), port_value: port, protocol: 0 };
    let address = Some(Address { socket_address: Some(address) });
    Peer { address, ..Peer::default() }
}

/// A policy of namespace `shop` for the workload, with these ingress rules.
pub(crate) fn policy(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"selector": "app == 'web'", "ingress": rules},
    })
}

/// A policy of the cluster for the workload, with these ingress rules.
pub(crate) fn global(rules: Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "web"}, "spec": {"selector": "app == 'web'", "ingress": rules},
    })
}

pub(crate) fn labelled(kind: &str, namespace: Option<&str>, name: &str, labels: Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels},
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

pub(crate) fn workload(namespace: &str, pod: &str, ip: &str, node: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"namespace": namespace, "name": format!("{node}-k8s-{pod}-eth0")},
        "spec": {
            "orchestrator": "k8s", "node": node, "pod": pod, "endpoint": "eth0",
            "interfaceName": format!("cali{namespace}{pod}"), "mac": "02:00:00:00:00:01",
            "ipNetworks": [format!("{ip}/32")],
        },
    })
}
