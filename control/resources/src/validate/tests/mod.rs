//! Tables: an object, and the fields that are wrong with it, in any order; none for a good one.

mod policies;
mod rules;
mod kubernetes;
mod infrastructure;
mod machines;

use serde_json::{Value, json};

use crate::field::Problem;
use crate::resource::Resource;

pub(super) fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(super) fn calico(kind: &str, spec: Value) -> Value {
    let name = match kind {
        "IPAMConfiguration" | "BGPConfiguration" | "KubeControllersConfiguration" => "default",
        _ => "x",
    };
    object("projectcalico.org/v3", kind, name, spec)
}

/// What is wrong with an object.
pub(super) fn problems(value: &Value) -> Vec<Problem> {
    Resource::check(value).map_or_else(|error| error.problems, |_| Vec::new())
}

/// The fields that are wrong, sorted, with blanks between them.
pub(super) fn fields(value: &Value) -> String {
    let mut fields: Vec<_> = problems(value).iter().map(|p| p.field.to_string()).collect();
    fields.sort();
    fields.join(" ")
}

/// Checks a table of specifications of one kind; the fields stand below `spec.`.
pub(super) fn table(kind: &str, rows: &[(Value, &str)]) {
    for (spec, expected) in rows {
        let value = calico(kind, spec.clone());
        let mut expected: Vec<_> =
            expected.split_whitespace().map(|f| format!("spec.{f}")).collect();
        expected.sort();
        assert_eq!(fields(&value), expected.join(" "), "{kind} {spec}\n{:#?}", problems(&value));
    }
}

#[test]
fn every_message_is_a_sentence_that_says_what_to_do() {
    let value = calico(
        "NetworkPolicy",
        json!({"ingress": [{
            "action": "Allow", "source": {"nets": ["10.0.0.1/8"], "ports": [80]},
        }]}),
    );
    let texts: Vec<_> = problems(&value).iter().map(ToString::to_string).collect();
    let expected = [
        "spec.ingress[0].source.nets[0]: 10.0.0.1/8 has bits beyond its length; write 10.0.0.0/8",
        "spec.ingress[0].source.ports: needs protocol TCP, UDP, SCTP or UDPLite in the rule",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn names_fit_their_kind() {
    let long = "a".repeat(64);
    let rows = [
        ("projectcalico.org/v3", "NetworkPolicy", "default.web", true),
        ("projectcalico.org/v3", "NetworkPolicy", "knp.default.a.b", true),
        ("projectcalico.org/v3", "NetworkPolicy", "Web", false),
        ("projectcalico.org/v3", "NetworkPolicy", "a_b", false),
        ("projectcalico.org/v3", "GlobalNetworkSet", "a..b", false),
        ("projectcalico.org/v3", "Tier", "a.b", false),
        ("projectcalico.org/v3", "Tier", long.as_str(), false),
        ("projectcalico.org/v3", "Profile", "kns.default", true),
        ("projectcalico.org/v3", "ClusterInformation", "default", true),
        ("projectcalico.org/v3", "ClusterInformation", "other", false),
        ("projectcalico.org/v3", "BGPConfiguration", "node.a", true),
        ("projectcalico.org/v3", "BGPConfiguration", "a", false),
        ("v1", "Namespace", "a.b", false),
        ("v1", "Service", long.as_str(), false),
        ("v1", "Pod", "a.b", true),
        ("v1", "Pod", "", false),
    ];
    for (api_version, kind, name, good) in rows {
        let found = fields(&object(api_version, kind, name, json!({})));
        assert_eq!(found, if good { "" } else { "metadata.name" }, "{kind} {name}");
    }
}

#[test]
fn namespaces_labels_and_annotations_are_checked() {
    let of = |kind: &str, metadata: Value| {
        fields(&json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata}))
    };
    let labels = json!({"a/b": "c", "a b": "", "c": "d/e", "projectcalico.org/namespace": "x"});
    assert_eq!(
        of("NetworkSet", json!({"name": "x", "labels": labels})),
        "metadata.labels.c metadata.labels[\"a b\"] \
         metadata.labels[\"projectcalico.org/namespace\"]"
    );
    assert_eq!(of("NetworkSet", json!({"name": "x", "namespace": "A"})), "metadata.namespace");
    assert_eq!(
        of("GlobalNetworkSet", json!({"name": "x", "namespace": "a"})),
        "metadata.namespace"
    );
    let annotations = json!({"Upper.io/x": "any text", "a b": ""});
    assert_eq!(
        of("NetworkSet", json!({"name": "x", "annotations": annotations})),
        "metadata.annotations[\"a b\"]"
    );
    let big = json!({"a": "x".repeat(256 << 10)});
    assert_eq!(of("NetworkSet", json!({"name": "x", "annotations": big})), "metadata.annotations");
}
