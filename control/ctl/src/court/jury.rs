//! What endpoints' policies say, on all cores.
//!
//! Policies are compiled when they are first asked for, and compiling is what takes the time in a
//! large cluster: so each endpoint has one juror, who alone compiles its policies.

use std::num::NonZero;
use std::thread::{self, ScopedJoinHandle};

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::{Endpoint, PolicyKey};
use margay_tables::classifier::{
    Cause, Classifier, Decision, Direction, EndpointPolicy, PacketFacts, PolicyBook, Verdict,
};

use super::verdict::{Fate, Side};

/// What an endpoint is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'c> {
    pub(crate) endpoint: &'c Endpoint,
    pub(crate) direction: Direction,
    pub(crate) facts: PacketFacts,
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
}

/// One thread's compiled policies.
#[derive(Default)]
struct Juror<'c> {
    /// The tiers of endpoints, by where they lie in memory: endpoints with the same share them.
    tiers: HashMap<usize, EndpointPolicy>,
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
        let law = Law { compiler, book, classifier };
        Self { law, jurors: (0..count).map(|_| Juror::default()).collect() }
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
                    let own = numbered.filter(|(_, q)| share(q.endpoint, count) == number);
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

/// What a thread returns; if it panics, so does this one.
fn outcome<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Which of so many jurors an endpoint has: the same one as all endpoints with the same tiers.
fn share(endpoint: &Endpoint, count: usize) -> usize {
    // Fibonacci hashing: addresses of allocations differ in their middle bits.
    let mixed = (endpoint.tiers.as_ptr().addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % count.max(1)
}

// === impl Juror ===

impl<'c> Juror<'c> {
    fn decide(&mut self, law: &Law<'c>, question: &Question<'c>) -> Side {
        let decision = self.ask(law, question);
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

    /// The tiers are compiled apart from the profiles, which are asked where no tier decides: a
    /// policy for many endpoints would otherwise be indexed anew for each combination of profiles.
    fn ask(&mut self, law: &Law<'c>, question: &Question<'c>) -> Decision<'_> {
        let Question { endpoint, direction, facts } = question;
        let Law { book, classifier, .. } = law;
        let policy = self.tiers.entry(endpoint.tiers.as_ptr().addr());
        let policy = policy.or_insert_with(|| book.apart(&endpoint.tiers, &[]));
        let decision = classifier.decide(policy, *direction, facts);
        if decision.cause != Cause::NoProfile {
            return decision;
        }
        let policy = self.profiles.entry(&*endpoint.profiles);
        let policy = policy.or_insert_with(|| book.apart(&[], &endpoint.profiles));
        classifier.decide(policy, *direction, facts)
    }
}
