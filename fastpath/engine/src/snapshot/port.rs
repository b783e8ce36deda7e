//! Ports: what frames come from and go to.

use std::sync::Arc;

use margay_tables::addr::Addr;

use super::adjacency::AdjacencyId;

/// First two bytes of an Ethernet address on the trunk; the index of a pod's interface follows.
pub const TRUNK_MAC_PREFIX: [u8; 2] = [0x02, 0x4d];

/// The Ethernet address that pods know their gateway by, as Calico has it.
pub const POD_GATEWAY_MAC: [u8; 6] = [0xee; 6];

/// Source address of the node's packets to services that it serves itself. Link-local: nobody else
/// ever sees it.
pub const HAIRPIN_V4: [u8; 4] = [169, 254, 77, 68];

/// The same for IPv6, a unique local address (RFC 4193) with the hash of the name in it.
pub const HAIRPIN_V6: [u8; 16] =
    [0xfd, 0x4d, 0x61, 0x72, 0x67, 0x61, 0x79, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Number of a port; it is never given to another interface while the process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// The host port.
    pub const HOST: Self = Self(0);
}

/// Number of what a worker has a socket on: the trunk, an uplink, or a pod's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u16);

impl DeviceId {
    /// The trunk.
    pub const TRUNK: Self = Self(0);
}

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// The node's own stack.
    Host,
    /// The world outside.
    Uplink,
    /// A pod; index into the snapshot's endpoints.
    Pod(u32),
    /// A pod's interface whose endpoint is not known (yet): everything from it is dropped.
    Orphan,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub id: PortId,
    /// Its interface's name in the kernel.
    pub name: Arc<str>,
    /// What is behind it.
    pub kind: PortKind,
    /// Where its frames are sent.
    pub device: DeviceId,
    /// Source address of frames that leave through it.
    pub mac: [u8; 6],
    /// The source addresses that a pod uses most: its first of either family. The rest is found
    /// through the endpoint.
    pub sources: [Addr; 2],
    /// Largest IP packet that leaves through it, in bytes.
    pub mtu: u16,
    /// An uplink's host endpoint; index into the snapshot's guards.
    pub guard: Option<u32>,
    /// The ways into the node's own stack and out of it by the kernel's choice, of an uplink.
    pub kernel: [AdjacencyId; 2],
}

/// First two bytes of an Ethernet source by which a frame of the trunk is handed to the node as
/// though it had come in by the uplink whose index the rest is.
pub const ARRIVAL_MAC_PREFIX: [u8; 2] = [0x02, 0x4e];

/// The index in an Ethernet address of the trunk's.
pub const fn trunk_index(mac: &[u8; 6]) -> Option<u32> {
    match *mac {
        [p0, p1, a, b, c, d] if p0 == TRUNK_MAC_PREFIX[0] && p1 == TRUNK_MAC_PREFIX[1] => {
            Some(u32::from_be_bytes([a, b, c, d]))
        }
        _ => None,
    }
}

/// The Ethernet address by which the trunk knows the interface with this index; 0 is the host.
pub const fn trunk_mac(ifindex: u32) -> [u8; 6] {
    let [a, b, c, d] = ifindex.to_be_bytes();
    [TRUNK_MAC_PREFIX[0], TRUNK_MAC_PREFIX[1], a, b, c, d]
}

/// The Ethernet source of frames that arrive at the node by the uplink with this index.
pub const fn arrival_mac(ifindex: u32) -> [u8; 6] {
    let [a, b, c, d] = ifindex.to_be_bytes();
    [ARRIVAL_MAC_PREFIX[0], ARRIVAL_MAC_PREFIX[1], a, b, c, d]
}
