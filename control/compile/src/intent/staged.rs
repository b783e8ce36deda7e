//! Staged policies: what would stand in the place of a policy of the same name.

use margay_resources::selector::SelectorError;
use margay_resources::v3::{self, StagedAction};
use margay_resources::{Kind, k8s};

use super::{PolicyIntent, Staged, calico, kubernetes, policy_key};

/// The staged form of a Calico policy; `None` where nothing is staged (`Learn`, `Ignore`).
///
/// # Errors
/// As [`calico::policy`].
pub(crate) fn policy(
    staged: Kind,
    enforced: Kind,
    object: &v3::Object<v3::PolicySpec>,
) -> Result<Option<PolicyIntent>, SelectorError> {
    let Some(removes) = removes(object.spec.staged_action) else { return Ok(None) };
    let intent = calico::policy(enforced.kind(), object)?;
    let key = policy_key(staged.kind(), object.namespace(), object.name());
    let staged = Some(Staged { replaces: intent.key.clone(), removes });
    Ok(Some(PolicyIntent { key, staged, ..intent }))
}

/// The same of a Kubernetes policy; the outer `None` as with [`kubernetes::policy`].
pub(crate) fn of_kubernetes(
    object: &v3::StagedKubernetesNetworkPolicy,
) -> Option<Option<PolicyIntent>> {
    let Some(removes) = removes(object.spec.staged_action) else { return Some(None) };
    let enforced = k8s::NetworkPolicy {
        metadata: object.metadata.clone(),
        spec: Some(object.spec.enforced()),
    };
    let intent = kubernetes::policy(&enforced)?;
    let kind = Kind::StagedKubernetesNetworkPolicy.kind();
    let key = policy_key(kind, object.namespace(), object.name());
    let staged = Some(Staged { replaces: intent.key.clone(), removes });
    Some(Some(PolicyIntent { key, staged, ..intent }))
}

/// Whether the policy would go instead of being made; `None` where nothing is staged.
fn removes(action: Option<StagedAction>) -> Option<bool> {
    match action.unwrap_or(StagedAction::Set) {
        StagedAction::Set => Some(false),
        StagedAction::Delete => Some(true),
        StagedAction::Learn | StagedAction::Ignore => None,
    }
}
