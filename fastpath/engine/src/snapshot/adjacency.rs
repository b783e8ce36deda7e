//! Next hops: everything that is written around a packet on its way out.

use std::sync::Arc;

use margay_tables::addr::Addr;

use super::outer::Outer;
use super::port::PortId;

/// Number of a next hop; it keeps its meaning while the process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdjacencyId(pub u32);

impl AdjacencyId {
    /// The node's own stack: always the first.
    pub const HOST: Self = Self(0);
}

/// The VXLAN network of connections that a backend's node answers itself. It is the one in which
/// Calico forwards packets of external services.
pub const DIRECT_VNI: u32 = 0xca_11c0;

/// What identifies a next hop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HopKey {
    /// The node's own stack.
    Host,
    /// The pod behind a port.
    Pod(PortId),
    /// A neighbour on an uplink.
    Neighbour(PortId, Addr),
    /// Whoever the packet is addressed to, on an uplink's own network: never reachable itself, but
    /// asking for the neighbour makes it one.
    Link(PortId),
    /// The node's own stack, as though the packet had just come in by an uplink: with a host
    /// endpoint on it, what passes its policy is the kernel's.
    Arrival(PortId),
    /// Out of an uplink, to the neighbour that the kernel has chosen for the packet.
    Departure(PortId),
    /// An IPIP tunnel to the named node.
    Ipip(Arc<str>),
    /// A VXLAN tunnel to the named node; whether the underlay is IPv6.
    Vxlan(Arc<str>, bool),
    /// The same for connections that the named node is to answer itself: their packets travel as
    /// their clients sent them, in a network of their own ([`DIRECT_VNI`]).
    Direct(Arc<str>, bool),
}

/// Whether frames can be sent to a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its Ethernet address is known.
    Reachable,
    /// The kernel has been asked for its Ethernet address.
    Unresolved,
    /// There is no way to it.
    Gone,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// What it is.
    pub key: HopKey,
    /// The port to leave by.
    pub port: PortId,
    /// The neighbour whose Ethernet address is wanted; `None` for a link: it is the packet's
    /// destination.
    pub neighbour: Option<Addr>,
    /// Whether frames can be sent.
    pub state: State,
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// What is put around the packet.
    pub outer: Outer,
    /// Largest inner IP packet that passes, in bytes.
    pub mtu: u16,
}

// === impl Adjacency ===

impl Adjacency {
    /// Whether packets leave as their clients sent them, for the node there to translate.
    #[inline]
    pub fn is_direct(&self) -> bool {
        matches!(self.key, HopKey::Direct(..))
    }
}
