//! Domain names in Calico's policies and network sets.

use serde_json::{Value, json};

use super::common::calico;
use super::{Named, named, web};

/// Domain names count in egress rules that allow, and nowhere else.
pub(super) fn states() -> Vec<Named> {
    let set = |name: &str, domains: Value| {
        let spec = json!({"nets": ["192.0.2.0/24"], "allowedEgressDomains": domains});
        let mut value = calico("NetworkSet", "default", name, spec);
        value["metadata"]["labels"] = json!({"role": "out"});
        value
    };
    let selected = json!({"selector": "role == 'out'"});
    let policy = calico(
        "NetworkPolicy",
        "default",
        "p",
        json!({
            "selector": "app == 'web'",
            "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Allow", "source": selected}],
            "egress": [
                {"action": "Deny", "destination": selected},
                {"action": "Allow", "destination": selected},
                {"action": "Allow", "protocol": "TCP",
                    "destination": {"domains": ["B.example", "*.a.example."], "ports": [443]}},
            ],
        }),
    );
    let one = set("one", json!(["example.com", "*.Example.org"]));
    let two = set("two", json!(["example.com"]));
    vec![
        named(
            "domains of a rule and of two sets",
            vec![web(), policy.clone(), one, two.clone()],
            &[
                "endpoint default/web/eth0 10.0.0.1 | default in[NetworkPolicy/default/p] out[NetworkPolicy/default/p] | Profile//kns.default Profile//ksa.default.default",
                "policy NetworkPolicy/default/p",
                "  in allow from {192.0.2.0/24 *.example.org example.com}",
                "  out deny to {192.0.2.0/24 *.example.org example.com}",
                "  out allow to learned {192.0.2.0/24 *.example.org example.com}",
                "  out allow proto 6 to learned {*.a.example b.example} to port 443-443",
            ],
        ),
        named(
            "domains of a rule and of one set",
            vec![web(), policy, two],
            &[
                "endpoint default/web/eth0 10.0.0.1 | default in[NetworkPolicy/default/p] out[NetworkPolicy/default/p] | Profile//kns.default Profile//ksa.default.default",
                "policy NetworkPolicy/default/p",
                "  in allow from {192.0.2.0/24 example.com}",
                "  out deny to {192.0.2.0/24 example.com}",
                "  out allow to learned {192.0.2.0/24 example.com}",
                "  out allow proto 6 to learned {*.a.example b.example} to port 443-443",
            ],
        ),
    ]
}
