//! Calico's policies, profiles and tiers.

use super::rule::{Direction, Place, rules};
use super::{kubernetes, metadata, text};
use crate::field::Report;
use crate::kind::Kind;
use crate::v3::{
    PolicySpec, PolicyType, ProfileSpec, StagedAction, StagedKubernetesPolicySpec, Tier, TierSpec,
};

/// Checks a policy of any of the four kinds.
pub(super) fn policy(kind: Kind, spec: &PolicySpec, report: &mut Report<'_>) {
    let is_global = !kind.is_namespaced();
    let is_staged = matches!(kind, Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy);
    if !text::is_dns_label(&spec.tier) {
        report.wrong_at("tier", text::not_a_name(&spec.tier));
    }
    if !is_staged && spec.staged_action.is_some() {
        report.wrong_at("stagedAction", format!("{kind} has no such field"));
    }
    if spec.staged_action == Some(StagedAction::Delete) && is_staged {
        return deletion(spec, report);
    }
    for (key, selector) in [
        ("selector", &spec.selector),
        ("serviceAccountSelector", &spec.service_account_selector),
        ("namespaceSelector", &spec.namespace_selector),
    ] {
        text::selector(report, key, selector);
    }
    if let Some(twice) = text::repeated(spec.types.iter().copied()) {
        report.wrong_at("types", format!("{twice:?} occurs twice"));
    }
    if spec.performance_hints.len() > 1 {
        report.wrong_at("performanceHints", "AssumeNeededOnEveryNode occurs twice");
    }
    if is_global {
        global(spec, report);
    } else {
        for (key, given) in [
            ("doNotTrack", spec.do_not_track),
            ("preDNAT", spec.pre_dnat),
            ("applyOnForward", spec.apply_on_forward),
            ("namespaceSelector", !spec.namespace_selector.is_empty()),
        ] {
            let why = format!("{kind} has no such field; a global policy has it");
            report.wrong_if(given, key, why);
        }
    }
    let place = |direction| Place { direction, has_namespace: !is_global };
    rules(&spec.ingress, place(Direction::Ingress), report);
    rules(&spec.egress, place(Direction::Egress), report);
}

/// Checks the fields of global policies.
fn global(spec: &PolicySpec, report: &mut Report<'_>) {
    if spec.pre_dnat {
        report.wrong_if(spec.do_not_track, "preDNAT", "and doNotTrack exclude each other");
        let why = "a preDNAT policy is for ingress only; remove it";
        report.wrong_if(!spec.egress.is_empty(), "egress", why);
        report.wrong_if(spec.types.contains(&PolicyType::Egress), "types", why);
    }
    if (spec.pre_dnat || spec.do_not_track) && !spec.apply_on_forward {
        report.wrong_at("applyOnForward", "must be true with preDNAT or doNotTrack");
    }
}

/// A staged deletion names nothing but the tier.
fn deletion(spec: &PolicySpec, report: &mut Report<'_>) {
    let (tier, staged_action) = (spec.tier.clone(), spec.staged_action);
    let expected = PolicySpec { tier, staged_action, ..PolicySpec::default() };
    if *spec != expected {
        report.wrong("has nothing but tier and stagedAction when stagedAction is Delete");
    }
}

/// Checks a Kubernetes policy that is not in force.
pub(super) fn staged_kubernetes(spec: &StagedKubernetesPolicySpec, report: &mut Report<'_>) {
    if spec.staged_action != Some(StagedAction::Delete) {
        return kubernetes::policy(&spec.enforced(), report);
    }
    let staged_action = spec.staged_action;
    if *spec != (StagedKubernetesPolicySpec { staged_action, ..Default::default() }) {
        report.wrong("has nothing but stagedAction when stagedAction is Delete");
    }
}

/// Checks a profile.
pub(super) fn profile(spec: &ProfileSpec, report: &mut Report<'_>) {
    let place = |direction| Place { direction, has_namespace: false };
    rules(&spec.ingress, place(Direction::Ingress), report);
    rules(&spec.egress, place(Direction::Egress), report);
    report.within("labelsToApply", |report| metadata::check_labels(&spec.labels_to_apply, report));
}

/// The built-in tiers stay where they are.
pub(super) fn tier(tier: &Tier, report: &mut Report<'_>) {
    let Some(fixed) = TierSpec::built_in(tier.name()) else { return };
    if let (order, Some(right)) = (tier.spec.order, fixed.order)
        && order != fixed.order
    {
        report.wrong_at("order", format!("the tier {} has order {right}", tier.name()));
    }
    if let Some(right) = fixed.default_action
        && tier.spec.default_action != fixed.default_action
    {
        report.wrong_at("defaultAction", format!("the tier {} has {right:?}", tier.name()));
    }
}
