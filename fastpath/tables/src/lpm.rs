//! Longest-prefix match: which network of a table an address lies in most closely.
//!
//! One persistent hash map for each prefix length that occurs, tried from the longest. Tables of
//! a cluster have few lengths (hosts, blocks, pools, a default), so a lookup is a handful of
//! probes; a change touches one entry, and a copy is a handful of reference counts. A trie would
//! do fewer probes for tables with all lengths, and pays for it at every change.

use crate::addr::{Addr, Prefix};
use crate::cow::CowMap;

/// A map from networks of both families to values, numbers as a rule. Cloning shares.
#[derive(Clone, Debug)]
pub struct Lpm<V = u32> {
    v4: Lengths<V>,
    v6: Lengths<V>,
}

/// The networks of one family, longest first; no length without networks.
type Lengths<V> = Vec<(u8, CowMap<Addr, V>)>;

// === impl Lpm ===

impl<V: Copy> Lpm<V> {
    /// The value of the longest network that contains `addr`.
    #[inline]
    pub fn lookup(&self, addr: Addr) -> Option<V> {
        self.matches(addr).next().map(|(value, _)| *value)
    }

    /// The same, and the network's length within 128 bits (96 + n for IPv4 /n).
    #[inline]
    pub fn lookup_with_len(&self, addr: Addr) -> Option<(V, u8)> {
        self.matches(addr).next().map(|(value, len)| (*value, len))
    }
}

impl<V: Clone> Lpm<V> {
    /// Value and length of every network that contains `addr`, longest first.
    #[inline]
    pub fn matches(&self, addr: Addr) -> impl Iterator<Item = (&V, u8)> {
        let family = if addr.is_v4() { &self.v4 } else { &self.v6 };
        family
            .iter()
            .filter_map(move |(len, map)| map.get(&addr.masked(*len)).map(|value| (value, *len)))
    }

    /// The value of exactly this network.
    pub fn get(&self, prefix: Prefix) -> Option<&V> {
        let family = if prefix.is_v4() { &self.v4 } else { &self.v6 };
        let at = position(family, prefix).ok()?;
        family.get(at)?.1.get(&prefix.addr())
    }

    /// The value of exactly this network, for changing it; made by `default` if it is not there.
    pub fn entry(&mut self, prefix: Prefix, default: impl FnOnce() -> V) -> Option<&mut V> {
        self.map_mut(prefix)?.entry(prefix.addr(), default)
    }

    /// Sets a network's value, returns the old one.
    pub fn insert(&mut self, prefix: Prefix, value: V) -> Option<V> {
        self.map_mut(prefix)?.insert(prefix.addr(), value)
    }

    /// Takes a network out.
    pub fn remove(&mut self, prefix: Prefix) -> Option<V> {
        let family = self.family_mut(prefix);
        let at = position(family, prefix).ok()?;
        let (_, map) = family.get_mut(at)?;
        let value = map.remove(&prefix.addr())?;
        if map.is_empty() {
            family.remove(at);
        }
        Some(value)
    }

    /// Number of networks.
    pub fn len(&self) -> usize {
        self.v4.iter().chain(&self.v6).map(|(_, map)| map.len()).sum()
    }

    /// Whether there are no networks.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// All networks and their values, longest first, IPv4 before IPv6.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &V)> {
        self.v4.iter().chain(&self.v6).flat_map(|(len, map)| {
            map.iter().map(|(addr, value)| (Prefix::new(*addr, *len), value))
        })
    }

    fn family_mut(&mut self, prefix: Prefix) -> &mut Lengths<V> {
        if prefix.is_v4() { &mut self.v4 } else { &mut self.v6 }
    }

    fn map_mut(&mut self, prefix: Prefix) -> Option<&mut CowMap<Addr, V>> {
        let family = self.family_mut(prefix);
        let at = position(family, prefix).unwrap_or_else(|at| {
            let len = prefix.len128();
            family.insert(at, (len, CowMap::new(u64::from(len))));
            at
        });
        family.get_mut(at).map(|(_, map)| map)
    }
}

/// Where a network's length is, or belongs.
fn position<V>(family: &Lengths<V>, prefix: Prefix) -> Result<usize, usize> {
    family.binary_search_by(|(len, _)| prefix.len128().cmp(len))
}

impl<V> Default for Lpm<V> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V: Clone> FromIterator<(Prefix, V)> for Lpm<V> {
    fn from_iter<I: IntoIterator<Item = (Prefix, V)>>(networks: I) -> Self {
        let mut lpm = Self::default();
        for (prefix, value) in networks {
            lpm.insert(prefix, value);
        }
        lpm
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    fn net(text: &str) -> Prefix {
        text.parse::<IpNet>().unwrap().into()
    }

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_longest_network_wins_and_families_are_apart() {
        let table: Lpm = [("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.2.3/32", 3), ("::/0", 4)]
            .into_iter()
            .map(|(text, value)| (net(text), value))
            .collect();
        for (text, value) in [("1.1.1.1", 1), ("10.1.2.4", 2), ("10.1.2.3", 3), ("fd00::1", 4)] {
            assert_eq!(table.lookup(addr(text)), Some(value), "{text}");
        }
        assert_eq!(table.lookup_with_len(addr("10.9.9.9")), Some((2, 104)));
    }

    #[test]
    fn a_default_route_of_ipv6_alone_serves_no_ipv4() {
        let table: Lpm = [(net("::/0"), 1)].into_iter().collect();
        assert_eq!(table.lookup(addr("10.0.0.1")), None);
    }

    /// Networks and addresses from a small corner, so that they meet.
    fn corner() -> impl Strategy<Value = (bool, u8, u16)> {
        (any::<bool>(), 0u8..=16, any::<u16>().prop_map(|bits| bits & 0x81c3))
    }

    fn corner_addr(v6: bool, bits: u16) -> Addr {
        if v6 {
            Addr::from_bits(u128::from(bits) << 112)
        } else {
            Addr::from_v4_bits(u32::from(bits) << 16)
        }
    }

    fn corner_prefix((v6, len, bits): (bool, u8, u16)) -> Prefix {
        let base = corner_addr(v6, bits);
        if v6 && base.masked(len).is_v4() {
            return net("::/0");
        }
        Prefix::new(base, if v6 { len } else { 96 + len })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_scan(
            changes in prop::collection::vec((corner(), any::<Option<u32>>()), 0..60),
            probes in prop::collection::vec((any::<bool>(), any::<u16>()), 20),
        ) {
            let mut table = Lpm::default();
            let mut model = BTreeMap::new();
            for (at, value) in changes {
                let prefix = corner_prefix(at);
                match value {
                    Some(value) => prop_assert_eq!(table.insert(prefix, value), model.insert(prefix, value)),
                    None => prop_assert_eq!(table.remove(prefix), model.remove(&prefix)),
                }
            }
            prop_assert_eq!(table.iter().map(|(p, v)| (p, *v)).collect::<BTreeMap<_, _>>(), model.clone());
            prop_assert_eq!(table.len(), model.len());
            for (v6, bits) in probes {
                let addr = corner_addr(v6, bits & 0x81c3);
                let scan = model.iter().filter(|(p, _)| p.contains(addr)).max_by_key(|(p, _)| p.len128());
                let expected = scan.map(|(p, value)| (*value, p.len128()));
                prop_assert_eq!(table.lookup_with_len(addr), expected);
            }
        }
    }
}
