//! The policy classifier: which rule decides a packet at an endpoint.
//!
//! ```text
//!   Update ─→ PolicyBook ─→ Classifier (sets, rule names)      one for each snapshot
//!                      └──→ EndpointPolicy (ingress, egress)   one for each endpoint, shared by
//!                                                              endpoints with the same policies
//!   packet ─→ facts ─→ prefilter: candidates ─→ matcher: first match ─→ Decision
//! ```
//!
//! In the order of use:
//! - [`facts`]: what a packet is asked about, and what the answer is;
//! - [`list`]: the rules of an endpoint's tiers and profiles in one list, and its evaluation;
//! - [`prefilter`]: which rules of a list a packet could match; [`matcher`]: whether one does;
//! - [`sets`]: the address sets, and which sets an address is in;
//! - [`names`]: numbers for rules that fit into a flow record;
//! - [`book`]: the control side, which compiles what changed and nothing else;
//! - [`cluster`]: all policies in one list, for who asks about thousands of endpoints at once.

mod facts;
mod list;
mod prefilter;
mod matcher;
mod sets;
mod names;
mod book;
mod cluster;

#[cfg(all(test, not(loom)))]
mod tests;

pub use book::{HostLists, PolicyBook, Work};
pub use cluster::{ClusterPolicies, Membership, Vectors};
pub use facts::{Cause, Decision, Direction, PacketFacts, Standing, Verdict};
pub use list::EndpointPolicy;

use margay_model::PolicyKey;

use names::RuleNames;
use sets::Sets;

/// What workers need to evaluate policies: the sets as they are now. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    sets: Sets,
    names: RuleNames,
}

// === impl Classifier ===

impl Classifier {
    /// Decides a packet at an endpoint. The destination is the translated one.
    #[inline]
    pub fn decide<'p>(
        &self,
        policy: &'p EndpointPolicy,
        direction: Direction,
        facts: &PacketFacts,
    ) -> Decision<'p> {
        policy.list(direction).decide(&self.sets, facts)
    }

    /// Decides what is more than a packet: a rule matches only if `holds` says so as well, of its
    /// policy and its place within the direction's rules (from 0).
    pub fn decide_where<'p>(
        &self,
        policy: &'p EndpointPolicy,
        direction: Direction,
        facts: &PacketFacts,
        holds: impl Fn(&PolicyKey, u32) -> bool,
    ) -> Decision<'p> {
        policy.list(direction).decide_where(&self.sets, facts, holds)
    }

    /// The policy, and the rule's place in its document (from 0), that a number of a [`Decision`]
    /// names; for the default action of a tier `Tier//NAME` and 0. A number that is long out of use
    /// may name another rule.
    pub fn rule(&self, id: u32) -> Option<(PolicyKey, u32)> {
        self.names.resolve(id)
    }
}
