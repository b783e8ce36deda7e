//! What becomes of the traffic of a pair.

use serde::Serialize;

use crate::court::verdict::{Fate, Side};

/// The traffic of a pair, cut into parts that are treated alike. Without parts the two have no
/// address family in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Outcome {
    pub(crate) parts: Vec<Part>,
}

/// A part of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Part {
    /// Which, in words.
    pub(crate) what: String,
    /// What each cluster says, in the order in which they were given.
    pub(crate) said: Vec<Said>,
}

/// What both ends say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Said {
    pub(crate) verdict: Fate,
    pub(crate) egress: Side,
    pub(crate) ingress: Side,
}

/// A pair at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Glance {
    /// Everything is allowed.
    Allowed,
    /// Some is allowed, some is not.
    Partly,
    /// Nothing is allowed.
    Denied,
    /// They have no address family in common.
    Unreachable,
}

// === impl Said ===

impl Said {
    /// Both ends have to agree.
    pub(super) fn new(egress: Side, ingress: Side) -> Self {
        let passes = egress.passes() && ingress.passes();
        let verdict = if passes { Fate::Allow } else { Fate::Deny };
        Self { verdict, egress, ingress }
    }
}

// === impl Outcome ===

impl Outcome {
    /// At a glance, what one of the clusters says.
    pub(crate) fn glance(&self, cluster: usize) -> Glance {
        let said = self.parts.iter().filter_map(|part| part.said.get(cluster));
        let (mut allowed, mut denied) = (false, false);
        for said in said {
            match said.verdict {
                Fate::Deny => denied = true,
                Fate::Allow | Fate::None => allowed = true,
            }
        }
        match (allowed, denied) {
            (true, true) => Glance::Partly,
            (true, false) => Glance::Allowed,
            (false, true) => Glance::Denied,
            (false, false) => Glance::Unreachable,
        }
    }

    /// The parts of which the clusters say different things.
    pub(crate) fn changed(&self) -> Vec<&Part> {
        let differs = |part: &&Part| {
            part.said.windows(2).any(|two| match two {
                [old, new] => old.verdict != new.verdict,
                _ => false,
            })
        };
        self.parts.iter().filter(differs).collect()
    }

    /// The outcomes of two families as one.
    pub(super) fn both(v4: &Self, v6: &Self) -> Self {
        if v4 == v6 {
            return v4.clone();
        }
        let named = |word: &str, outcome: &Self| -> Vec<Part> {
            let parts = outcome.parts.iter();
            let named = parts.map(|part| Part {
                what: format!("{word} {}", part.what),
                said: part.said.clone(),
            });
            named.collect()
        };
        Self { parts: [named("IPv4", v4), named("IPv6", v6)].concat() }
    }
}
