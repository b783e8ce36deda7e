//! The evaluator: from the documents' own words, policy by policy and rule by rule, by
//! Calico's and Kubernetes' reference.
//!
//! - [`world`]: who there is; [`selector`]: Calico's language;
//! - [`calico`], [`kubernetes`], [`cluster`]: what policies of each family say;
//! - [`verdict`]: tiers, and what becomes of a packet.

pub(crate) mod world;
pub(crate) mod selector;
pub(crate) mod calico;
pub(crate) mod kubernetes;
pub(crate) mod cluster;
pub(crate) mod verdict;

use std::net::IpAddr;

use serde_json::{Value, json};

use world::{Item, World};

/// A packet, of which a flow's line tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) src_port: Option<u16>,
    pub(crate) dst_port: Option<u16>,
    /// Type and code.
    pub(crate) icmp: Option<(u8, u8)>,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Log,
    Pass,
}

/// A policy in force.
pub(crate) struct Policy {
    pub(crate) tier: String,
    /// Infinite without one.
    pub(crate) order: f64,
    /// `NAME/NAMESPACE/KIND`, by which ties are decided.
    pub(crate) tie: String,
    /// `KIND/NAMESPACE/NAME`.
    pub(crate) key: String,
    pub(crate) subject: Box<dyn Fn(&Item) -> bool>,
    /// The rules of each direction that it is for.
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
}

type Matches = dyn Fn(&World, &Packet) -> bool;

pub(crate) struct Rule {
    pub(crate) action: Action,
    pub(crate) matches: Box<Matches>,
}

// === impl Packet ===

impl Packet {
    pub(crate) fn line(&self) -> Value {
        json!({"src": self.src, "dst": self.dst, "protocol": self.protocol,
            "srcPort": self.src_port, "dstPort": self.dst_port,
            "icmpType": self.icmp.map(|(kind, _)| kind),
            "icmpCode": self.icmp.map(|(_, code)| code)})
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
