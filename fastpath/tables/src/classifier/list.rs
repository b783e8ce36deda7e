//! The rules of an endpoint's tiers and profiles in one list, and its evaluation.

use std::sync::Arc;

use arrayvec::ArrayVec;
use margay_model::{Action, DefaultAction, PolicyKey};

use super::facts::{Cause, Decision, Direction, PacketFacts, Verdict};
use super::matcher::CompiledRule;
use super::names::NOBODY;
use super::prefilter::{Prefilter, Room};
use super::sets::Sets;

/// The compiled policies of an endpoint; the default one denies everything. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct EndpointPolicy {
    pub(super) ingress: Arc<RuleList>,
    pub(super) egress: Arc<RuleList>,
}

/// The rules of one direction in the order of evaluation, cut into spans.
#[derive(Debug, Default)]
pub(super) struct RuleList {
    rules: Vec<Step>,
    spans: Vec<Span>,
    prefilter: Prefilter,
}

/// A place in the list.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A rule.
    Rule(Arc<CompiledRule>),
    /// A policy that is not there: everything that gets here is dropped.
    Missing(PolicyKey),
}

/// A tier, or one profile.
#[derive(Debug)]
pub(super) struct Span {
    /// One past its last step.
    pub(super) end: u32,
    /// What happens at its end. A profile passes on to the next.
    pub(super) default: DefaultAction,
    /// The tier's name; `None` for a profile.
    pub(super) tier: Option<Arc<str>>,
    /// The number of its default action.
    pub(super) id: u32,
}

/// Steps, and the spans that lie in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course<'p> {
    pub(super) steps: &'p [Step],
    pub(super) spans: &'p [Span],
}

// === impl EndpointPolicy ===

impl EndpointPolicy {
    #[inline]
    pub(super) fn list(&self, direction: Direction) -> &RuleList {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Number of rules of a direction.
    pub fn rules(&self, direction: Direction) -> usize {
        self.list(direction).rules.len()
    }
}

// === impl RuleList ===

impl RuleList {
    /// Appends a tier with its steps. A tier without policies in the direction must be left out.
    /// `id` is the number of its default action.
    pub(super) fn push_tier(
        &mut self,
        name: &Arc<str>,
        default: DefaultAction,
        id: u32,
        steps: impl IntoIterator<Item = Step>,
    ) {
        self.push_span(Some(name.clone()), default, id, steps);
    }

    /// Appends a profile with its steps.
    pub(super) fn push_profile(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.push_span(None, DefaultAction::Pass, 0, steps);
    }

    fn push_span(
        &mut self,
        tier: Option<Arc<str>>,
        default: DefaultAction,
        id: u32,
        steps: impl IntoIterator<Item = Step>,
    ) {
        self.rules.extend(steps);
        self.spans.push(Span { end: self.rules.len() as u32, default, tier, id });
    }

    /// Builds what makes the evaluation quick, once all steps are in.
    pub(super) fn seal(mut self) -> Self {
        self.prefilter = Prefilter::new(&self.rules);
        self
    }

    /// Decides a packet.
    #[inline]
    pub(super) fn decide(&self, sets: &Sets, facts: &PacketFacts) -> Decision<'_> {
        self.decide_where(sets, facts, |_, _| true)
    }

    /// The same where a rule matches only if `holds` says so as well of its policy and its place
    /// therein.
    #[inline]
    pub(super) fn decide_where(
        &self,
        sets: &Sets,
        facts: &PacketFacts,
        holds: impl Fn(&PolicyKey, u32) -> bool,
    ) -> Decision<'_> {
        let mut room = Room::new();
        let candidates = self.prefilter.candidates(sets, facts, &mut room);
        self.course().evaluate(sets, facts, candidates, holds)
    }

    /// The same without prefilter: every rule is asked.
    #[cfg(all(test, not(loom)))]
    pub(super) fn decide_linearly(&self, sets: &Sets, facts: &PacketFacts) -> Decision<'_> {
        self.course().evaluate(sets, facts, 0..self.rules.len() as u32, |_, _| true)
    }

    /// How many rules a packet is compared with, at most.
    #[cfg(all(test, not(loom)))]
    pub(super) fn candidates(&self, sets: &Sets, facts: &PacketFacts) -> usize {
        self.prefilter.candidates(sets, facts, &mut Room::new()).count()
    }

    #[inline]
    fn course(&self) -> Course<'_> {
        Course { steps: &self.rules, spans: &self.spans }
    }
}

// === impl Course ===

impl<'p> Course<'p> {
    /// Decides among candidates, the places of steps in ascending order. The first rule that
    /// matches and is not Log or Pass decides; a Pass goes on behind its span; the end of a span
    /// with default Deny decides too.
    #[inline]
    pub(super) fn evaluate(
        self,
        sets: &Sets,
        facts: &PacketFacts,
        candidates: impl Iterator<Item = u32>,
        holds: impl Fn(&PolicyKey, u32) -> bool,
    ) -> Decision<'p> {
        let mut logged = ArrayVec::new();
        let mut spans = self.spans.iter();
        let mut span = spans.next();
        let mut skip_to = 0;
        for at in candidates {
            if at < skip_to {
                continue;
            }
            // Every span that ends before this candidate has decided nothing.
            while let Some(ended) = span.filter(|span| span.end <= at) {
                if ended.default == DefaultAction::Deny {
                    return ended.denies(logged);
                }
                span = spans.next();
            }
            let Some(step) = self.steps.get(at as usize) else { break };
            let tier = span.and_then(|span| span.tier.as_ref());
            match step {
                Step::Missing(policy) => return missing(tier, policy, logged),
                Step::Rule(rule)
                    if rule.matches(sets, facts) && holds(&rule.policy, rule.index) =>
                {
                    match rule.action {
                        Action::Allow => return by_rule(Verdict::Allow, tier, rule, logged),
                        Action::Deny => return by_rule(Verdict::Deny, tier, rule, logged),
                        Action::Pass => {
                            skip_to = span.map_or(0, |span| span.end);
                            span = spans.next();
                        }
                        Action::Log => drop(logged.try_push(rule.id)),
                    }
                }
                Step::Rule(_) => {}
            }
        }
        let mut rest = span.into_iter().chain(spans);
        match rest.find(|span| span.default == DefaultAction::Deny) {
            Some(span) => span.denies(logged),
            None => nobody(logged),
        }
    }
}

impl Span {
    fn denies(&self, logged: ArrayVec<u32, 4>) -> Decision<'_> {
        let (tier, id) = (self.tier.as_ref(), self.id);
        Decision { cause: Cause::TierDefault, tier, id, ..nobody(logged) }
    }
}

fn nobody<'p>(logged: ArrayVec<u32, 4>) -> Decision<'p> {
    Decision {
        verdict: Verdict::Deny,
        cause: Cause::NoProfile,
        tier: None,
        policy: None,
        rule: None,
        id: NOBODY,
        logged,
    }
}

fn missing<'p>(
    tier: Option<&'p Arc<str>>,
    policy: &'p PolicyKey,
    logged: ArrayVec<u32, 4>,
) -> Decision<'p> {
    Decision { cause: Cause::PolicyMissing, tier, policy: Some(policy), ..nobody(logged) }
}

fn by_rule<'p>(
    verdict: Verdict,
    tier: Option<&'p Arc<str>>,
    rule: &'p CompiledRule,
    logged: ArrayVec<u32, 4>,
) -> Decision<'p> {
    Decision {
        verdict,
        cause: Cause::Rule,
        tier,
        policy: Some(&rule.policy),
        rule: Some(rule.index),
        id: rule.id,
        logged,
    }
}
