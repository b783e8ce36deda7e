//! What has changed between two of the kernel's views, as far as it matters for what is in force.

use margay_engine::{PortId, Underlay};

/// Ports that are in the old view and not in the new one.
pub(crate) fn ports_gone(old: &Underlay, new: &Underlay) -> Vec<PortId> {
    let there = |id: PortId| new.ports.iter().any(|info| info.id == id);
    old.ports.iter().map(|info| info.id).filter(|id| !there(*id)).collect()
}

/// How far two views differ, the least first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    None,
    /// Only in Ethernet addresses and path MTUs: no decision changes.
    Hops,
    /// Also in which neighbours there are.
    Neighbours,
    More,
}

impl Difference {
    pub(crate) fn new(old: &Underlay, new: &Underlay) -> Self {
        let same_neighbours = old.neighbours.len() == new.neighbours.len()
            && old.neighbours.keys().all(|key| new.neighbours.contains_key(key));
        let same_rest = old.ports == new.ports
            && old.addresses == new.addresses
            && old.broadcasts == new.broadcasts
            && old.routes == new.routes
            && old.trunk_mtu == new.trunk_mtu;
        match (old == new, same_rest, same_neighbours) {
            (true, ..) => Self::None,
            (_, false, _) => Self::More,
            (_, _, false) => Self::Neighbours,
            _ => Self::Hops,
        }
    }
}
