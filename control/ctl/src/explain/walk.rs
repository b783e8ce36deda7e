//! The walk through one endpoint's tiers and profiles that a person would make.

use std::sync::Arc;

use margay_compile::{Compiler, PolicyView, Stage, TierView};
use margay_model::{Action, DefaultAction, Policy, PolicyKey, TierPolicies};
use margay_tables::classifier::Direction;
use serde::Serialize;

use super::criterion::Reader;
use super::words::{self, Meanings};
use crate::court::jury::{Passage, Whom};
use crate::court::verdict::{Fate, Side};

/// So many policies that do not apply are told of in each tier, unless all are wanted.
const OTHERS: usize = 10;

/// What an endpoint's policies were asked, and what they said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Walk {
    pub(super) tiers: Vec<TierStep>,
    pub(super) profiles: Vec<PolicyStep>,
    /// What it comes to, which the classifier is to say too.
    #[serde(skip)]
    pub(super) conclusion: Side,
}

/// A tier.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TierStep {
    pub(super) tier: Arc<str>,
    pub(super) order: Option<f64>,
    pub(super) default_action: &'static str,
    pub(super) outcome: Outcome,
    pub(super) policies: Vec<PolicyStep>,
    /// Policies that apply but come behind the one that decided.
    pub(super) not_reached: Vec<PolicyKey>,
    /// Policies that do not apply, those of other namespaces left out.
    pub(super) not_applied: Vec<NotApplied>,
    /// How many more do not apply.
    pub(super) not_applied_more: usize,
}

/// What became of the flow in a tier, or in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// No policy of the tier polices the endpoint in this direction.
    NotPoliced,
    /// A rule allowed it.
    Allowed,
    /// A rule denied it.
    Denied,
    /// A Pass rule sent it on to the next tier.
    Passed,
    /// No rule matched.
    Undecided,
    /// No rule matched, and the tier's default action is Deny.
    DeniedAtEnd,
    /// It was decided before.
    NotReached,
    /// The policy is named but not there: everything is denied.
    Missing,
}

/// A policy or a profile.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyStep {
    pub(super) policy: PolicyKey,
    /// Why it applies; none for a profile, which the endpoint names.
    pub(super) selector: Option<Arc<str>>,
    pub(super) rules: Vec<RuleStep>,
    pub(super) outcome: Outcome,
}

/// A rule of a document, of which the compiler may have made several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleStep {
    pub(super) rule: u32,
    pub(super) action: &'static str,
    pub(super) matches: bool,
    /// What was asked: the part that matched, or all of them.
    pub(super) parts: Vec<RulePart>,
}

/// One of the rules that a document's rule became.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RulePart {
    pub(super) text: String,
    /// The first condition that is not fulfilled.
    pub(super) unmet: Option<String>,
    /// By which domain name the destination is meant, where it is by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resolved: Option<String>,
}

/// A policy that does not apply.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotApplied {
    pub(super) policy: PolicyKey,
    pub(super) because: String,
}

/// Who walks.
pub(super) struct Walker<'c> {
    pub(super) compiler: &'c Compiler,
    pub(super) reader: Reader<'c>,
    pub(super) whom: Whom<'c>,
    /// The key of the endpoint.
    pub(super) key: &'c str,
    pub(super) direction: Direction,
    /// Tell of all policies that do not apply.
    pub(super) all: bool,
}

// === impl Walker ===

impl Walker<'_> {
    /// Walks until something decides.
    pub(super) fn walk(&self) -> Walk {
        let mut conclusion = None;
        let tiers = self.compiler.tiers().into_iter().filter(|tier| self.has_part_of(tier));
        let tiers = tiers.map(|tier| self.tier(&tier, &mut conclusion)).collect();
        let (named, otherwise) = match self.whom {
            Whom::End(endpoint) => (&endpoint.profiles[..], Side::without_policy(Fate::Deny)),
            Whom::Passage(..) => (&[][..], Side::NONE),
        };
        let mut profiles = Vec::new();
        if conclusion.is_none() {
            for profile in named {
                let step = self.policy(profile, None);
                conclusion = step.conclusion(None);
                profiles.push(step);
                if conclusion.is_some() {
                    break;
                }
            }
        }
        let conclusion = conclusion.unwrap_or(otherwise);
        Walk { tiers, profiles, conclusion }
    }

    fn tier(&self, tier: &TierView<'_>, conclusion: &mut Option<Side>) -> TierStep {
        let own = self.whom.tiers().iter().find(|t| t.name == tier.name);
        let applied = own.map_or(&[][..], |t| self.policies(t));
        let default_action = own.map_or(tier.default_action, |t| t.default_action);
        let mut step = TierStep {
            tier: tier.name.clone(),
            order: tier.order,
            default_action: match default_action {
                DefaultAction::Deny => "Deny",
                DefaultAction::Pass => "Pass",
            },
            outcome: if applied.is_empty() { Outcome::NotPoliced } else { Outcome::NotReached },
            policies: Vec::new(),
            not_reached: Vec::new(),
            not_applied: Vec::new(),
            not_applied_more: 0,
        };
        if conclusion.is_some() {
            step.not_reached = applied.to_vec();
            return step;
        }
        self.others(tier, applied, &mut step);
        if applied.is_empty() {
            return step;
        }
        self.ask(tier, applied, &mut step, conclusion);
        if conclusion.is_none()
            && step.outcome == Outcome::Undecided
            && default_action == DefaultAction::Deny
        {
            step.outcome = Outcome::DeniedAtEnd;
            let tier = Some(tier.name.clone());
            *conclusion = Some(Side { tier, ..Side::without_policy(Fate::Deny) });
        }
        step
    }

    /// Whether policies of a tier could be asked here at all.
    fn has_part_of(&self, tier: &TierView<'_>) -> bool {
        match self.whom {
            Whom::End(_) => true,
            Whom::Passage(..) => tier.policies.iter().any(|view| self.is_meant(view)),
        }
    }

    /// Whether a policy is for this point of the path.
    fn is_meant(&self, view: &PolicyView<'_>) -> bool {
        match self.whom {
            Whom::End(_) => true,
            Whom::Passage(_, Passage::Untracked) => view.stage == Stage::Untracked,
            Whom::Passage(_, Passage::PreDnat) => view.stage == Stage::PreDnat,
            Whom::Passage(_, Passage::Forward) => view.stage == Stage::Forward,
        }
    }

    /// Asks the policies of a tier until one decides or passes.
    fn ask(
        &self,
        tier: &TierView<'_>,
        applied: &[PolicyKey],
        step: &mut TierStep,
        conclusion: &mut Option<Side>,
    ) {
        step.outcome = Outcome::Undecided;
        for (at, key) in applied.iter().enumerate() {
            let view = tier.policies.iter().find(|view| view.key == key);
            let policy = self.policy(key, view.map(|view| view.selector.clone()));
            let outcome = policy.outcome;
            *conclusion = policy.conclusion(Some(&tier.name));
            step.policies.push(policy);
            if outcome != Outcome::Undecided {
                step.outcome = outcome;
                step.not_reached = applied.get(at + 1..).unwrap_or_default().to_vec();
                return;
            }
        }
    }

    fn policies<'t>(&self, tier: &'t TierPolicies) -> &'t [PolicyKey] {
        match self.direction {
            Direction::Ingress => &tier.ingress,
            Direction::Egress => &tier.egress,
        }
    }

    fn policy(&self, key: &PolicyKey, selector: Option<Arc<str>>) -> PolicyStep {
        let mut step = PolicyStep {
            policy: key.clone(),
            selector,
            rules: Vec::new(),
            outcome: Outcome::Undecided,
        };
        let Some(policy) = self.reader.state.policies.get(key) else {
            step.outcome = Outcome::Missing;
            return step;
        };
        self.rules(policy, &mut step);
        step
    }

    fn rules(&self, policy: &Policy, step: &mut PolicyStep) {
        let ingress = self.direction == Direction::Ingress;
        let rules = if ingress { &policy.ingress } else { &policy.egress };
        let requests = self.compiler.requests();
        for (index, rule) in (0..).zip(rules) {
            let number = self.compiler.rule_number(&policy.key, ingress, index);
            let mut text = Meanings(self.compiler).rule(rule);
            if let Some(http) =
                requests.of_rule(&policy.key, ingress, index).and_then(|r| r.http.as_ref())
            {
                text.push_str(&words::http(http));
            }
            let unmet = self.reader.unmet(rule);
            let matches = unmet.is_none();
            let resolved = self.reader.resolved(rule).filter(|_| matches);
            let part = RulePart { text, unmet, resolved };
            let action = words::action(rule.action);
            match step.rules.last_mut() {
                Some(last) if last.rule == number && !last.matches => {
                    last.matches = matches;
                    if matches {
                        last.parts.clear();
                    }
                    last.parts.push(part);
                }
                // One part of a Log rule is enough.
                Some(last) if last.rule == number => {}
                _ => {
                    let parts = vec![part];
                    step.rules.push(RuleStep { rule: number, action, matches, parts });
                }
            }
            step.outcome = match rule.action {
                Action::Allow if matches => Outcome::Allowed,
                Action::Deny if matches => Outcome::Denied,
                Action::Pass if matches => Outcome::Passed,
                _ => continue,
            };
            return;
        }
    }

    /// Tells why the tier's other policies do not apply.
    fn others(&self, tier: &TierView<'_>, applied: &[PolicyKey], step: &mut TierStep) {
        let own = self.key.split('/').next().unwrap_or_default();
        let others = tier.policies.iter().filter(|view| self.is_meant(view));
        for view in others.filter(|view| !applied.contains(view.key)) {
            let namespace = view.key.split('/').nth(1).unwrap_or_default();
            let near = namespace.is_empty() || namespace == own;
            if self.all || near && step.not_applied.len() < OTHERS {
                let because = self.why_not(view);
                step.not_applied.push(NotApplied { policy: view.key.clone(), because });
            } else {
                step.not_applied_more += 1;
            }
        }
    }

    fn why_not(&self, view: &PolicyView<'_>) -> String {
        if let Some(unmet) = self.compiler.unmet(view.key, self.key) {
            return words::unmet(&unmet);
        }
        if matches!(self.whom, Whom::End(_)) && view.stage.is_host_path() {
            return "it is for untracked or not yet translated traffic of host endpoints".into();
        }
        match self.direction {
            Direction::Ingress => "it selects the endpoint, but only for egress".into(),
            Direction::Egress => "it selects the endpoint, but only for ingress".into(),
        }
    }
}

// === impl PolicyStep ===

impl PolicyStep {
    /// What the policy decided, if it did.
    fn conclusion(&self, tier: Option<&Arc<str>>) -> Option<Side> {
        let verdict = match self.outcome {
            Outcome::Allowed => Fate::Allow,
            Outcome::Denied | Outcome::Missing => Fate::Deny,
            _ => return None,
        };
        let rule = self.rules.last().filter(|_| self.outcome != Outcome::Missing);
        let policy = rule.map(|_| self.policy.clone());
        Some(Side { verdict, tier: tier.cloned(), policy, rule: rule.map(|rule| rule.rule) })
    }
}
