//! ClusterNetworkPolicies.

use serde_json::{Value, json};

use super::common::{calico, calico_node, kubernetes_policy};
use super::{Named, named, web};

pub(super) fn states() -> Vec<Named> {
    vec![
        cluster_policy_of_names(),
        cluster_policy_of_the_future(),
        cluster_policy_of_nodes(),
        named(
            "cluster policies around the default tier, closed where they cannot be converted",
            vec![
                web(),
                kubernetes_policy("deny", json!({"podSelector": {}})),
                json!({
                    "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "admin"},
                    "spec": {
                        "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
                        "ingress": [
                            {"action": "Accept", "from": [{"nodes": {}}]},
                            {"action": "Deny", "from": [{"unheard": {}}]},
                            {"action": "Pass", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]},
                        ],
                    },
                }),
                json!({
                    "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "base"},
                    "spec": {
                        "tier": "Baseline", "priority": 5,
                        "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}},
                        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}]}],
                    },
                }),
            ],
            &[
                "endpoint default/web/eth0 10.0.0.1 | kube-admin in[KubernetesClusterNetworkPolicy//admin] out[] | default in[KubernetesNetworkPolicy/default/deny] out[] | kube-baseline in[] out[KubernetesClusterNetworkPolicy//base] | Profile//kns.default Profile//ksa.default.default",
                "policy KubernetesClusterNetworkPolicy//admin",
                "  in deny",
                "  in pass proto 6 from {10.0.0.1/32} to port 80-80",
                "policy KubernetesClusterNetworkPolicy//base",
                "  out deny V4 to 10.0.0.0/8",
                "  out deny V6 to fd00::/8",
                "policy KubernetesNetworkPolicy/default/deny",
            ],
        ),
    ]
}

/// A field that is not known may mean that a rule is about less than the others say.
fn cluster_policy_of_the_future() -> Named {
    let pods = json!([{"namespaces": {}}]);
    let port = json!({"destinationPort": {"number": 80}, "flags": ["SYN"]});
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "future"},
        "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, "since": "tomorrow",
            "egress": [
                {"action": "Accept", "to": pods, "ports": [{"portNumber": {"port": 80}}]},
                {"action": "Accept", "to": pods, "protocols": [{"tcp": port}]},
                {"action": "Accept", "to": [{"namespaces": {}, "except": {}}]},
                {"action": "Accept", "to": pods, "protocols": [{"tcp": {}}]},
                {"action": "Deny", "to": pods, "when": "night"},
            ],
        },
    });
    named(
        "a cluster policy with fields that are not known",
        vec![web(), policy],
        &[
            "endpoint default/web/eth0 10.0.0.1 | kube-admin in[] out[KubernetesClusterNetworkPolicy//future] | Profile//kns.default Profile//ksa.default.default",
            "policy KubernetesClusterNetworkPolicy//future",
            "  out allow proto 6 to learned {10.0.0.1/32}",
            "  out deny",
        ],
    )
}

/// Nodes are found by their labels, and by nothing else: they are no endpoints. Of two views of one
/// node Kubernetes' labels count. As a peer of ingress they are closed.
fn cluster_policy_of_nodes() -> Named {
    let node = |name: &str, labels: Value, addresses: &[&str]| {
        let addresses = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a}));
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "status": {"addresses": addresses.collect::<Vec<_>>()}})
    };
    let nodes = |labels: Value| json!([{"nodes": {"matchLabels": labels}}]);
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "nodes"},
        "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "egress": [
                {"action": "Accept", "to": nodes(json!({"role": "cp"})),
                    "protocols": [{"tcp": {"destinationPort": {"number": 6443}}}]},
                {"action": "Pass", "to": nodes(json!({"role": "none"}))},
                {"action": "Deny", "to": nodes(json!({}))},
            ],
            "ingress": [{"action": "Deny", "from": nodes(json!({"role": "cp"}))}],
        },
    });
    let everybody = calico(
        "GlobalNetworkPolicy",
        "",
        "all",
        json!({"selector": "all()", "types": ["Egress"],
            "egress": [{"action": "Allow", "destination": {"selector": "!has(other)"}}]}),
    );
    named(
        "nodes in a cluster policy",
        vec![
            web(),
            node("m", json!({"role": "cp"}), &["192.0.2.1", "2001:db8::1"]),
            node("n", json!({"role": "worker"}), &["192.0.2.2"]),
            calico_node("m", "192.0.2.9/24"),
            policy,
            everybody,
        ],
        &[
            "endpoint default/web/eth0 10.0.0.1 | kube-admin in[KubernetesClusterNetworkPolicy//nodes] out[KubernetesClusterNetworkPolicy//nodes] | default in[] out[GlobalNetworkPolicy//all] | Profile//kns.default Profile//ksa.default.default",
            "policy GlobalNetworkPolicy//all",
            "  out allow to learned {10.0.0.1/32}",
            "policy KubernetesClusterNetworkPolicy//nodes",
            "  in deny",
            "  out allow proto 6 to learned {192.0.2.1/32 192.0.2.9/32 2001:db8::1/128} to port 6443-6443",
            "  out pass to {}",
            "  out deny to {192.0.2.1/32 192.0.2.2/32 192.0.2.9/32 2001:db8::1/128}",
        ],
    )
}

/// Names are accepted; what is none of the API's names, beside named ports or denied, is closed.
fn cluster_policy_of_names() -> Named {
    let names = |names: &[&str]| json!([{"domainNames": names}]);
    let port = json!([{"tcp": {"destinationPort": {"number": 443}}}]);
    let mut egress: Vec<_> = ["example", "a.*.example", "*", "x.-y.example", "*.example"]
        .into_iter()
        .map(|wrong| json!({"action": "Accept", "to": names(&["good.example", wrong])}))
        .collect();
    egress.extend([
        json!({"action": "Accept", "to": names(&["Www.example.", "*.a.example"]), "protocols": port}),
        json!({"action": "Accept", "to": names(&["b.example"]), "protocols": [{"destinationNamedPort": "web"}]}),
        json!({"action": "Accept", "to": [{"domainNames": ["b.example"], "networks": ["10.0.0.0/8"]}]}),
        json!({"action": "Pass", "to": names(&["b.example"])}),
    ]);
    let ingress = json!([{"action": "Accept", "from": names(&["b.example"])}]);
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "names"},
        "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "egress": egress, "ingress": ingress,
        },
    });
    named(
        "names in a cluster policy",
        vec![web(), policy],
        &[
            "endpoint default/web/eth0 10.0.0.1 | kube-admin in[KubernetesClusterNetworkPolicy//names] out[KubernetesClusterNetworkPolicy//names] | Profile//kns.default Profile//ksa.default.default",
            "policy KubernetesClusterNetworkPolicy//names",
            "  out allow proto 6 to learned {*.a.example www.example} to port 443-443",
            "  out deny",
        ],
    )
}
