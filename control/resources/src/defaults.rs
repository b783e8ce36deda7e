//! What an object means where it says nothing.

use k8s_openapi::api::networking::v1::NetworkPolicySpec;

use crate::resource::Resource;
use crate::v3::{
    AllowedUse, AssignmentMode, DEFAULT_TIER, EncapMode, IpPoolSpec, PolicySpec, PolicyType,
    StagedAction, Tier, TierAction, TierSpec,
};

/// Applies the defaults of the object's kind. Applying them twice changes nothing.
pub(crate) fn apply(resource: &mut Resource) {
    let kind = resource.kind();
    let metadata = resource.metadata_mut();
    if kind.is_namespaced() && metadata.namespace.as_ref().is_none_or(String::is_empty) {
        metadata.namespace = Some("default".to_owned());
    }
    match resource {
        Resource::NetworkPolicy(p) | Resource::GlobalNetworkPolicy(p) => policy(&mut p.spec),
        Resource::StagedNetworkPolicy(p) | Resource::StagedGlobalNetworkPolicy(p) => {
            staged(&mut p.spec)
        }
        Resource::StagedKubernetesNetworkPolicy(p) => {
            p.spec.staged_action.get_or_insert(StagedAction::Set);
        }
        Resource::KubernetesNetworkPolicy(p) => {
            kubernetes_policy(p.spec.get_or_insert_default());
        }
        Resource::Tier(t) => tier(t),
        Resource::IpPool(p) => pool(&mut p.spec),
        _ => {}
    }
}

fn policy(spec: &mut PolicySpec) {
    if spec.tier.is_empty() {
        spec.tier = DEFAULT_TIER.to_owned();
    }
    if spec.types.is_empty() {
        spec.types = match (spec.ingress.is_empty(), spec.egress.is_empty()) {
            (_, true) => vec![PolicyType::Ingress],
            (true, false) => vec![PolicyType::Egress],
            (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
        };
    }
}

/// A staged deletion has no rules and no types.
fn staged(spec: &mut PolicySpec) {
    if *spec.staged_action.get_or_insert(StagedAction::Set) == StagedAction::Delete {
        if spec.tier.is_empty() {
            spec.tier = DEFAULT_TIER.to_owned();
        }
    } else {
        policy(spec);
    }
}

/// As the Kubernetes API server does: ingress always, egress where there are rules for it.
fn kubernetes_policy(spec: &mut NetworkPolicySpec) {
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let types = if egress { &["Ingress", "Egress"][..] } else { &["Ingress"] };
        spec.policy_types = Some(types.iter().map(|&text| text.to_owned()).collect());
    }
}

fn tier(tier: &mut Tier) {
    let built_in = TierSpec::built_in(tier.name()).unwrap_or_default();
    tier.spec.order = tier.spec.order.or(built_in.order);
    let action = built_in.default_action.unwrap_or(TierAction::Deny);
    tier.spec.default_action.get_or_insert(action);
}

fn pool(spec: &mut IpPoolSpec) {
    let v6 = spec.cidr.as_ref().is_some_and(crate::v3::Net::is_v6);
    spec.ipip_mode.get_or_insert(EncapMode::Never);
    spec.vxlan_mode.get_or_insert(EncapMode::Never);
    if spec.block_size.is_none_or(|size| size == 0) {
        spec.block_size = Some(if v6 { 122 } else { 26 });
    }
    if spec.node_selector.is_empty() {
        spec.node_selector = "all()".to_owned();
    }
    if spec.allowed_uses.is_empty() {
        spec.allowed_uses = vec![AllowedUse::Workload, AllowedUse::Tunnel];
    }
    spec.assignment_mode.get_or_insert(AssignmentMode::Automatic);
}
