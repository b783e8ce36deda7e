//! Address sets in the form that packets are tested against.

use margay_model::{AddressSet, Member};

use crate::addr::{Addr, Prefix};
use crate::cow::CowMap;
use crate::lpm::Lpm;

/// A set of addresses and networks, or of address-protocol-port triples. Cloning shares, and a
/// change of a member costs a few microseconds whatever the size.
#[derive(Clone, Debug, Default)]
pub struct IpSet {
    addrs: CowMap<Addr, ()>,
    nets: Lpm<()>,
    ports: CowMap<AddrPort, ()>,
}

/// Address, IP protocol, port.
pub type AddrPort = (Addr, u8, u16);

/// A member in the tables' words; a network of one address is that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// One address.
    Addr(Addr),
    /// A network.
    Net(Prefix),
    /// A port of an address.
    Port(AddrPort),
}

// === impl IpSet ===

impl IpSet {
    /// Whether an address or a network that contains it is a member.
    #[inline]
    pub fn contains_addr(&self, addr: Addr) -> bool {
        self.addrs.contains(&addr) || self.nets.matches(addr).next().is_some()
    }

    /// Whether the triple is a member.
    #[inline]
    pub fn contains_addr_port(&self, addr: Addr, protocol: u8, port: u16) -> bool {
        self.ports.contains(&(addr, protocol, port))
    }

    /// Whether exactly this is a member.
    pub fn has(&self, element: Element) -> bool {
        match element {
            Element::Addr(addr) => self.addrs.contains(&addr),
            Element::Net(prefix) => self.nets.get(prefix).is_some(),
            Element::Port(port) => self.ports.contains(&port),
        }
    }

    /// Adds a member; `false` if it was there.
    pub fn insert(&mut self, element: Element) -> bool {
        match element {
            Element::Addr(addr) => self.addrs.insert(addr, ()).is_none(),
            Element::Net(prefix) => self.nets.insert(prefix, ()).is_none(),
            Element::Port(port) => self.ports.insert(port, ()).is_none(),
        }
    }

    /// Takes a member out; `false` if it was not there.
    pub fn remove(&mut self, element: Element) -> bool {
        match element {
            Element::Addr(addr) => self.addrs.remove(&addr).is_some(),
            Element::Net(prefix) => self.nets.remove(prefix).is_some(),
            Element::Port(port) => self.ports.remove(&port).is_some(),
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.addrs.len() + self.nets.len() + self.ports.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All members, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Element> {
        let addrs = self.addrs.iter().map(|(addr, ())| Element::Addr(*addr));
        let nets = self.nets.iter().map(|(prefix, ())| Element::Net(prefix));
        let ports = self.ports.iter().map(|(port, ())| Element::Port(*port));
        addrs.chain(nets).chain(ports)
    }
}

impl From<&AddressSet> for IpSet {
    fn from(set: &AddressSet) -> Self {
        let mut compiled = Self::default();
        for member in &set.members {
            compiled.insert((*member).into());
        }
        compiled
    }
}

// === impl Element ===

impl From<Member> for Element {
    fn from(member: Member) -> Self {
        match member {
            Member::Net(net) => {
                let prefix = Prefix::from(net);
                if prefix.len128() == 128 { Self::Addr(prefix.addr()) } else { Self::Net(prefix) }
            }
            Member::AddrPort { addr, protocol, port } => Self::Port((addr.into(), protocol, port)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use std::net::IpAddr;

    fn net(text: &str) -> Element {
        Member::Net(text.parse::<IpNet>().unwrap()).into()
    }

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn addresses_networks_and_ports_are_told_apart() {
        let port = Member::AddrPort { addr: "10.9.0.1".parse().unwrap(), protocol: 6, port: 80 };
        let mut set = IpSet::default();
        for element in [net("10.0.0.1/32"), net("10.1.0.0/16"), net("fd00::/16"), port.into()] {
            assert!(set.insert(element) && !set.insert(element) && set.has(element));
        }
        for (text, expected) in [
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("10.1.2.3", true),
            ("fd00::5", true),
            ("10.9.0.1", false),
        ] {
            assert_eq!(set.contains_addr(addr(text)), expected, "{text}");
        }
        assert!(set.contains_addr_port(addr("10.9.0.1"), 6, 80));
        assert!(!set.contains_addr_port(addr("10.9.0.1"), 17, 80));
        assert!(!set.contains_addr_port(addr("10.1.0.1"), 6, 80));
        assert_eq!((set.len(), set.iter().count()), (4, 4));
    }

    #[test]
    fn a_member_that_leaves_uncovers_the_network_around_it() {
        let mut set = IpSet::default();
        set.insert(net("10.1.0.0/16"));
        set.insert(net("10.1.0.1/32"));
        let copy = set.clone();
        assert!(set.remove(net("10.1.0.0/16")) && !set.remove(net("10.1.0.0/16")));
        assert!(set.contains_addr(addr("10.1.0.1")) && !set.contains_addr(addr("10.1.0.2")));
        assert!(copy.contains_addr(addr("10.1.0.2")));
    }
}
