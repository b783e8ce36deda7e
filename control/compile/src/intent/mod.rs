//! What a policy document asks for, whatever its kind, before it is compiled.
//!
//! Each kind is converted by its own module into [`PolicyIntent`]: selectors are rewritten to
//! selectors of endpoint labels, defaults are filled in, peers and ports are expanded into rules.
//! A rule keeps the number that it has in the document.
//!
//! - `calico`: NetworkPolicy, GlobalNetworkPolicy and Profile of Calico;
//! - `kubernetes`: NetworkPolicy of Kubernetes;
//! - `cluster`: ClusterNetworkPolicy;
//! - `staged`: the three kinds that are not in force.

pub(crate) mod calico;
pub(crate) mod kubernetes;
pub(crate) mod cluster;
pub(crate) mod staged;

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use margay_model::{
    Action, DefaultAction, DomainPattern, IcmpMatch, IpVersion, PolicyKey, PortRange,
};
use margay_resources::selector::Selector;
use margay_resources::v3::{Tier, TierAction};

use crate::label::Expression;
use crate::name::ObjectName;
use crate::request::HttpMatch;

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyIntent {
    pub(crate) key: PolicyKey,
    pub(crate) tier: Arc<str>,
    /// Place in the tier; `None` comes last.
    pub(crate) order: Option<f64>,
    /// `NAME/NAMESPACE/KIND`, which decides between equal orders.
    pub(crate) sort_name: Arc<str>,
    /// The endpoints it applies to.
    pub(crate) selector: Expression,
    /// Whether packets to those endpoints are policed.
    pub(crate) polices_ingress: bool,
    /// Whether packets from those endpoints are policed.
    pub(crate) polices_egress: bool,
    /// Where on a packet's path it is asked.
    pub(crate) stage: Stage,
    /// Whether it is wanted also where it selects nothing (a performance hint).
    pub(crate) needed_everywhere: bool,
    /// Set for a policy that is not in force.
    pub(crate) staged: Option<Staged>,
    pub(crate) ingress: Vec<RuleIntent>,
    pub(crate) egress: Vec<RuleIntent>,
}

/// What a staged policy would do if it were enforced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staged {
    /// The policy in whose place it stands, be it there or not.
    pub(crate) replaces: PolicyKey,
    /// Whether it only takes that policy away.
    pub(crate) removes: bool,
}

/// Where on a packet's path a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// At pods; at host endpoints about the node's own connections.
    Ends,
    /// There, and at host endpoints about connections that pass through the node.
    Forward,
    /// At host endpoints, before services are translated.
    PreDnat,
    /// At host endpoints, before connections are looked at.
    Untracked,
}

// === impl Stage ===

impl Stage {
    /// Whether it only concerns host endpoints, and not the ends of connections.
    pub fn is_host_path(self) -> bool {
        matches!(self, Self::PreDnat | Self::Untracked)
    }
}

/// A profile: rules without a selector, and labels for the endpoints that name it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProfileIntent {
    pub(crate) ingress: Vec<RuleIntent>,
    pub(crate) egress: Vec<RuleIntent>,
    pub(crate) labels: Vec<(Arc<str>, Arc<str>)>,
}

/// A tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TierIntent {
    /// Place among the tiers; `None` comes last.
    pub(crate) order: Option<f64>,
    pub(crate) default_action: DefaultAction,
}

/// A rule; conditions that are given must all hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleIntent {
    /// The rule's place in the document, from 0.
    pub(crate) number: u32,
    pub(crate) action: Action,
    pub(crate) ip_version: Option<IpVersion>,
    pub(crate) protocol: Option<u8>,
    pub(crate) not_protocol: Option<u8>,
    pub(crate) icmp: Option<IcmpMatch>,
    pub(crate) not_icmp: Option<IcmpMatch>,
    pub(crate) src: EntityIntent,
    pub(crate) dst: EntityIntent,
    /// Only a proxy sees it.
    pub(crate) http: Option<HttpMatch>,
}

/// One end of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EntityIntent {
    pub(crate) nets: Vec<IpNet>,
    pub(crate) not_nets: Vec<IpNet>,
    /// Over endpoint labels.
    pub(crate) selector: Option<Expression>,
    /// Over endpoint labels; matches addresses that nothing selected has, unknown ones too.
    pub(crate) not_selector: Option<Expression>,
    /// What `selector` says of namespaces and service accounts: only a proxy sees who has proven
    /// to be one. Over the labels of an identity.
    pub(crate) identity: Option<Selector>,
    pub(crate) service: Option<ObjectName>,
    /// Over the labels of nodes.
    pub(crate) nodes: Option<Expression>,
    /// Names one of which has the address; nobody has it where there are none.
    pub(crate) domains: Option<BTreeSet<DomainPattern>>,
    pub(crate) ports: Vec<PortIntent>,
    pub(crate) not_ports: Vec<PortIntent>,
}

/// A port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortIntent {
    Range(PortRange),
    Named(Arc<str>),
}

// === impl TierIntent ===

impl From<&Tier> for TierIntent {
    fn from(tier: &Tier) -> Self {
        let default_action = match tier.spec.default_action {
            Some(TierAction::Pass) => DefaultAction::Pass,
            Some(TierAction::Deny) | None => DefaultAction::Deny,
        };
        Self { order: tier.spec.order, default_action }
    }
}

// === impl RuleIntent ===

impl RuleIntent {
    /// A rule that matches every packet.
    pub(crate) fn any(number: u32, action: Action) -> Self {
        Self {
            number,
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            src: EntityIntent::default(),
            dst: EntityIntent::default(),
            http: None,
        }
    }
}

// === impl ProfileIntent ===

impl ProfileIntent {
    /// Rules that allow everything both ways.
    pub(crate) fn allow(labels: Vec<(Arc<str>, Arc<str>)>) -> Self {
        let all = || vec![RuleIntent::any(0, Action::Allow)];
        Self { ingress: all(), egress: all(), labels }
    }

    /// No rules at all: the next profile decides.
    pub(crate) fn labels_only(labels: Vec<(Arc<str>, Arc<str>)>) -> Self {
        Self { ingress: Vec::new(), egress: Vec::new(), labels }
    }

    /// What stands in for a profile that is named but not there.
    pub(crate) fn missing() -> Self {
        let none = || vec![RuleIntent::any(0, Action::Deny)];
        Self { ingress: none(), egress: none(), labels: Vec::new() }
    }
}

/// `KIND/NAMESPACE/NAME`.
pub(crate) fn policy_key(kind: &str, namespace: &str, name: &str) -> PolicyKey {
    format!("{kind}/{namespace}/{name}").into()
}

/// The key of a profile.
pub(crate) fn profile_key(name: &str) -> PolicyKey {
    policy_key("Profile", "", name)
}
