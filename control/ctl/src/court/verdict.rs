//! A line of output.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

/// What becomes of a flow.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    pub(crate) verdict: Fate,
    pub(crate) egress: Side,
    pub(crate) ingress: Side,
    /// Where a service led.
    pub(crate) backend: Option<SocketAddr>,
    /// What the host endpoints between the ends say, where they are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) passages: Option<Vec<PassageSide>>,
}

/// What a host endpoint says of a flow that passes through its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PassageSide {
    pub(crate) node: Arc<str>,
    pub(crate) host_endpoint: Arc<str>,
    /// `ingress` where the flow comes into the node, `egress` where it leaves it.
    pub(crate) direction: &'static str,
    #[serde(flatten)]
    pub(crate) side: Side,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Side {
    pub(crate) verdict: Fate,
    /// The tier that decided; none where a profile did.
    pub(crate) tier: Option<Arc<str>>,
    /// The policy whose rule decided.
    pub(crate) policy: Option<Arc<str>>,
    /// The rule, from 0, as the policy's document counts.
    pub(crate) rule: Option<u32>,
}

/// Allowed, denied, or nobody polices that side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fate {
    Allow,
    Deny,
    None,
}

/// The answer to a bad line.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
}

// === impl Side ===

impl Side {
    /// Nobody polices this side.
    pub(crate) const NONE: Self = Self::without_policy(Fate::None);

    /// A fate that no policy stands behind.
    pub(crate) const fn without_policy(verdict: Fate) -> Self {
        Self { verdict, tier: None, policy: None, rule: None }
    }

    /// Whether this side lets the flow pass.
    pub(crate) fn passes(&self) -> bool {
        self.verdict != Fate::Deny
    }
}
