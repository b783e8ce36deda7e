//! Address sets: what selectors and named ports become.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::domain::DomainPattern;

/// Identifies a set; equal for equal meaning, so that rules of several policies share one.
pub type SetId = Arc<str>;

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Every address of a network; a single address is a /32 or /128.
    Net(IpNet),
    /// A port of an address: named ports and services.
    AddrPort {
        /// The address.
        addr: IpAddr,
        /// IP protocol number.
        protocol: u8,
        /// Port in host byte order.
        port: u16,
    },
}

/// The members of a set. A set of `Net` and a set of `AddrPort` are never mixed in one rule field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    /// All members, ordered.
    pub members: BTreeSet<Member>,
    /// Names whose addresses are members too, as the dataplane learns them from answers to pods:
    /// for rules that ask for learned members ([`crate::EntityMatch::learned`]).
    pub domains: BTreeSet<DomainPattern>,
}

impl<I: IntoIterator<Item = Member>> From<I> for AddressSet {
    fn from(members: I) -> Self {
        Self { members: members.into_iter().collect(), domains: BTreeSet::new() }
    }
}
