//! What the node's kernel says, as far as forwarding needs it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::Mac;

use super::port::{DeviceId, PortId};

/// An interface that is a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its number.
    pub id: PortId,
    /// Its name.
    pub name: Arc<str>,
    /// Its index in the kernel.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// What its frames are sent through.
    pub device: DeviceId,
    /// Whether it is an uplink; otherwise it is a pod's.
    pub uplink: bool,
    /// Addresses that the node has on it, link-local ones too.
    pub addresses: Vec<IpAddr>,
}

/// One of the ways of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The uplink.
    pub port: PortId,
    /// The router; `None` on a connected network.
    pub gateway: Option<IpAddr>,
}

/// A route of the kernel that leaves by uplinks, or refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Destination.
    pub dst: IpNet,
    /// Equal ways; none where it refuses (blackhole, unreachable, prohibit).
    pub hops: Vec<NextHop>,
}

/// The kernel's view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Uplinks and pods' interfaces.
    pub ports: Vec<PortInfo>,
    /// Every address of the node, on any interface.
    pub addresses: Vec<IpAddr>,
    /// Addresses that the node has in common with others on its networks: IPv4 broadcasts, and the
    /// routers' anycast address of IPv6 (RFC 4291 §2.6.1).
    pub broadcasts: Vec<IpAddr>,
    /// Routes that leave by uplinks or refuse; of several to one prefix the first counts.
    pub routes: Vec<KernelRoute>,
    /// Neighbours whose Ethernet address is known.
    pub neighbours: HashMap<(PortId, IpAddr), Mac>,
    /// MTU of the trunk in bytes.
    pub trunk_mtu: u16,
    /// What the way to the far end of a tunnel takes, where a router said that it is less than
    /// the uplink's MTU: bytes of the outer IP packet (RFC 2003 §5.1).
    pub path_mtus: BTreeMap<IpAddr, u16>,
}
