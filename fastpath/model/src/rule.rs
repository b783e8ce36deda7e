//! The rule model of Calico: every condition is optional, all that are given must hold.

use ipnet::IpNet;

use crate::set::SetId;

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Accept, stop.
    Allow,
    /// Drop, stop.
    Deny,
    /// Leave the tier; after the last tier go on with the profiles.
    Pass,
    /// Record the packet and go on with the next rule.
    Log,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// First and last port, in host byte order, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// The range of one port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether `port` lies in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// An ICMP or ICMPv6 type, and a code of it or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpMatch {
    /// Type.
    pub kind: u8,
    /// Code; `None` for any.
    pub code: Option<u8>,
}

/// The conditions on one end of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityMatch {
    /// The address lies in one of these; empty for any.
    pub nets: Vec<IpNet>,
    /// The address lies in none of these.
    pub not_nets: Vec<IpNet>,
    /// The address is a member of every one of these sets.
    pub sets: Vec<SetId>,
    /// Whether the addresses that were learned for the domain names of `sets` count as members.
    pub learned: bool,
    /// The address is a member of none of these sets.
    pub not_sets: Vec<SetId>,
    /// Address, protocol and port are together a member of every one of these sets (services).
    pub addr_port_sets: Vec<SetId>,
    /// The port lies in one of these, or `named_ports` has it; both empty for any.
    pub ports: Vec<PortRange>,
    /// Address, protocol and port are together a member of one of these sets.
    pub named_ports: Vec<SetId>,
    /// The port lies in none of these.
    pub not_ports: Vec<PortRange>,
    /// Address, protocol and port are together a member of none of these sets.
    pub not_named_ports: Vec<SetId>,
}

/// A rule; without conditions it matches every packet.
///
/// A packet without ports matches no condition on ports, positive or negative; a packet that is
/// not ICMP of the right family matches no condition on ICMP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The rule's place in its document, from 0: several rules may come from one of a document.
    pub number: u32,
    /// What a match does.
    pub action: Action,
    /// The family of the packet. A rule with networks or ICMP of one family has it set.
    pub ip_version: Option<IpVersion>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Any IP protocol but this.
    pub not_protocol: Option<u8>,
    /// ICMP type and code.
    pub icmp: Option<IcmpMatch>,
    /// Any ICMP type and code but this.
    pub not_icmp: Option<IcmpMatch>,
    /// Conditions on the source.
    pub src: EntityMatch,
    /// Conditions on the destination, after service translation.
    pub dst: EntityMatch,
}

impl Rule {
    /// A rule that matches every packet.
    pub fn any(action: Action) -> Self {
        Self {
            number: 0,
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            src: EntityMatch::default(),
            dst: EntityMatch::default(),
        }
    }

    /// Every set that the rule names.
    pub fn sets(&self) -> impl Iterator<Item = &SetId> {
        [&self.src, &self.dst].into_iter().flat_map(|e| {
            (e.sets.iter())
                .chain(&e.not_sets)
                .chain(&e.addr_port_sets)
                .chain(&e.named_ports)
                .chain(&e.not_named_ports)
        })
    }
}
