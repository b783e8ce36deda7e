//! What people ask of policies: which there are, in which order, and whom they select.

use std::sync::Arc;

use margay_model::{DefaultAction, PolicyKey};

use super::{Entry, Policies};
use crate::intent::Stage;
use crate::label::{ItemId, Labels, Unmet, unmet};

/// A tier that has policies.
#[derive(Clone, Debug, PartialEq)]
pub struct TierView<'c> {
    /// Its name.
    pub name: Arc<str>,
    /// Its place among the tiers; `None` comes last.
    pub order: Option<f64>,
    /// Whether the tier exists; one that only policies name comes after all others.
    pub exists: bool,
    /// What happens at its end.
    pub default_action: DefaultAction,
    /// Its policies in the order of evaluation, whomever they select.
    pub policies: Vec<PolicyView<'c>>,
}

/// A policy as it stands in its tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyView<'c> {
    /// Its name.
    pub key: &'c PolicyKey,
    /// Its place in the tier; `None` comes last.
    pub order: Option<f64>,
    /// The labels of the endpoints that it selects, in Calico's language.
    pub selector: &'c Arc<str>,
    /// Whether it has a say on packets to those endpoints.
    pub ingress: bool,
    /// Whether it has a say on packets from those endpoints.
    pub egress: bool,
    /// Where on a packet's path it is asked.
    pub stage: Stage,
}

// === impl Policies ===

impl Policies {
    /// The tiers with policies, in the order of evaluation.
    pub(crate) fn view(&self) -> Vec<TierView<'_>> {
        let enforced = self.policies.values().filter(|entry| entry.intent.staged.is_none());
        let tiers = self.by_tier(enforced).into_iter().map(|(place, entries)| TierView {
            order: place.order(),
            exists: place.exists(),
            default_action: self.tiers.default_action(&place.name),
            policies: entries.into_iter().map(PolicyView::from).collect(),
            name: place.name,
        });
        tiers.collect()
    }

    /// The labels of an emitted endpoint.
    pub(crate) fn labels(&self, id: ItemId) -> Option<&Labels> {
        self.index.labels(id)
    }

    /// The first condition of a policy's selector that an endpoint does not fulfil; `None` if the
    /// policy selects it, or one of them is not there.
    pub(crate) fn unmet(&self, policy: &str, id: ItemId) -> Option<Unmet> {
        let entry = self.policies.get(policy)?;
        unmet(entry.intent.selector.tree(), self.index.labels(id)?)
    }
}

impl<'c> From<&'c Entry> for PolicyView<'c> {
    fn from(entry: &'c Entry) -> Self {
        let intent = &entry.intent;
        Self {
            key: &intent.key,
            order: intent.order,
            selector: intent.selector.text(),
            ingress: intent.polices_ingress,
            egress: intent.polices_egress,
            stage: intent.stage,
        }
    }
}
