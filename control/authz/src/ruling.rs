//! What a question comes to.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{EndpointKey, PolicyKey};
use margay_tables::classifier::Cause;

use crate::question::QuestionError;

/// What a question comes to. Only a policy or a profile allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// A workload's policy has decided.
    Decided(Decided),
    /// No workload of this node has the destination's address.
    Unknown(IpAddr),
    /// It was no question.
    Unreadable(QuestionError),
    /// The datastore has not been read yet.
    NotReady,
}

/// How a workload's policy has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Whether the request may pass.
    pub allowed: bool,
    /// What decided.
    pub cause: Cause,
    /// The workload.
    pub workload: EndpointKey,
    /// The tier that decided; `None` where a profile did, or nothing.
    pub tier: Option<Arc<str>>,
    /// The policy or profile whose rule decided, or which is missing.
    pub policy: Option<PolicyKey>,
    /// The rule, from 0, as the policy's document counts.
    pub rule: Option<u32>,
}

/// Verdict and reason of every ruling, as counters name them.
pub(crate) const KINDS: [(&str, &str); 8] = [
    ("allow", "rule"),
    ("deny", "rule"),
    ("deny", "tier-default"),
    ("deny", "no-profile"),
    ("deny", "policy-missing"),
    ("deny", "unknown-destination"),
    ("deny", "bad-request"),
    ("deny", "not-ready"),
];

// === impl Ruling ===

impl Ruling {
    /// Whether the request may pass.
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Decided(decided) if decided.allowed)
    }

    /// The workload's policy, if that has decided.
    pub fn decided(&self) -> Option<&Decided> {
        match self {
            Self::Decided(decided) => Some(decided),
            _ => None,
        }
    }

    /// Its place in [`KINDS`].
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Decided(Decided { allowed: true, .. }) => 0,
            Self::Decided(decided) => match decided.cause {
                Cause::Rule => 1,
                Cause::TierDefault => 2,
                Cause::NoProfile => 3,
                Cause::PolicyMissing => 4,
            },
            Self::Unknown(_) => 5,
            Self::Unreadable(_) => 6,
            Self::NotReady => 7,
        }
    }

    /// What decided, in a word.
    pub fn reason(&self) -> &'static str {
        KINDS.get(self.kind()).map_or("", |(_, reason)| *reason)
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided(decided) => decided.fmt(f),
            Self::Unknown(address) => {
                write!(f, "denied: no workload of this node has the address {address}")
            }
            Self::Unreadable(error) => write!(f, "denied: {error}"),
            Self::NotReady => f.write_str("denied: policy has not been read yet"),
        }
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.allowed { "allowed" } else { "denied" };
        let policy = self.policy.as_deref().unwrap_or_default();
        match (&self.cause, self.rule) {
            (Cause::Rule, Some(rule)) => write!(f, "{verdict} by rule {rule} of {policy}")?,
            (Cause::Rule, None) => write!(f, "{verdict} by {policy}")?,
            (Cause::TierDefault, _) => write!(f, "{verdict}: no rule matches")?,
            (Cause::NoProfile, _) => write!(f, "{verdict}: no policy and no profile allows it")?,
            (Cause::PolicyMissing, _) => write!(f, "{verdict}: {policy} is not there")?,
        }
        match &self.tier {
            Some(tier) => write!(f, " (tier {tier})"),
            None => Ok(()),
        }
    }
}
