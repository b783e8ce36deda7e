//! Policies, staged policies and profiles.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicySpec as KubernetesPolicySpec;
use serde::{Deserialize, Serialize};

use super::object::{Object, is_default};
use super::rule::Rule;

/// A policy of one namespace.
pub type NetworkPolicy = Object<PolicySpec>;
/// A policy of the cluster.
pub type GlobalNetworkPolicy = Object<PolicySpec>;
/// A policy of one namespace that is not in force.
pub type StagedNetworkPolicy = Object<PolicySpec>;
/// A policy of the cluster that is not in force.
pub type StagedGlobalNetworkPolicy = Object<PolicySpec>;
/// A Kubernetes policy that is not in force.
pub type StagedKubernetesNetworkPolicy = Object<StagedKubernetesPolicySpec>;
/// Rules that apply after all tiers, and labels, for the endpoints that list the profile.
pub type Profile = Object<ProfileSpec>;

/// A direction that a policy polices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyType {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// What a staged policy would do to the policy of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StagedAction {
    /// Create or replace it.
    Set,
    /// Delete it.
    Delete,
    /// Be learned from traffic.
    Learn,
    /// Nothing.
    Ignore,
}

/// Hints that never change what a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PerformanceHint {
    /// Keep the policy ready on every node, also where it selects no endpoint.
    AssumeNeededOnEveryNode,
}

/// A policy, of a namespace or of the cluster, in force or staged.
///
/// The four kinds share one type; the fields that only some of them have are marked, and
/// [`crate::Resource::validate`] refuses them elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// What the policy would do; of staged policies only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
    /// The tier; `default` when missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// Its place in the tier, lower first; missing is last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Rules for packets to the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// Rules for packets from the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// The endpoints to which the policy applies; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The directions that are policed. Never empty once the defaults are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<PolicyType>,
    /// Before connection tracking; of global policies only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub do_not_track: bool,
    /// Before service translation; of global policies only.
    #[serde(default, rename = "preDNAT", skip_serializing_if = "is_default")]
    pub pre_dnat: bool,
    /// For traffic that host endpoints forward, too; of global policies only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub apply_on_forward: bool,
    /// Limits the policy to endpoints of these service accounts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account_selector: String,
    /// Limits the policy to endpoints of these namespaces; of global policies only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace_selector: String,
    /// Hints that change nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// A Kubernetes policy that is not in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedKubernetesPolicySpec {
    /// What the policy would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
    /// As in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    /// As in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<k8s_openapi::api::networking::v1::NetworkPolicyIngressRule>>,
    /// As in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<k8s_openapi::api::networking::v1::NetworkPolicyEgressRule>>,
    /// As in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_types: Option<Vec<String>>,
}

/// Rules and labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Rules for packets to the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// Rules for packets from the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Labels of every endpoint that lists the profile; its own label of the same name wins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels_to_apply: BTreeMap<String, String>,
}

// === impl StagedKubernetesPolicySpec ===

impl StagedKubernetesPolicySpec {
    /// The policy that it would be.
    pub fn enforced(&self) -> KubernetesPolicySpec {
        KubernetesPolicySpec {
            pod_selector: self.pod_selector.clone(),
            ingress: self.ingress.clone(),
            egress: self.egress.clone(),
            policy_types: self.policy_types.clone(),
        }
    }
}
