//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::field::{FieldPath, Step};
use crate::v3::Object;

/// A Kubernetes policy of the cluster.
pub type ClusterNetworkPolicy = Object<ClusterNetworkPolicySpec>;

/// A Kubernetes policy of the cluster. A tier or subject that is missing makes the policy void, as
/// Kubernetes says for what an implementation does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    #[serde(default)]
    pub tier: String,
    /// 0–1000, lower first.
    #[serde(default)]
    pub priority: i64,
    /// The pods that the policy applies to.
    #[serde(default)]
    pub subject: Subject,
    /// Rules for packets to the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Rules for packets from the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

// === impl ClusterNetworkPolicySpec ===

impl ClusterNetworkPolicySpec {
    /// Marks the rules in which one of these paths is a field that nobody knows.
    pub(crate) fn mark_unknown(&mut self, unknown: &[FieldPath]) {
        for path in unknown {
            let [Step::Key(spec), Step::Key(list), Step::Index(index), ..] = path.0.as_slice()
            else {
                continue;
            };
            let marked = match (spec.as_str(), list.as_str()) {
                ("spec", "ingress") => self.ingress.get_mut(*index).map(|rule| &mut rule.says_more),
                ("spec", "egress") => self.egress.get_mut(*index).map(|rule| &mut rule.says_more),
                _ => None,
            };
            if let Some(says_more) = marked {
                *says_more = true;
            }
        }
    }
}

/// Pods: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods of namespaces; an empty selector selects all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// The pods.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// A rule for packets to the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IngressRule {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    #[serde(default)]
    pub action: String,
    /// Sources.
    #[serde(default)]
    pub from: Vec<Peer>,
    /// Protocols and destination ports; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ProtocolMatch>,
    /// Whether it has fields that this version does not know: it may mean less than the others say.
    #[serde(skip)]
    pub says_more: bool,
}

/// A rule for packets from the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EgressRule {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    #[serde(default)]
    pub action: String,
    /// Destinations.
    #[serde(default)]
    pub to: Vec<Peer>,
    /// Protocols and destination ports; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ProtocolMatch>,
    /// Whether it has fields that this version does not know: it may mean less than the others say.
    #[serde(skip)]
    pub says_more: bool,
}

/// The other end: exactly one field, of which the last three are for egress only. One without any
/// field stands for a field that this version does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// These nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// These networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// These names, of what is accepted; `*` before a name stands for one or more labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domain_names: Vec<String>,
}

// === impl Peer ===

impl Peer {
    /// Whether it selects pods, which alone have ports with names.
    pub fn has_pods(&self) -> bool {
        self.namespaces.is_some() || self.pods.is_some()
    }
}

/// A protocol and its destination port: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolMatch {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<PortMatch>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<PortMatch>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<PortMatch>,
    /// The port of that name of the destination pod, whatever its protocol.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub destination_named_port: String,
}

/// Conditions of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMatch {
    /// The destination port; missing for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<PortNumbers>,
}

/// A port or a range: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortNumbers {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// A range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// First and last port, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    #[serde(default)]
    pub start: i64,
    /// Last port.
    #[serde(default)]
    pub end: i64,
}
