//! Policies for a pod, told apart by what their rules look at; the same in every run.

#![allow(dead_code, reason = "each bench uses a part")]

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{
    Action, DefaultAction, Endpoint, Mac, Member, Policy, PortRange, Rule, TierPolicies, Update,
};
use margay_tables::{Addr, PacketFacts, PolicyBook};

pub(crate) fn addr(n: u32) -> Addr {
    Addr::from_v4_bits(0x0a00_0000 + n)
}

/// What tells the rules of a world apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Set,
    Port,
    Net,
}

pub(crate) fn rule(by: By, n: u32) -> Rule {
    let mut rule = Rule { protocol: Some(6), ..Rule::any(Action::Deny) };
    rule.dst.ports = vec![PortRange::single(if let By::Port = by { n as u16 } else { 80 })];
    match by {
        By::Set => rule.src.sets = vec![format!("s{n}").into()],
        By::Net => rule.src.nets = vec![ipnet::IpNet::new_assert(IpAddr::from(addr(n << 8)), 24)],
        By::Port => {}
    }
    rule
}

pub(crate) fn members(n: u32) -> Vec<Member> {
    (0..20).map(|m| Member::Net(IpAddr::from(addr((n * 7 + m * 131) % 5000)).into())).collect()
}

pub(crate) fn policy(key: String, rule: Rule) -> Update {
    Update::Policy(Arc::new(Policy { key: key.into(), ingress: vec![rule], egress: Vec::new() }))
}

/// A book with `count` policies that deny, a last one that allows, and the pod they apply to.
pub(crate) fn world(by: By, count: u32) -> (PolicyBook, Endpoint) {
    let mut book = PolicyBook::default();
    for n in 0..count {
        book.note(&Update::Set(format!("s{n}").into(), Arc::new(members(n).into())));
        book.note(&policy(format!("p{n}"), rule(by, n)));
    }
    book.note(&policy("last".into(), Rule::any(Action::Allow)));
    let keys = (0..count).map(|n| format!("p{n}").into()).chain(["last".into()]).collect();
    let tier = TierPolicies {
        name: "default".into(),
        default_action: DefaultAction::Deny,
        ingress: keys,
        egress: Vec::new(),
    };
    let endpoint = Endpoint {
        key: "pod".into(),
        interface: "cali0".into(),
        mac: Mac::default(),
        addresses: Vec::new(),
        allowed_sources: Vec::new(),
        mtu: 1500,
        tiers: Arc::new([tier]),
        pending: None,
        profiles: Arc::new([]),
        priority: 0,
        limits: Default::default(),
    };
    (book, endpoint)
}

/// A packet that the last rule decides: it is in some sets, but its port is none of theirs.
pub(crate) fn packet() -> PacketFacts {
    PacketFacts {
        src: addr(4001),
        dst: addr(9_000_000),
        src_port: Some(40_000),
        dst_port: Some(60_000),
        protocol: 6,
        icmp: None,
        established: false,
    }
}
