//! What a packet is asked about, and what the answer is.

use std::sync::Arc;

use arrayvec::ArrayVec;
use margay_model::{DropReason, PolicyKey};

use crate::addr::Addr;

/// What rules look at. A field that is `None` is one that the packet does not have, or that a
/// simulation leaves out: a rule that names it does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFacts {
    /// Source address.
    pub src: Addr,
    /// Destination address, after service translation.
    pub dst: Addr,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port, after service translation.
    pub dst_port: Option<u16>,
    /// IP protocol number.
    pub protocol: u8,
    /// Type and code of ICMP or ICMPv6.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Whether the connection is one that was allowed before: addresses that its destination's name
    /// does not have any more are still those that it had.
    pub established: bool,
}

/// What is known of an address that was learned for a name of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// The name has it: it is a member.
    Current,
    /// The name had it: it is a member for connections that are there.
    Lapsed,
    /// It is no member.
    Unknown,
}

/// From the endpoint's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// Allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The packet goes on.
    Allow,
    /// The packet is dropped.
    Deny,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A rule.
    Rule,
    /// No policy of a tier decided, and its default action is Deny.
    TierDefault,
    /// No tier and no profile decided.
    NoProfile,
    /// A policy or profile that the endpoint names is not there.
    PolicyMissing,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// Allowed or not.
    pub verdict: Verdict,
    /// What decided.
    pub cause: Cause,
    /// The tier that decided; `None` where a profile did, or nothing.
    pub tier: Option<&'p Arc<str>>,
    /// The policy or profile whose rule decided, or which is missing.
    pub policy: Option<&'p PolicyKey>,
    /// The rule's place in its policy's rules of the direction, from 0.
    pub rule: Option<u32>,
    /// The number of what decided, for [`super::Classifier::rule`]: a rule, or a tier's default
    /// action; where neither did, one that names nothing. Never 0.
    pub id: u32,
    /// Numbers of the Log rules that matched on the way; the first few.
    pub logged: ArrayVec<u32, 4>,
}

// === impl Decision ===

impl Decision<'_> {
    /// Whether the packet goes on.
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// The number of what decided; it fits 24 bits. 0, which it never is, can stand for a packet
    /// that nobody was asked about.
    pub fn rule_id(&self) -> u32 {
        self.id
    }

    /// Why a denied packet is dropped.
    pub fn drop_reason(&self) -> DropReason {
        match self.cause {
            Cause::PolicyMissing => DropReason::PolicyMissing,
            _ => DropReason::Policy,
        }
    }
}
