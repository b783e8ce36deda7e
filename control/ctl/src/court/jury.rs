//! What endpoints' policies say, on all cores.
//!
//! What an endpoint has of the cluster's policies is found when it is first asked for: so each
//! endpoint has one juror, who alone looks for it.

use std::num::NonZero;
use std::thread::{self, ScopedJoinHandle};

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::{Endpoint, HostEndpoint, PolicyKey, TierPolicies};
use margay_tables::classifier::{
    Cause, Classifier, ClusterPolicies, Decision, Direction, EndpointPolicy, Membership,
    PacketFacts, PolicyBook, Standing, Vectors, Verdict,
};

use super::verdict::{Fate, Side};
use crate::dataplane::names::Known;

/// What an endpoint is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'c> {
    pub(crate) whom: Whom<'c>,
    pub(crate) direction: Direction,
    pub(crate) facts: PacketFacts,
}

/// Whose policies are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom<'c> {
    /// Those of an end of the flow, with its profiles: they decide in any case.
    End(&'c Endpoint),
    /// A list of a host endpoint, which may leave it open: the verdict is none.
    Passage(&'c HostEndpoint, Passage),
}

/// The lists of a host endpoint that are asked besides the one for its own connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// About each packet.
    Untracked,
    /// About connections before services are translated.
    PreDnat,
    /// About connections that pass through the node.
    Forward,
}

/// Everybody who decides.
pub(crate) struct Jury<'c> {
    law: Law<'c>,
    jurors: Vec<Juror<'c>>,
}

/// What all jurors share.
struct Law<'c> {
    compiler: &'c Compiler,
    book: PolicyBook,
    classifier: Classifier,
    /// The tiers of everybody.
    cluster: ClusterPolicies,
    /// Denies everything: for an endpoint that has what nobody has.
    unknown: EndpointPolicy,
}

/// What one thread has found.
#[derive(Default)]
struct Juror<'c> {
    /// What endpoints have of the tiers, by where theirs lie in memory: endpoints with the same
    /// share them.
    tiers: HashMap<usize, Option<Membership>>,
    vectors: Vectors,
    /// Lists of host endpoints, by where they lie in memory.
    passages: HashMap<usize, EndpointPolicy>,
    /// The profiles of endpoints, which differ by namespace and service account.
    profiles: HashMap<&'c [PolicyKey], EndpointPolicy>,
}

// === impl Jury ===

impl<'c> Jury<'c> {
    /// A jury on what was compiled, with a juror for each core.
    pub(crate) fn new(compiler: &'c Compiler) -> Self {
        Self::of(compiler, thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// A jury of so many, for who has few questions.
    pub(crate) fn of(compiler: &'c Compiler, count: usize) -> Self {
        let book = PolicyBook::from_state(compiler.state());
        let classifier = book.classifier();
        let cluster = book.cluster(&tiers(compiler));
        let law = Law { compiler, book, classifier, cluster, unknown: EndpointPolicy::default() };
        Self { law, jurors: (0..count).map(|_| Juror::default()).collect() }
    }

    /// The same with what is known of domain names.
    pub(crate) fn knowing(mut self, known: &Known) -> Self {
        for (set, address) in known.members() {
            self.law.book.note_learned(set, address.into(), Standing::Current);
        }
        self.law.classifier = self.law.book.classifier();
        self
    }

    /// Answers each question, in order.
    pub(crate) fn decide(&mut self, questions: &[Question<'c>]) -> Vec<Side> {
        let count = self.jurors.len();
        let law = &self.law;
        let mut sides = vec![Side::NONE; questions.len()];
        thread::scope(|scope| {
            let asked = self.jurors.iter_mut().enumerate().map(|(number, juror)| {
                scope.spawn(move || {
                    let numbered = questions.iter().enumerate();
                    let own = numbered.filter(|(_, q)| share(q.whom.tiers(), count) == number);
                    own.map(|(at, question)| (at, juror.decide(law, question))).collect::<Vec<_>>()
                })
            });
            // All are begun before the first is waited for.
            let asked: Vec<_> = asked.collect();
            for (at, side) in asked.into_iter().flat_map(outcome) {
                if let Some(slot) = sides.get_mut(at) {
                    *slot = side;
                }
            }
        });
        sides
    }
}

/// All tiers with all of their policies.
fn tiers(compiler: &Compiler) -> Vec<TierPolicies> {
    let tiers = compiler.tiers().into_iter().map(|tier| {
        let policies = || tier.policies.iter().filter(|policy| !policy.stage.is_host_path());
        TierPolicies {
            ingress: policies().filter(|p| p.ingress).map(|p| p.key.clone()).collect(),
            egress: policies().filter(|p| p.egress).map(|p| p.key.clone()).collect(),
            default_action: tier.default_action,
            name: tier.name,
        }
    });
    tiers.collect()
}

/// What a thread returns; if it panics, so does this one.
fn outcome<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Which of so many jurors an endpoint has: the same one as all endpoints with the same tiers.
fn share(tiers: &[TierPolicies], count: usize) -> usize {
    // Fibonacci hashing: addresses of allocations differ in their middle bits.
    let mixed = (tiers.as_ptr().addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % count.max(1)
}

// === impl Juror ===

impl<'c> Juror<'c> {
    fn decide(&mut self, law: &Law<'c>, question: &Question<'c>) -> Side {
        let decision = match question.whom {
            Whom::End(endpoint) => self.ask(law, endpoint, question),
            Whom::Passage(..) => {
                let decision = self.ask_passage(law, question);
                if decision.cause == Cause::NoProfile {
                    return Side::NONE;
                }
                decision
            }
        };
        let by_rule = decision.policy.zip(decision.rule);
        let ingress = question.direction == Direction::Ingress;
        Side {
            verdict: match decision.verdict {
                Verdict::Allow => Fate::Allow,
                Verdict::Deny => Fate::Deny,
            },
            tier: decision.tier.cloned(),
            policy: by_rule.map(|(key, _)| key.clone()),
            rule: by_rule.map(|(key, rule)| law.compiler.rule_number(key, ingress, rule)),
        }
    }

    /// Tiers first, then, where none decides, the profiles.
    fn ask<'l>(
        &'l mut self,
        law: &'l Law<'c>,
        endpoint: &'c Endpoint,
        question: &Question<'c>,
    ) -> Decision<'l> {
        let Question { direction, facts, .. } = question;
        let Law { book, classifier, cluster, .. } = law;
        let membership = self.tiers.entry(endpoint.tiers.as_ptr().addr());
        let membership = membership.or_insert_with(|| cluster.membership(&endpoint.tiers));
        let Some(membership) = membership else {
            return classifier.decide(&law.unknown, *direction, facts);
        };
        let vectors = &mut self.vectors;
        let decision = cluster.decide(classifier, membership, vectors, *direction, facts);
        if decision.cause != Cause::NoProfile {
            return decision;
        }
        let policy = self.profiles.entry(&*endpoint.profiles);
        let policy = policy.or_insert_with(|| book.apart(&[], &endpoint.profiles));
        classifier.decide(policy, *direction, facts)
    }

    /// A list without profiles.
    fn ask_passage<'l>(&'l mut self, law: &'l Law<'c>, question: &Question<'c>) -> Decision<'l> {
        let tiers = question.whom.tiers();
        let policy = self.passages.entry(tiers.as_ptr().addr());
        let policy = policy.or_insert_with(|| law.book.apart(tiers, &[]));
        law.classifier.decide(policy, question.direction, &question.facts)
    }
}

// === impl Whom ===

impl<'c> Whom<'c> {
    /// The tiers that are asked.
    pub(crate) fn tiers(&self) -> &'c [TierPolicies] {
        match *self {
            Self::End(endpoint) => &endpoint.tiers,
            Self::Passage(host, passage) => passage.of(host),
        }
    }
}

// === impl Passage ===

impl Passage {
    fn of(self, host: &HostEndpoint) -> &[TierPolicies] {
        match self {
            Self::Untracked => &host.untracked,
            Self::PreDnat => &host.pre_dnat,
            Self::Forward => &host.forward,
        }
    }

    /// Whether a host endpoint has policies to ask, for one direction.
    pub(crate) fn concerns(self, host: &HostEndpoint, direction: Direction) -> bool {
        self.of(host).iter().any(|tier| match direction {
            Direction::Ingress => !tier.ingress.is_empty(),
            Direction::Egress => !tier.egress.is_empty(),
        })
    }
}
