//! Next hops as the kernel's routes and neighbours have them now.

use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{Encap, RemoteNode, State};
use margay_tables::addr::{Addr, Prefix};
use margay_tables::lpm::Lpm;

use super::adjacency::{Adjacency, DIRECT_VNI, HopKey, State as HopState};
use super::outer::{Ipip, Outer, Vxlan};
use super::port::{DeviceId, POD_GATEWAY_MAC, PortId, arrival_mac, trunk_mac};
use super::underlay::{PortInfo, Underlay};

/// What all parts of an assembly look at.
pub(super) struct Inputs<'a> {
    pub(super) state: &'a State,
    pub(super) underlay: &'a Underlay,
    /// The kernel's routes by longest prefix, to an index into the underlay's.
    kernel: Lpm,
    names: HashMap<&'a str, &'a PortInfo>,
    numbers: HashMap<PortId, &'a PortInfo>,
}

// === impl Inputs ===

impl<'a> Inputs<'a> {
    pub(super) fn new(state: &'a State, underlay: &'a Underlay) -> Self {
        Self {
            state,
            underlay,
            kernel: kernel_routes(underlay),
            names: underlay.ports.iter().map(|p| (&*p.name, p)).collect(),
            numbers: underlay.ports.iter().map(|p| (p.id, p)).collect(),
        }
    }

    /// The port of an interface.
    pub(super) fn port(&self, interface: &str) -> Option<&'a PortInfo> {
        self.names.get(interface).copied()
    }
}

/// Of several routes to one prefix the first counts.
fn kernel_routes(underlay: &Underlay) -> Lpm {
    let mut first: HashMap<Prefix, u32> = HashMap::new();
    for (index, route) in (0u32..).zip(&underlay.routes) {
        first.entry(route.dst.into()).or_insert(index);
    }
    first.into_iter().collect()
}

/// The port and neighbour by which an address of the underlay is reached.
pub(super) fn underlay_hop(inputs: &Inputs<'_>, addr: Addr) -> Option<(PortId, Addr)> {
    let route = inputs.underlay.routes.get(inputs.kernel.lookup(addr)? as usize)?;
    let hop = route.hops.first()?;
    Some((hop.port, hop.gateway.map_or(addr, Addr::from)))
}

/// Whether an address is on the network that a port is connected to.
pub(super) fn on_link(inputs: &Inputs<'_>, port: PortId, addr: Addr) -> bool {
    underlay_hop(inputs, addr) == Some((port, addr))
}

/// Whether VXLAN to a node goes over IPv6: only what is of IPv6 does, as Calico has it.
pub(super) fn underlay_v6(state: &State, remote: &RemoteNode, dst: &IpNet) -> Option<bool> {
    match dst {
        IpNet::V4(_) => (remote.v4.is_some() && state.node.v4.is_some()).then_some(false),
        IpNet::V6(_) => (remote.v6.is_some() && state.node.v6.is_some()).then_some(true),
    }
}

/// A next hop as things stand.
pub(super) fn resolve(inputs: &Inputs<'_>, key: HopKey) -> Adjacency {
    let gone = Adjacency {
        key: key.clone(),
        port: PortId::HOST,
        neighbour: None,
        state: HopState::Gone,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        outer: Outer::None,
        mtu: 0,
    };
    let found = match &key {
        HopKey::Host => Some(Adjacency {
            state: HopState::Reachable,
            src_mac: trunk_mac(0),
            dst_mac: trunk_mac(0),
            mtu: inputs.underlay.trunk_mtu,
            ..gone.clone()
        }),
        HopKey::Pod(port) => pod(inputs, *port, &gone),
        HopKey::Neighbour(port, addr) => neighbour(inputs, *port, *addr, &gone),
        HopKey::Link(port) => inputs.numbers.get(port).map(|info| Adjacency {
            port: *port,
            state: HopState::Unresolved,
            mtu: info.mtu,
            ..gone.clone()
        }),
        HopKey::Arrival(port) => inputs.numbers.get(port).map(|info| Adjacency {
            state: HopState::Reachable,
            src_mac: arrival_mac(info.ifindex),
            outer: Outer::Arrival,
            mtu: info.mtu,
            ..gone.clone()
        }),
        HopKey::Departure(port) => inputs.numbers.get(port).map(|info| Adjacency {
            port: *port,
            state: HopState::Reachable,
            src_mac: info.mac.0,
            outer: Outer::Departure,
            mtu: info.mtu,
            ..gone.clone()
        }),
        HopKey::Ipip(name) => ipip(inputs, name, &gone),
        HopKey::Vxlan(name, v6) => {
            vxlan(inputs, name, *v6, inputs.state.node.settings.vxlan_vni, &gone)
        }
        HopKey::Direct(name, v6) => vxlan(inputs, name, *v6, DIRECT_VNI, &gone),
    };
    found.unwrap_or(gone)
}

fn pod(inputs: &Inputs<'_>, port: PortId, gone: &Adjacency) -> Option<Adjacency> {
    let info = inputs.numbers.get(&port)?;
    let endpoint = inputs.state.endpoints.values().find(|e| e.interface == info.name)?;
    let src_mac = match info.device {
        DeviceId::TRUNK => trunk_mac(info.ifindex),
        _ => POD_GATEWAY_MAC,
    };
    let mtu = if endpoint.mtu == 0 { info.mtu } else { endpoint.mtu.min(info.mtu) };
    Some(Adjacency {
        port,
        state: HopState::Reachable,
        src_mac,
        dst_mac: endpoint.mac.0,
        mtu,
        ..gone.clone()
    })
}

fn neighbour(inputs: &Inputs<'_>, port: PortId, addr: Addr, gone: &Adjacency) -> Option<Adjacency> {
    let info = inputs.numbers.get(&port)?;
    let mac = inputs.underlay.neighbours.get(&(port, IpAddr::from(addr)));
    Some(Adjacency {
        port,
        neighbour: Some(addr),
        state: if mac.is_some() { HopState::Reachable } else { HopState::Unresolved },
        src_mac: info.mac.0,
        dst_mac: mac.map(|mac| mac.0).unwrap_or_default(),
        mtu: info.mtu,
        ..gone.clone()
    })
}

fn ipip(inputs: &Inputs<'_>, name: &str, gone: &Adjacency) -> Option<Adjacency> {
    let (adjacency, ends) = tunnel(inputs, name, Encap::Ipip, false, gone)?;
    let (IpAddr::V4(src), IpAddr::V4(dst)) = ends else { return None };
    Some(Adjacency { outer: Outer::Ipip(Ipip::new(src.octets(), dst.octets())), ..adjacency })
}

fn vxlan(
    inputs: &Inputs<'_>,
    name: &str,
    v6: bool,
    vni: u32,
    gone: &Adjacency,
) -> Option<Adjacency> {
    let (adjacency, ends) = tunnel(inputs, name, Encap::Vxlan, v6, gone)?;
    let (node, remote) = (&inputs.state.node, inputs.state.remotes.get(name)?);
    let vteps = (node.vtep_mac.0, remote.vtep_mac.0);
    let outer = Outer::Vxlan(Vxlan::new(ends, vteps, node.settings.vxlan_port, vni)?);
    Some(Adjacency { outer, ..adjacency })
}

/// A tunnel, without its outer headers, and its ends. It leaves by the way that the other node's address
/// has.
fn tunnel(
    inputs: &Inputs<'_>,
    name: &str,
    encap: Encap,
    v6: bool,
    gone: &Adjacency,
) -> Option<(Adjacency, (IpAddr, IpAddr))> {
    let (node, remote) = (&inputs.state.node, inputs.state.remotes.get(name)?);
    let (src, dst): (IpAddr, IpAddr) = if v6 {
        (node.v6?.0.into(), remote.v6?.into())
    } else {
        (node.v4?.0.into(), remote.v4?.into())
    };
    let (port, hop) = underlay_hop(inputs, dst.into())?;
    let mut adjacency = neighbour(inputs, port, hop, gone)?;
    let path = inputs.underlay.path_mtus.get(&dst).copied().unwrap_or(u16::MAX);
    adjacency.mtu = adjacency.mtu.min(path).saturating_sub(encap.overhead(v6));
    Some((adjacency, (src, dst)))
}
