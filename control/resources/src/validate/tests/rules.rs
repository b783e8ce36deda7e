use serde_json::{Value, json};

use super::{calico, fields, problems};

/// Checks rules in the ingress of a NetworkPolicy; the fields stand below the rule.
fn ingress(rows: &[(Value, &str)]) {
    check("NetworkPolicy", "ingress", rows);
}

fn check(kind: &str, direction: &str, rows: &[(Value, &str)]) {
    for (rule, expected) in rows {
        let mut rule = rule.clone();
        rule.as_object_mut().unwrap().entry("action").or_insert("Allow".into());
        let value = calico(kind, json!({direction: [rule]}));
        let mut expected: Vec<_> =
            expected.split_whitespace().map(|f| format!("spec.{direction}[0].{f}")).collect();
        expected.sort();
        assert_eq!(fields(&value), expected.join(" "), "{rule}\n{:#?}", problems(&value));
    }
}

#[test]
fn ports_need_a_protocol_that_has_them() {
    ingress(&[
        (json!({"protocol": "TCP", "destination": {"ports": [80, "1:2", "http"]}}), ""),
        (json!({"protocol": "UDP", "source": {"notPorts": [80]}}), ""),
        (json!({"protocol": "SCTP", "destination": {"ports": [80]}}), ""),
        (json!({"protocol": "UDPLite", "destination": {"ports": [80]}}), ""),
        (json!({"protocol": 6, "destination": {"ports": [80]}}), ""),
        (json!({"destination": {"ports": ["http", "dns"]}}), ""),
        (json!({"destination": {"ports": ["http", 80]}}), "destination.ports"),
        (json!({"source": {"ports": [80]}}), "source.ports"),
        (
            json!({"protocol": "ICMP", "source": {"notPorts": [1]}, "destination": {"ports": [1]}}),
            "source.notPorts destination.ports",
        ),
        (json!({"protocol": 47, "destination": {"notPorts": ["5:6"]}}), "destination.notPorts"),
    ]);
}

#[test]
fn icmp_has_a_protocol_a_type_and_a_family() {
    ingress(&[
        (json!({"protocol": "ICMP", "icmp": {"type": 8, "code": 0}}), ""),
        (json!({"protocol": "ICMPv6", "icmp": {"type": 128}}), ""),
        (json!({"protocol": 58, "icmp": {}}), ""),
        (json!({"icmp": {"type": 8}}), "icmp"),
        (json!({"protocol": "TCP", "icmp": {"type": 8}}), "icmp"),
        (json!({"protocol": "ICMP", "icmp": {"code": 0}}), "icmp.code"),
        (json!({"protocol": "ICMP", "icmp": {"type": 255}}), "icmp.type"),
        (json!({"protocol": "ICMP", "icmp": {"type": 254, "code": 255}}), ""),
        (
            json!({"protocol": "ICMP", "notICMP": {"type": -1, "code": 256}}),
            "notICMP.code notICMP.type",
        ),
        (json!({"protocol": "ICMP", "ipVersion": 4}), ""),
        (json!({"protocol": "ICMP", "ipVersion": 6}), "ipVersion"),
        (json!({"protocol": "ICMPv6", "ipVersion": 4}), "ipVersion"),
        (json!({"notProtocol": 58, "ipVersion": 4}), "ipVersion"),
        (json!({"protocol": "TCP", "ipVersion": 5}), "ipVersion"),
    ]);
}

#[test]
fn networks_are_canonical_and_of_one_family() {
    ingress(&[
        (json!({"source": {"nets": ["10.0.0.0/8", "0.0.0.0/0"]}}), ""),
        (json!({"source": {"nets": ["fd00::/8"]}, "ipVersion": 6}), ""),
        (json!({"source": {"nets": ["10.0.0.1/8"]}}), "source.nets[0]"),
        (json!({"source": {"nets": ["10.0.0.1"]}}), "source.nets[0]"),
        (json!({"source": {"nets": ["ten"]}}), "source.nets[0]"),
        (json!({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}), "source.nets[1]"),
        (
            json!({"source": {"nets": ["10.0.0.0/8"]}, "destination": {"notNets": ["fd00::/8"]}}),
            "destination.notNets[0]",
        ),
        (json!({"source": {"nets": ["10.0.0.0/8"]}, "ipVersion": 6}), "source.nets[0]"),
        (json!({"source": {"notNets": ["0.0.0.0/0"]}}), "source.notNets[0]"),
        (json!({"destination": {"notNets": ["::/0"]}}), "destination.notNets[0]"),
        (json!({"destination": {"notNets": ["10.0.0.0/8"]}}), ""),
    ]);
    let many: Vec<_> = (0..257).map(|i| format!("10.{}.{}.0/24", i / 256, i % 256)).collect();
    ingress(&[
        (json!({"source": {"nets": many[..256]}}), ""),
        (json!({"source": {"nets": many}}), "source.nets"),
    ]);
    let many: Vec<_> = (1..=51).collect();
    ingress(&[
        (json!({"protocol": "TCP", "destination": {"ports": many[..50]}}), ""),
        (json!({"protocol": "TCP", "destination": {"ports": many}}), "destination.ports"),
    ]);
}

#[test]
fn selectors_are_selectors() {
    let long = format!("has({})", "a".repeat(1_020));
    ingress(&[
        (json!({"source": {"selector": "a == 'b'", "notSelector": "has(c)"}}), ""),
        (json!({"source": {"selector": "a = 'b'"}}), "source.selector"),
        (json!({"source": {"notSelector": "has("}}), "source.notSelector"),
        (json!({"source": {"selector": "global()"}}), "source.selector"),
        (json!({"source": {"selector": "has(a) && !global()"}}), "source.selector"),
        (json!({"source": {"selector": "a == 'global()'"}}), ""),
        (json!({"source": {"namespaceSelector": "global()"}}), ""),
        (json!({"source": {"namespaceSelector": " global( ) "}}), ""),
        (
            json!({"source": {"namespaceSelector": "global() || has(a)"}}),
            "source.namespaceSelector",
        ),
        (
            json!({"source": {"serviceAccounts": {"selector": "a"}}}),
            "source.serviceAccounts.selector",
        ),
        // Too long, and the name of the label is too long as well.
        (json!({"source": {"selector": long}}), "source.selector source.selector"),
    ]);
}

#[test]
fn a_service_stands_alone_on_the_side_of_the_other_end() {
    let service = json!({"name": "a"});
    let elsewhere = json!({"name": "a", "namespace": "b"});
    ingress(&[
        (json!({"source": {"services": service}}), ""),
        (json!({"source": {"services": elsewhere}}), ""),
        (json!({"protocol": "TCP", "source": {"services": service, "ports": [80]}}), ""),
        (json!({"destination": {"services": service}}), "destination.services"),
        (json!({"source": {"services": {}}}), "source.services.name"),
        (json!({"source": {"services": {"name": "A"}}}), "source.services.name"),
        (json!({"source": {"services": service, "selector": "all()"}}), "source.selector"),
        (json!({"source": {"services": service, "notSelector": "has(a)"}}), "source.notSelector"),
        (
            json!({"source": {"services": service, "namespaceSelector": "all()"}}),
            "source.namespaceSelector",
        ),
        (
            json!({"source": {"services": service, "nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"]}}),
            "source.nets source.notNets",
        ),
        (
            json!({"source": {"services": service, "serviceAccounts": {"names": ["a"]}}}),
            "source.serviceAccounts",
        ),
    ]);
    check(
        "NetworkPolicy",
        "egress",
        &[
            (json!({"destination": {"services": service}}), ""),
            (json!({"source": {"services": service}}), "source.services"),
            (
                json!({"protocol": "TCP", "destination": {"services": service, "ports": [80]}}),
                "destination.ports",
            ),
            (
                json!({"protocol": "TCP", "destination": {"services": service, "notPorts": [80]}}),
                "destination.notPorts",
            ),
        ],
    );
    check(
        "GlobalNetworkPolicy",
        "egress",
        &[
            (json!({"destination": {"services": elsewhere}}), ""),
            (json!({"destination": {"services": service}}), "destination.services.namespace"),
        ],
    );
}

#[test]
fn domains_are_for_the_destination_of_egress_rules_that_allow_and_stand_alone() {
    let domains = json!(["example.com", "*.example.com"]);
    check(
        "NetworkPolicy",
        "egress",
        &[
            (json!({"protocol": "TCP", "destination": {"domains": domains, "ports": [443]}}), ""),
            (json!({"source": {"selector": "all()"}, "destination": {"domains": domains}}), ""),
            (json!({"action": "Deny", "destination": {"domains": domains}}), "destination.domains"),
            (json!({"action": "Log", "destination": {"domains": domains}}), "destination.domains"),
            (json!({"source": {"domains": domains}}), "source.domains"),
            (
                json!({"destination": {"domains": ["a.b", "*.*.b", "x*.b", "a/b"]}}),
                "destination.domains[1] destination.domains[2] destination.domains[3]",
            ),
            (
                json!({"destination": {"domains": domains, "nets": ["10.0.0.0/8"],
                    "selector": "all()", "namespaceSelector": "all()"}}),
                "destination.nets destination.selector destination.namespaceSelector",
            ),
        ],
    );
    ingress(&[
        (json!({"destination": {"domains": domains}}), "destination.domains"),
        (json!({"source": {"domains": domains}}), "source.domains"),
    ]);
}

#[test]
fn http_is_for_ingress_rules_that_allow_tcp() {
    let http = json!({"methods": ["GET", "PUT"], "paths": [{"exact": "/a"}, {"prefix": "/b"}]});
    ingress(&[
        (json!({"http": http}), ""),
        (json!({"http": http, "protocol": "TCP"}), ""),
        (json!({"http": http, "protocol": "UDP"}), "http"),
        (json!({"http": http, "action": "Deny"}), "http"),
        (json!({"http": {"methods": ["GET", "GET"]}}), "http.methods"),
        (
            json!({"http": {"paths": [{}, {"exact": "/a", "prefix": "/b"}, {"exact": "a"}, {"prefix": "/a?b"}]}}),
            "http.paths[0] http.paths[1] http.paths[2] http.paths[3]",
        ),
    ]);
    check("NetworkPolicy", "egress", &[(json!({"http": http}), "http")]);
}

#[test]
fn remarks_have_names_like_annotations() {
    ingress(&[
        (json!({"metadata": {"annotations": {"a/b": "c d"}}}), ""),
        (json!({"metadata": {"annotations": {"-": "c"}}}), "metadata.annotations.-"),
    ]);
}

#[test]
fn a_direction_has_at_most_1024_rules() {
    let rules =
        |n: usize| calico("NetworkPolicy", json!({"egress": vec![json!({"action": "Deny"}); n]}));
    assert_eq!(fields(&rules(1024)), "");
    assert_eq!(fields(&rules(1025)), "spec.egress");
}
