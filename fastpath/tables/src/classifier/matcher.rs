//! Whether a rule matches a packet: the one exact matcher. The prefilter only shortens the list of
//! rules that it is asked about.
//!
//! A rule becomes a list of conditions that must all hold, cheap ones first. What a rule does not
//! ask is no condition.

use margay_model::{Action, EntityMatch, IcmpMatch, IpVersion, PolicyKey, PortRange, Rule, SetId};

use super::facts::PacketFacts;
use super::sets::Sets;
use crate::addr::{Addr, Prefix};

/// A rule in the form that packets are tested against.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) action: Action,
    pub(super) conditions: Box<[Condition]>,
    pub(super) policy: PolicyKey,
    /// Its place among its policy's rules of the direction.
    pub(super) index: u32,
    /// Its number.
    pub(super) id: u32,
}

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    Src,
    Dst,
}

/// One condition. Sets are named by their number in [`Sets`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Version(IpVersion),
    Protocol(u8),
    NotProtocol(u8),
    Icmp(IcmpMatch),
    NotIcmp(IcmpMatch),
    /// The port lies in the range: the usual case of the next.
    Port(End, PortRange),
    /// The port lies in one of the ranges, or a set has address, protocol and port.
    Ports(End, Box<AnyPort>),
    NotPorts(End, Box<[PortRange]>),
    /// The address lies in the network: the usual case of the next.
    Net(End, Prefix),
    Nets(End, Box<[Prefix]>),
    NotNets(End, Box<[Prefix]>),
    InSet(End, u32),
    /// The same, or the address was learned for a name of the set.
    InSetOrLearned(End, u32),
    NotInSet(End, u32),
    InPortSet(End, u32),
    NotInPortSet(End, u32),
}

/// Ways for a port to match.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AnyPort {
    pub(super) ranges: Box<[PortRange]>,
    /// Sets of address, protocol and port.
    pub(super) named: Box<[u32]>,
}

// === impl CompiledRule ===

impl CompiledRule {
    pub(super) fn new(
        rule: &Rule,
        policy: PolicyKey,
        index: u32,
        id: u32,
        set: &mut impl FnMut(&SetId) -> u32,
    ) -> Self {
        let conditions = conditions(rule, set);
        Self { action: rule.action, conditions, policy, index, id }
    }

    #[inline]
    pub(super) fn matches(&self, sets: &Sets, facts: &PacketFacts) -> bool {
        self.conditions.iter().all(|condition| condition.holds(sets, facts))
    }
}

fn conditions(rule: &Rule, set: &mut impl FnMut(&SetId) -> u32) -> Box<[Condition]> {
    let ends = [(End::Dst, &rule.dst), (End::Src, &rule.src)];
    let mut out = Vec::new();
    out.extend(rule.ip_version.map(Condition::Version));
    out.extend(rule.protocol.map(Condition::Protocol));
    out.extend(rule.not_protocol.map(Condition::NotProtocol));
    out.extend(rule.icmp.map(Condition::Icmp));
    out.extend(rule.not_icmp.map(Condition::NotIcmp));
    for (end, entity) in ends {
        ports(end, entity, set, &mut out);
        nets(end, entity, &mut out);
    }
    for (end, entity) in ends {
        let in_set = if entity.learned { Condition::InSetOrLearned } else { Condition::InSet };
        out.extend(entity.sets.iter().map(|id| in_set(end, set(id))));
        out.extend(entity.not_sets.iter().map(|id| Condition::NotInSet(end, set(id))));
        out.extend(entity.addr_port_sets.iter().map(|id| Condition::InPortSet(end, set(id))));
        let not_named = entity.not_named_ports.iter();
        out.extend(not_named.map(|id| Condition::NotInPortSet(end, set(id))));
    }
    out.into()
}

fn ports(
    end: End,
    entity: &EntityMatch,
    set: &mut impl FnMut(&SetId) -> u32,
    out: &mut Vec<Condition>,
) {
    match (&entity.ports[..], &entity.named_ports[..]) {
        ([], []) => {}
        ([range], []) => out.push(Condition::Port(end, *range)),
        (ranges, named) => {
            let named = named.iter().map(set).collect();
            out.push(Condition::Ports(end, Box::new(AnyPort { ranges: ranges.into(), named })));
        }
    }
    if !entity.not_ports.is_empty() {
        out.push(Condition::NotPorts(end, entity.not_ports[..].into()));
    }
}

fn nets(end: End, entity: &EntityMatch, out: &mut Vec<Condition>) {
    let compile = |nets: &[ipnet::IpNet]| nets.iter().map(|net| Prefix::from(*net)).collect();
    match &entity.nets[..] {
        [] => {}
        [net] => out.push(Condition::Net(end, Prefix::from(*net))),
        nets => out.push(Condition::Nets(end, compile(nets))),
    }
    if !entity.not_nets.is_empty() {
        out.push(Condition::NotNets(end, compile(&entity.not_nets)));
    }
}

// === impl Condition ===

impl Condition {
    #[inline]
    fn holds(&self, sets: &Sets, facts: &PacketFacts) -> bool {
        match self {
            Self::Version(version) => (*version == IpVersion::V4) == facts.src.is_v4(),
            Self::Protocol(protocol) => *protocol == facts.protocol,
            Self::NotProtocol(protocol) => *protocol != facts.protocol,
            Self::Icmp(icmp) => icmp_matches(*icmp, facts) == Some(true),
            Self::NotIcmp(icmp) => icmp_matches(*icmp, facts) == Some(false),
            Self::Port(end, range) => end.port(facts).is_some_and(|port| range.contains(port)),
            Self::Ports(end, any) => any.has(*end, sets, facts),
            Self::NotPorts(end, ranges) => {
                end.port(facts).is_some_and(|port| !ranges.iter().any(|r| r.contains(port)))
            }
            Self::Net(end, net) => net.contains(end.addr(facts)),
            Self::Nets(end, nets) => nets.iter().any(|net| net.contains(end.addr(facts))),
            Self::NotNets(end, nets) => !nets.iter().any(|net| net.contains(end.addr(facts))),
            Self::InSet(end, set) => sets.contains_addr(*set, end.addr(facts)),
            Self::InSetOrLearned(end, set) => {
                sets.has_or_learned(*set, end.addr(facts), facts.established)
            }
            Self::NotInSet(end, set) => !sets.contains_addr(*set, end.addr(facts)),
            Self::InPortSet(end, set) => in_port_set(*end, *set, sets, facts) == Some(true),
            Self::NotInPortSet(end, set) => in_port_set(*end, *set, sets, facts) == Some(false),
        }
    }
}

/// `None` when the packet is not ICMP of its family, or lacks the code that the rule asks for.
fn icmp_matches(icmp: IcmpMatch, facts: &PacketFacts) -> Option<bool> {
    let protocol = if facts.src.is_v4() { 1 } else { 58 };
    let (kind, code) = facts.icmp.filter(|_| facts.protocol == protocol)?;
    match icmp.code {
        None => Some(icmp.kind == kind),
        Some(asked) => code.map(|code| icmp.kind == kind && asked == code),
    }
}

impl AnyPort {
    fn has(&self, end: End, sets: &Sets, facts: &PacketFacts) -> bool {
        let Some(port) = end.port(facts) else { return false };
        self.ranges.iter().any(|range| range.contains(port))
            || self.named.iter().any(|set| in_port_set(end, *set, sets, facts) == Some(true))
    }
}

/// `None` when the packet has no port.
fn in_port_set(end: End, set: u32, sets: &Sets, facts: &PacketFacts) -> Option<bool> {
    let port = end.port(facts)?;
    Some(sets.contains_addr_port(set, (end.addr(facts), facts.protocol, port)))
}

// === impl End ===

impl End {
    #[inline]
    pub(super) fn addr(self, facts: &PacketFacts) -> Addr {
        match self {
            Self::Src => facts.src,
            Self::Dst => facts.dst,
        }
    }

    #[inline]
    pub(super) fn port(self, facts: &PacketFacts) -> Option<u16> {
        match self {
            Self::Src => facts.src_port,
            Self::Dst => facts.dst_port,
        }
    }
}
