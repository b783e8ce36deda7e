//! Tiers and the order of policies.

use std::cmp::Ordering;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::DefaultAction;

use crate::intent::{PolicyIntent, TierIntent};

/// The tiers of the datastore over the built-in ones.
#[derive(Debug, Default)]
pub(crate) struct Tiers(HashMap<Arc<str>, TierIntent>);

/// An order with its place among others: by value, none last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Order(Option<f64>);

/// Where a tier stands. Tiers that do not exist come after all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TierPlace {
    missing: bool,
    order: Order,
    pub(crate) name: Arc<str>,
}

/// Where a policy stands in its tier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PolicyPlace {
    order: Order,
    name: Arc<str>,
}

// === impl Order ===

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding zero makes one zero of the two.
        let value = |o: &Self| o.0.map_or(f64::INFINITY, |v| v + 0.0);
        value(self).total_cmp(&value(other))
    }
}

// === impl Tiers ===

impl Tiers {
    /// Adds, replaces or removes the document of a tier.
    pub(crate) fn set(&mut self, name: &Arc<str>, tier: Option<TierIntent>) {
        match tier {
            Some(tier) => self.0.insert(name.clone(), tier),
            None => self.0.remove(name),
        };
    }

    fn get(&self, name: &str) -> Option<TierIntent> {
        let built_in = |order, default_action| TierIntent { order: Some(order), default_action };
        self.0.get(name).copied().or(match name {
            "kube-admin" => Some(built_in(1_000.0, DefaultAction::Pass)),
            "default" => Some(built_in(1_000_000.0, DefaultAction::Deny)),
            "kube-baseline" => Some(built_in(10_000_000.0, DefaultAction::Pass)),
            _ => None,
        })
    }

    /// Where a tier stands.
    pub(crate) fn place(&self, name: &Arc<str>) -> TierPlace {
        let tier = self.get(name);
        let order = Order(tier.and_then(|t| t.order));
        TierPlace { missing: tier.is_none(), order, name: name.clone() }
    }

    /// What happens at the end of a tier.
    pub(crate) fn default_action(&self, name: &str) -> DefaultAction {
        self.get(name).map_or(DefaultAction::Deny, |t| t.default_action)
    }
}

// === impl TierPlace ===

impl TierPlace {
    /// The order that the tier's document gives.
    pub(super) fn order(&self) -> Option<f64> {
        self.order.0
    }

    /// Whether there is such a tier.
    pub(super) fn exists(&self) -> bool {
        !self.missing
    }
}

// === impl PolicyPlace ===

impl From<&PolicyIntent> for PolicyPlace {
    fn from(intent: &PolicyIntent) -> Self {
        Self { order: Order(intent.order), name: intent.sort_name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_rise_and_none_is_last() {
        let mut orders = [None, Some(2.0), Some(-1.0), Some(0.0), Some(1e300)].map(Order);
        orders.sort();
        assert_eq!(orders, [Some(-1.0), Some(0.0), Some(2.0), Some(1e300), None].map(Order));
        assert_eq!(Order(Some(0.0)).cmp(&Order(Some(-0.0))), Ordering::Equal);
    }

    #[test]
    fn a_missing_tier_comes_after_all_others_and_denies() {
        let mut tiers = Tiers::default();
        let last = TierIntent { order: None, default_action: DefaultAction::Pass };
        tiers.set(&"zz".into(), Some(last));
        let mut names: Vec<Arc<str>> =
            ["aa", "zz", "kube-baseline", "default", "kube-admin"].map(Into::into).into();
        names.sort_by_key(|n| tiers.place(n));
        assert_eq!(names, ["kube-admin", "default", "kube-baseline", "zz", "aa"].map(Into::into));
        assert_eq!(tiers.default_action("aa"), DefaultAction::Deny);
        assert_eq!(tiers.default_action("zz"), DefaultAction::Pass);
    }
}
