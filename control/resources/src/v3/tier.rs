//! Tiers.

use serde::{Deserialize, Serialize};

use super::object::Object;

/// A group of policies that are evaluated together.
pub type Tier = Object<TierSpec>;

/// The tier of policies that name none.
pub const DEFAULT_TIER: &str = "default";
/// The tier of the `Admin` cluster network policies.
pub const ADMIN_TIER: &str = "kube-admin";
/// The tier of the `Baseline` cluster network policies.
pub const BASELINE_TIER: &str = "kube-baseline";

/// The tiers that always exist, with the order and the default action that they have.
pub const BUILT_IN_TIERS: [(&str, f64, TierAction); 3] = [
    (ADMIN_TIER, 1_000.0, TierAction::Pass),
    (DEFAULT_TIER, 1_000_000.0, TierAction::Deny),
    (BASELINE_TIER, 10_000_000.0, TierAction::Pass),
];

/// What becomes of a packet that no policy of the tier decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TierAction {
    /// It is dropped.
    Deny,
    /// The next tier decides.
    Pass,
}

/// A tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Its place among the tiers, lower first; missing is last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What happens at its end. Never missing once the defaults are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<TierAction>,
}

// === impl TierSpec ===

impl TierSpec {
    /// The tier of that name that exists without being declared.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, order, action) = BUILT_IN_TIERS.into_iter().find(|(each, ..)| *each == name)?;
        Some(Self { order: Some(order), default_action: Some(action) })
    }
}
