use serde_json::json;

use super::{calico, fields, object, table};

#[test]
fn policies_name_each_type_once_and_a_tier() {
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy"] {
        table(
            kind,
            &[
                (json!({"types": ["Ingress", "Egress"], "tier": "a", "order": -1.5}), ""),
                (json!({"types": ["Ingress", "Ingress"]}), "types"),
                (json!({"types": ["ingress"]}), "types[0]"),
                (json!({"tier": "A"}), "tier"),
                (json!({"tier": "a.b"}), "tier"),
                (json!({"selector": "a =="}), "selector"),
                (json!({"selector": "global()"}), "selector"),
                (json!({"serviceAccountSelector": "global() && has(a)"}), "serviceAccountSelector"),
                (json!({"performanceHints": ["AssumeNeededOnEveryNode"]}), ""),
                (json!({"performanceHints": ["Faster"]}), "performanceHints[0]"),
            ],
        );
    }
}

#[test]
fn only_global_policies_have_the_fields_of_hosts() {
    let spec = json!({
        "doNotTrack": true, "applyOnForward": true, "preDNAT": true, "namespaceSelector": "has(a)",
        "stagedAction": "Set",
    });
    table(
        "NetworkPolicy",
        &[(spec, "applyOnForward doNotTrack namespaceSelector preDNAT stagedAction")],
    );
    table(
        "GlobalNetworkPolicy",
        &[
            (json!({"doNotTrack": true, "applyOnForward": true}), ""),
            (json!({"preDNAT": true, "applyOnForward": true, "ingress": [{"action": "Deny"}]}), ""),
            (json!({"preDNAT": true, "doNotTrack": true, "applyOnForward": true}), "preDNAT"),
            (json!({"preDNAT": true}), "applyOnForward"),
            (json!({"doNotTrack": true}), "applyOnForward"),
            (
                json!({"preDNAT": true, "applyOnForward": true, "types": ["Ingress"],
                "egress": [{"action": "Allow"}]}),
                "egress",
            ),
            (json!({"preDNAT": true, "applyOnForward": true, "types": ["Egress"]}), "types"),
            (json!({"namespaceSelector": "global()"}), "namespaceSelector"),
            (json!({"namespaceSelector": "kubernetes.io/metadata.name == 'a'"}), ""),
        ],
    );
}

#[test]
fn a_staged_deletion_has_nothing_else() {
    for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
        table(kind, &[(json!({"stagedAction": "Delete", "tier": "a"}), "")]);
        let value = calico(kind, json!({"stagedAction": "Delete", "order": 5}));
        assert_eq!(fields(&value), "spec");
    }
    let value = calico(
        "StagedKubernetesNetworkPolicy",
        json!({"stagedAction": "Delete", "podSelector": {}}),
    );
    assert_eq!(fields(&value), "spec");
    table(
        "StagedKubernetesNetworkPolicy",
        &[
            (json!({"stagedAction": "Delete"}), ""),
            (json!({"ingress": [{"from": [{}]}]}), "ingress[0].from[0]"),
            (json!({"stagedAction": "Maybe"}), "stagedAction"),
        ],
    );
}

#[test]
fn a_profile_has_rules_and_labels() {
    table(
        "Profile",
        &[
            (json!({"ingress": [{"action": "Allow"}], "labelsToApply": {"pcns.a": "b"}}), ""),
            (json!({"egress": [{"action": "Allow", "ipVersion": 5}]}), "egress[0].ipVersion"),
            (json!({"labelsToApply": {"a": "b c"}}), "labelsToApply.a"),
        ],
    );
}

#[test]
fn the_built_in_tiers_stay_where_they_are() {
    let tier = |name: &str, spec| fields(&object("projectcalico.org/v3", "Tier", name, spec));
    assert_eq!(tier("default", json!({})), "");
    assert_eq!(tier("default", json!({"order": 1_000_000, "defaultAction": "Deny"})), "");
    assert_eq!(tier("default", json!({"order": 5})), "spec.order");
    assert_eq!(tier("default", json!({"defaultAction": "Pass"})), "spec.defaultAction");
    assert_eq!(tier("kube-admin", json!({"order": 1000})), "");
    assert_eq!(
        tier("kube-admin", json!({"order": 1001, "defaultAction": "Deny"})),
        "spec.defaultAction spec.order"
    );
    assert_eq!(tier("kube-baseline", json!({"order": 10_000_000})), "");
    assert_eq!(tier("mine", json!({"order": 1.5, "defaultAction": "Pass"})), "");
    assert_eq!(tier("mine", json!({"defaultAction": "Allow"})), "spec.defaultAction");
}
