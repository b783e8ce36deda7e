use serde_json::{Value, json};

use super::{object, problems};

fn table(api_version: &str, kind: &str, rows: &[(Value, &str)]) {
    for (rest, expected) in rows {
        let mut value = object(api_version, kind, "x", json!({}));
        value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let found = super::fields(&value);
        let mut expected: Vec<_> = expected.split_whitespace().collect();
        expected.sort();
        assert_eq!(found, expected.join(" "), "{kind} {rest}\n{:#?}", problems(&value));
    }
}

fn policies(rows: &[(Value, &str)]) {
    let rows: Vec<_> = rows.iter().map(|(spec, fields)| (json!({"spec": spec}), *fields)).collect();
    table("networking.k8s.io/v1", "NetworkPolicy", &rows);
}

fn from(peer: Value) -> Value {
    json!({"podSelector": {}, "ingress": [{"from": [peer]}]})
}

fn ports(port: Value) -> Value {
    json!({"podSelector": {}, "egress": [{"ports": [port]}]})
}

#[test]
fn a_peer_is_a_block_or_pods() {
    policies(&[
        (from(json!({"podSelector": {}})), ""),
        (from(json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}})), ""),
        (from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})), ""),
        (from(json!({"ipBlock": {"cidr": "10.0.0.5/8"}})), ""),
        (from(json!({})), "spec.ingress[0].from[0]"),
        (
            from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            "spec.ingress[0].from[0].ipBlock",
        ),
        (from(json!({"ipBlock": {"cidr": "10.0.0.0"}})), "spec.ingress[0].from[0].ipBlock.cidr"),
        (from(json!({"ipBlock": {}})), "spec.ingress[0].from[0].ipBlock.cidr"),
        (
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except":
                ["10.0.0.0/8", "11.0.0.0/16", "x", "fd00::/64", "10.0.0.0/7"]}})),
            "spec.ingress[0].from[0].ipBlock.except[0] spec.ingress[0].from[0].ipBlock.except[1] \
             spec.ingress[0].from[0].ipBlock.except[2] spec.ingress[0].from[0].ipBlock.except[3] \
             spec.ingress[0].from[0].ipBlock.except[4]",
        ),
    ]);
}

#[test]
fn a_range_of_ports_begins_with_a_number() {
    let at = "spec.egress[0].ports[0]";
    let rows = [
        (json!({"port": 80}), ""),
        (json!({"protocol": "SCTP"}), ""),
        (json!({"port": "http"}), ""),
        (json!({"port": 80, "endPort": 80}), ""),
        (json!({"port": 80, "endPort": 90}), ""),
        (json!({"port": 80, "endPort": 79}), "endPort"),
        (json!({"port": 80, "endPort": 70_000}), "endPort"),
        (json!({"port": "http", "endPort": 90}), "endPort"),
        (json!({"endPort": 90}), "endPort"),
        (json!({"port": 0}), "port"),
        (json!({"port": 65_536}), "port"),
        (json!({"port": "80"}), "port"),
        (json!({"port": "HTTP"}), "port"),
        (json!({"protocol": "tcp"}), "protocol"),
        (json!({"protocol": "ICMP", "port": -1}), "protocol port"),
    ];
    for (port, expected) in rows {
        let expected: Vec<_> = expected.split_whitespace().map(|f| format!("{at}.{f}")).collect();
        policies(&[(ports(port), &expected.join(" "))]);
    }
}

#[test]
fn selectors_and_types_are_those_of_kubernetes() {
    let terms = |terms: Value| json!({"podSelector": {"matchExpressions": terms}});
    let at = "spec.podSelector.matchExpressions[0]";
    policies(&[
        (json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}), ""),
        (json!({}), ""),
        (json!({"podSelector": {}, "policyTypes": ["Both"]}), "spec.policyTypes[0]"),
        (json!({"podSelector": {"matchLabels": {"a": "b c"}}}), "spec.podSelector.matchLabels.a"),
        (terms(json!([{"key": "a", "operator": "In", "values": ["b"]}])), ""),
        (terms(json!([{"key": "a", "operator": "DoesNotExist"}])), ""),
        (terms(json!([{"key": "a", "operator": "In"}])), &format!("{at}.values")),
        (terms(json!([{"key": "a", "operator": "NotIn", "values": []}])), &format!("{at}.values")),
        (
            terms(json!([{"key": "a", "operator": "Exists", "values": ["b"]}])),
            &format!("{at}.values"),
        ),
        (
            terms(json!([{"key": "a", "operator": "Gt", "values": ["1"]}])),
            &format!("{at}.operator"),
        ),
        (terms(json!([{"key": "a b", "operator": "Exists"}])), &format!("{at}.key")),
        (
            terms(json!([{"key": "a", "operator": "In", "values": ["/"]}])),
            &format!("{at}.values[0]"),
        ),
    ]);
}

#[test]
fn a_rule_of_a_cluster_policy_that_cannot_be_converted_does_not_make_it_bad() {
    let spec = |rest: Value| {
        let mut spec = json!({"tier": "Admin", "priority": 5, "subject": {"namespaces": {}}});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({"spec": spec})
    };
    table(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        &[
            (spec(json!({})), ""),
            (spec(json!({"subject": {"pods": {"podSelector": {}}}, "tier": "Baseline"})), ""),
            (
                spec(
                    json!({"egress": [{"action": "Perhaps", "to": [{"networks": ["x"]}, {"new": 1}, {}],
                "protocols": [{"tcp": {"destinationPort": {"number": 99_999}}}]}]}),
                ),
                "",
            ),
            (spec(json!({"tier": "Middle"})), "spec.tier"),
            (spec(json!({"priority": 1001})), "spec.priority"),
            (spec(json!({"subject": {}})), "spec.subject"),
            // Without it the policy would be for others.
            (
                spec(json!({"subject": {"namespaces": {"labels": {"a": "b"}}}})),
                "spec.subject.namespaces.labels",
            ),
            (spec(json!({"since": "tomorrow"})), ""),
            (spec(json!({"subject": {"namespaces": {}, "pods": {}}})), "spec.subject"),
        ],
    );
}

#[test]
fn services_have_addresses_and_ports() {
    table(
        "v1",
        "Service",
        &[
            (
                json!({"spec": {"clusterIP": "None", "ports": [{"port": 80, "targetPort": "http"}]}}),
                "",
            ),
            (json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}), ""),
            (json!({"spec": {"type": "Cluster"}}), "spec.type"),
            (
                json!({"spec": {"clusterIP": "x", "clusterIPs": ["10.0.0.1", "y"]}}),
                "spec.clusterIP spec.clusterIPs[1]",
            ),
            (json!({"spec": {"externalIPs": ["10.0.0.0/8"]}}), "spec.externalIPs[0]"),
            (
                json!({"spec": {"loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.1"]}}),
                "spec.loadBalancerSourceRanges[1]",
            ),
            (
                json!({"spec": {"ports": [{"port": 0, "nodePort": 70_000, "protocol": "ICMP"}]}}),
                "spec.ports[0].nodePort spec.ports[0].port spec.ports[0].protocol",
            ),
            (
                json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}]}}),
                "spec.ports[1].name",
            ),
            (
                json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}}),
                "spec.ports",
            ),
            (
                json!({"spec": {"externalTrafficPolicy": "Node", "internalTrafficPolicy": "Local"}}),
                "spec.externalTrafficPolicy",
            ),
        ],
    );
    table(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        &[
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
                "",
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]}),
                "endpoints[0].addresses[0]",
            ),
            (
                json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1", "x"]}]}),
                "endpoints[0].addresses[1]",
            ),
            (json!({"endpoints": []}), "addressType"),
            (json!({"addressType": "IPv5"}), "addressType"),
            (json!({"addressType": "IPv4", "ports": [{"port": 0}]}), "ports[0].port"),
        ],
    );
    table(
        "networking.k8s.io/v1",
        "ServiceCIDR",
        &[
            (json!({"spec": {"cidrs": ["10.96.0.0/12", "fd00::/112"]}}), ""),
            (json!({"spec": {"cidrs": []}}), "spec.cidrs"),
            (json!({"spec": {"cidrs": ["10.96.0.0"]}}), "spec.cidrs[0]"),
        ],
    );
}

#[test]
fn pods_and_nodes_have_addresses() {
    table(
        "v1",
        "Pod",
        &[
            (
                json!({"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
                "",
            ),
            (
                json!({"status": {"podIP": "x", "podIPs": [{"ip": "10.0.0.0/8"}]}}),
                "status.podIP status.podIPs[0].ip",
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 0, "protocol": "IP"}]}]}}),
                "spec.containers[0].ports[0].containerPort spec.containers[0].ports[0].protocol",
            ),
        ],
    );
    table(
        "v1",
        "Node",
        &[
            (json!({"status": {"addresses": [{"type": "Hostname", "address": "a"}]}}), ""),
            (
                json!({"status": {"addresses": [{"type": "InternalIP", "address": "a"}]}}),
                "status.addresses[0].address",
            ),
        ],
    );
}
