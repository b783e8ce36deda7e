//! The classifier as a whole: named cases, and random policies against a naive evaluation of the
//! model's own values.

mod cases;
mod incremental;
mod reference;
mod scale;

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{
    Action, AddressSet, DefaultAction, Endpoint, EntityMatch, Mac, Member, Policy, PolicyKey, Rule,
    SetId, TierPolicies,
};

use super::*;
use crate::addr::Addr;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

fn set(members: impl IntoIterator<Item = Member>) -> Arc<AddressSet> {
    Arc::new(members.into_iter().collect::<Vec<_>>().into())
}

fn policy(key: &str, ingress: Vec<Rule>) -> Arc<Policy> {
    // As in a document: each rule at its place.
    let ingress = (0..).zip(ingress).map(|(number, rule)| Rule { number, ..rule }).collect();
    Arc::new(Policy { key: key.into(), ingress, egress: Vec::new() })
}

fn tier(name: &str, default_action: DefaultAction, ingress: &[&str]) -> TierPolicies {
    let ingress = ingress.iter().map(|key| PolicyKey::from(*key)).collect();
    TierPolicies { name: name.into(), default_action, ingress, egress: Vec::new() }
}

fn endpoint(key: &str, tiers: Vec<TierPolicies>, profiles: &[&str]) -> Endpoint {
    Endpoint {
        key: key.into(),
        interface: "cali0".into(),
        mac: Mac::default(),
        addresses: Vec::new(),
        allowed_sources: Vec::new(),
        mtu: 1500,
        tiers: tiers.into(),
        pending: None,
        profiles: profiles.iter().map(|key| PolicyKey::from(*key)).collect(),
        priority: 0,
        limits: Default::default(),
    }
}

/// TCP from port 40,000.
fn tcp(src: &str, dst: &str, port: u16) -> PacketFacts {
    PacketFacts {
        src: addr(src),
        dst: addr(dst),
        src_port: Some(40_000),
        dst_port: Some(port),
        protocol: 6,
        icmp: None,
        established: false,
    }
}

/// Verdict, tier, policy, rule.
type Answer<'p> = (bool, Option<&'p str>, Option<&'p str>, Option<u32>);

fn answer<'p>(decision: &Decision<'p>) -> Answer<'p> {
    let tier = decision.tier.map(|tier| &**tier);
    (decision.allowed(), tier, decision.policy.map(|key| &**key), decision.rule)
}
