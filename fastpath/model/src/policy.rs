//! Policies, profiles and the tiers that order them.

use std::sync::Arc;

use crate::rule::Rule;

/// `KIND/NAMESPACE/NAME` with KIND as Calico names it (`NetworkPolicy`, `GlobalNetworkPolicy`,
/// `KubernetesNetworkPolicy`, `KubernetesClusterNetworkPolicy`, `Profile`); NAMESPACE is empty for
/// what has none.
pub type PolicyKey = Arc<str>;

/// A policy or a profile: two ordered lists of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub key: PolicyKey,
    /// Rules for packets to the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for packets from the endpoint.
    pub egress: Vec<Rule>,
}

/// What becomes of a packet that no policy of a tier decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DefaultAction {
    /// It is dropped.
    #[default]
    Deny,
    /// The next tier decides.
    Pass,
}

/// The policies of one tier that apply to an endpoint, in order.
///
/// A direction without policies is not policed by this tier: its default action does not apply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TierPolicies {
    /// Name of the tier.
    pub name: Arc<str>,
    /// What happens at the end of the tier.
    pub default_action: DefaultAction,
    /// Policies for packets to the endpoint.
    pub ingress: Vec<PolicyKey>,
    /// Policies for packets from the endpoint.
    pub egress: Vec<PolicyKey>,
}
