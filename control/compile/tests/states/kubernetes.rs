//! Kubernetes' NetworkPolicies.

use serde_json::{Value, json};

use super::common::{kubernetes_policy, namespace};
use super::{Named, OTHER, WEB, db, named, other, web};

pub(super) fn states() -> Vec<Named> {
    let to_db = |spec: Value| {
        let mut whole = json!({"podSelector": {"matchLabels": {"app": "db"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        kubernetes_policy("db", whole)
    };
    vec![
        named(
            "default deny ingress",
            vec![web(), other(), kubernetes_policy("deny", json!({"podSelector": {}}))],
            &[
                "endpoint default/web/eth0 10.0.0.1 | default in[KubernetesNetworkPolicy/default/deny] out[] | Profile//kns.default Profile//ksa.default.default",
                OTHER,
                "policy KubernetesNetworkPolicy/default/deny",
            ],
        ),
        named(
            "pods and namespaces, by label and by expression",
            vec![
                web(),
                db(),
                other(),
                namespace("other", json!({"team": "x"})),
                to_db(json!({"ingress": [{
                    "from": [
                        {"podSelector": {"matchLabels": {"app": "web"}}},
                        {"namespaceSelector": {"matchExpressions": [
                            {"key": "team", "operator": "In", "values": ["x", "y"]},
                            {"key": "gone", "operator": "DoesNotExist"},
                        ]}},
                        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}},
                    ],
                }]})),
            ],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[KubernetesNetworkPolicy/default/db] out[] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                OTHER,
                "policy KubernetesNetworkPolicy/default/db",
                "  in allow from {10.0.0.1/32}",
                "  in allow from {10.0.0.3/32}",
                "  in allow from {10.0.0.2/32}",
            ],
        ),
        named(
            "ipBlock with except, and ports of several kinds",
            vec![
                db(),
                to_db(json!({
                    "policyTypes": ["Egress"],
                    "egress": [{
                        "to": [{"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.9.0/24"]}}],
                        "ports": [
                            {"port": 80},
                            {"port": 8000, "endPort": 8080},
                            {"port": "web"},
                            {"protocol": "SCTP"},
                            {"protocol": "UDP", "port": "dns"},
                        ],
                    }],
                })),
            ],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[] out[KubernetesNetworkPolicy/default/db] | Profile//kns.default Profile//ksa.default.default",
                "policy KubernetesNetworkPolicy/default/db",
                "  out allow V4 proto 6 to 192.168.0.0/16 to not 192.168.9.0/24 to port 80-80,8000-8080 to port {10.0.0.2:8080/6}",
                "  out allow V4 proto 17 to 192.168.0.0/16 to not 192.168.9.0/24 to port {10.0.0.2:53/17}",
                "  out allow V4 proto 132 to 192.168.0.0/16 to not 192.168.9.0/24",
            ],
        ),
    ]
}
