//! Which port an interface is whose frames come by the trunk.

use hashbrown::HashMap;

use super::port::PortId;

/// Indexes below this are looked up in an array, which a small one of a long-lived node still is.
const NEAR: u32 = 1 << 16;

/// The number of no port.
const NONE: PortId = PortId(u16::MAX);

/// Ports by the index of their interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trunk {
    /// By index, as far as the largest of them: each packet needs one.
    near: Box<[PortId]>,
    /// Those with larger indexes.
    far: HashMap<u32, PortId>,
}

// === impl Trunk ===

impl FromIterator<(u32, PortId)> for Trunk {
    fn from_iter<I: IntoIterator<Item = (u32, PortId)>>(ports: I) -> Self {
        let (near, far): (Vec<_>, Vec<_>) = ports.into_iter().partition(|(index, _)| *index < NEAR);
        let len = near.iter().map(|(index, _)| *index as usize + 1).max().unwrap_or(0);
        let mut by_index = vec![NONE; len];
        for (index, port) in near {
            by_index[index as usize] = port;
        }
        Self { near: by_index.into(), far: far.into_iter().collect() }
    }
}

impl Trunk {
    /// The port of an interface.
    #[inline]
    pub fn port(&self, ifindex: u32) -> Option<PortId> {
        match self.near.get(ifindex as usize) {
            Some(port) => Some(*port).filter(|port| *port != NONE),
            None if ifindex < NEAR => None,
            None => self.far.get(&ifindex).copied(),
        }
    }

    /// The interface of a port.
    pub fn ifindex(&self, port: PortId) -> Option<u32> {
        let near = self.near.iter().position(|near| *near == port).map(|index| index as u32);
        near.or_else(|| self.far.iter().find(|(_, far)| **far == port).map(|(index, _)| *index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_whatever_their_interfaces_index_is() {
        let ports = [(3, PortId(0)), (70, PortId(9)), (NEAR - 1, PortId(1)), (NEAR, PortId(2))];
        let trunk: Trunk = ports.into_iter().chain([(u32::MAX, PortId(3))]).collect();
        for (index, port) in ports {
            assert_eq!((trunk.port(index), trunk.ifindex(port)), (Some(port), Some(index)));
        }
        assert_eq!(trunk.port(u32::MAX), Some(PortId(3)));
        for index in [0, 69, 71, NEAR - 2, NEAR + 1] {
            assert_eq!(trunk.port(index), None);
        }
        assert_eq!(trunk.ifindex(PortId(4)), None);
        assert_eq!(Trunk::default().port(0), None);
    }
}
