//! Services, and policies about them.

use serde_json::json;

use super::common::{calico, service};
use super::{Named, OTHER, WEB, db, named, other, web};

pub(super) fn states() -> Vec<Named> {
    let spec = json!({
        "clusterIP": "10.96.0.1", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "web"}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"port": 9090}],
        "endpoints": [
            {"addresses": ["10.9.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.9.0.2"], "conditions": {"ready": false}},
        ],
    });
    let of_db = |name: &str, direction: &str, side: &str| {
        let rule = json!({"action": "Allow", side: {"services": {"name": "s"}}});
        let mut spec = json!({"types": [direction], "selector": "app == 'db'"});
        spec[direction.to_lowercase()] = json!([rule]);
        calico("NetworkPolicy", "default", name, spec)
    };
    let egress = of_db("to-service", "Egress", "destination");
    let no_port = json!({
        "clusterIP": "None", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "nowhere"}],
    });
    let ingress = of_db("from-service", "Ingress", "source");
    vec![
        named(
            "a service of pods",
            vec![web(), db(), other(), service("s", spec.clone()), egress.clone()],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[] out[NetworkPolicy/default/to-service] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                OTHER,
                "policy NetworkPolicy/default/to-service",
                "  out allow to service {10.0.0.1:8080/6}",
                "service default/s:80/TCP/IPv4 [10.96.0.1] cluster[10.0.0.1:8080] local[]",
            ],
        ),
        named(
            "a service of slices",
            vec![web(), db(), service("s", spec), slice, egress],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[] out[NetworkPolicy/default/to-service] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                "policy NetworkPolicy/default/to-service",
                "  out allow to service {10.9.0.1:9090/6 10.9.0.2:9090/6}",
                "service default/s:80/TCP/IPv4 [10.96.0.1] cluster[10.9.0.1:9090] local[]",
            ],
        ),
        named(
            "endpoints that lack the service's port are sources all the same",
            vec![web(), db(), other(), service("s", no_port), ingress],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[NetworkPolicy/default/from-service] out[] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                OTHER,
                "policy NetworkPolicy/default/from-service",
                "  in allow from {10.0.0.1/32}",
            ],
        ),
    ]
}
