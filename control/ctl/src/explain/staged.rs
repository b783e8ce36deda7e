//! What staged policies would change if they were enforced.

use std::collections::BTreeSet;

use margay_compile::Compiler;
use margay_model::{PolicyKey, TierPolicies};
use margay_resources::k8s::NetworkPolicy;
use margay_resources::v3::{self, StagedAction};
use margay_resources::{Kind, Resource};
use serde::Serialize;

use crate::court::flow::Flow;
use crate::court::judge::Case;
use crate::court::verdict::{Answer, Fate, Side};
use crate::court::{self, Court};
use crate::dataplane::names::Known;

/// The staged policies that concern a flow, and what would become of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StagedReport {
    pub(super) policies: Vec<StagedPolicy>,
    pub(super) verdict: Fate,
    pub(super) egress: Side,
    pub(super) ingress: Side,
}

/// A staged policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StagedPolicy {
    pub(super) policy: PolicyKey,
    /// `Set` or `Delete`.
    pub(super) action: &'static str,
    /// The policy that it would make, replace or remove.
    pub(super) becomes: PolicyKey,
}

/// A cluster in which all staged policies are enforced.
pub(super) struct Preview {
    compiler: Compiler,
    policies: Vec<StagedPolicy>,
}

// === impl Preview ===

impl Preview {
    /// Enforces the staged policies among the resources; `None` if there are none.
    pub(super) fn new(resources: &[Resource]) -> Option<Self> {
        let mut policies = Vec::new();
        let mut made = Vec::new();
        for staged in resources {
            let Some((kind, action, enforced)) = enforced(staged) else { continue };
            let named = |kind: &str| -> PolicyKey {
                format!("{kind}/{}/{}", staged.namespace(), staged.name()).into()
            };
            let becomes = named(match kind {
                Kind::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
                kind => kind.kind(),
            });
            policies.push(StagedPolicy { policy: named(staged.kind().kind()), action, becomes });
            made.push((kind, staged, enforced));
        }
        if policies.is_empty() {
            return None;
        }
        let names = made.iter().map(|(kind, s, _)| (*kind, s.namespace(), s.name()));
        let replaced: BTreeSet<_> = names.collect();
        let kept = resources.iter().filter(|resource| {
            !replaced.contains(&(resource.kind(), resource.namespace(), resource.name()))
        });
        let made = made.iter().filter_map(|(.., enforced)| enforced.clone());
        let compiler = court::compile(kept.cloned().chain(made));
        Some(Self { compiler, policies })
    }

    /// What would become of a flow, if any staged policy has a say on it.
    pub(super) fn report(
        &self,
        flow: &Flow,
        today: &Case<'_>,
        known: &Known,
    ) -> Option<StagedReport> {
        let mut court = Court::small(&self.compiler).knowing(known);
        let case = court.hear(flow);
        let asked: Vec<_> = today.asked().chain(case.asked()).collect();
        let concerned = self.policies.iter().filter(|policy| {
            asked.iter().any(|(tiers, ingress)| names(tiers, *ingress, &policy.becomes))
        });
        let policies: Vec<_> = concerned.cloned().collect();
        if policies.is_empty() {
            return None;
        }
        let Answer { verdict, egress, ingress, .. } = court.decide(case);
        Some(StagedReport { policies, verdict, egress, ingress })
    }
}

/// Whether a policy is among those of tiers for a direction.
fn names(tiers: &[TierPolicies], ingress: bool, key: &PolicyKey) -> bool {
    let mut tiers = tiers.iter();
    tiers.any(|tier| if ingress { &tier.ingress } else { &tier.egress }.contains(key))
}

/// What a staged policy stands for: the kind, what is done, and the object that is made.
fn enforced(resource: &Resource) -> Option<(Kind, &'static str, Option<Resource>)> {
    let (kind, action, object) = match resource {
        Resource::StagedNetworkPolicy(p) => {
            let object = Resource::NetworkPolicy(p.clone());
            (Kind::NetworkPolicy, p.spec.staged_action, object)
        }
        Resource::StagedGlobalNetworkPolicy(p) => {
            let object = Resource::GlobalNetworkPolicy(p.clone());
            (Kind::GlobalNetworkPolicy, p.spec.staged_action, object)
        }
        Resource::StagedKubernetesNetworkPolicy(p) => {
            (Kind::KubernetesNetworkPolicy, p.spec.staged_action, kubernetes(p))
        }
        _ => return None,
    };
    match action.unwrap_or(StagedAction::Set) {
        StagedAction::Set => Some((kind, "Set", Some(object))),
        StagedAction::Delete => Some((kind, "Delete", None)),
        StagedAction::Learn | StagedAction::Ignore => None,
    }
}

fn kubernetes(staged: &v3::StagedKubernetesNetworkPolicy) -> Resource {
    Resource::KubernetesNetworkPolicy(Box::new(NetworkPolicy {
        metadata: staged.metadata.clone(),
        spec: Some(staged.spec.enforced()),
    }))
}
