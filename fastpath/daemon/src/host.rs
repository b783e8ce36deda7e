//! What the kernel is wanted to have, by what is in force.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use margay_engine::snapshot::{HAIRPIN_V4, HAIRPIN_V6};
use margay_model::{Pool, RouteTarget, State};

use crate::kernel::{Desired, HostRoute, KernelView, NodePortAccess};

/// Node ports as Kubernetes hands them out.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// The kernel's part for a state; queues and MTU of the trunk stay as they are.
pub(crate) fn desired(state: &State, view: &KernelView, last: &Desired) -> Desired {
    Desired {
        queues: last.queues,
        mtu: last.mtu,
        tunnel_addresses: state.node.tunnel_addresses.iter().map(|t| t.address).collect(),
        routes: routes(state, view),
        node_ports: node_ports(state),
        snat_ports: state.node.settings.snat_ports,
    }
}

/// Nothing but the trunk.
pub(crate) fn nothing(queues: u32) -> Desired {
    Desired {
        queues,
        mtu: 1500,
        tunnel_addresses: BTreeSet::new(),
        routes: Vec::new(),
        node_ports: None,
        snat_ports: margay_model::Settings::default().snat_ports,
    }
}

/// Pools, local blocks and services lead to the trunk. Remote blocks carry the tunnel's address
/// where all ways between nodes are tunnels.
fn routes(state: &State, view: &KernelView) -> Vec<HostRoute> {
    let route = |dst: IpNet, source| HostRoute { dst, source, mtu: None };
    let mut routes: Vec<_> =
        state.pools.values().map(|pool| route(pool.cidr, pool_source(state, pool))).collect();
    let blocks = state.routes.iter().filter(|(_, target)| **target == RouteTarget::LocalBlock);
    routes.extend(blocks.map(|(dst, _)| route(*dst, own(state, dst))));
    let services: BTreeSet<IpNet> = (state.services.values())
        .flat_map(|s| s.cluster_ips.iter().chain(&s.external_ips).chain(&s.load_balancer_ips))
        .filter(|addr| !view.has_address(**addr))
        .map(|addr| IpNet::from(*addr))
        .chain(state.node.settings.service_ranges.iter().copied())
        .collect();
    routes.extend(services.into_iter().map(|dst| route(dst, own(state, &dst))));
    // Answers of the node to itself through a service.
    if !state.services.is_empty() {
        let hairpins = [IpAddr::from(HAIRPIN_V4), IpAddr::from(HAIRPIN_V6)].map(IpNet::from);
        let ours = hairpins.into_iter().filter(|dst| own(state, dst).is_some());
        routes.extend(ours.map(|dst| route(dst, own(state, &dst))));
    }
    routes.sort_by_key(|route| route.dst);
    routes.dedup_by_key(|route| route.dst);
    routes
}

fn pool_source(state: &State, pool: &Pool) -> Option<IpAddr> {
    let v4 = matches!(pool.cidr, IpNet::V4(_));
    let mut tunnels = state.node.tunnel_addresses.iter();
    let tunnel = tunnels.find(|t| t.encap == pool.encap && t.address.is_ipv4() == v4);
    match tunnel {
        Some(tunnel) if pool.encap_always => Some(tunnel.address),
        _ => own(state, &pool.cidr),
    }
}

/// The node's own address of a family.
fn own(state: &State, dst: &IpNet) -> Option<IpAddr> {
    match dst {
        IpNet::V4(_) => state.node.v4.map(|(addr, _)| addr.into()),
        IpNet::V6(_) => state.node.v6.map(|(addr, _)| addr.into()),
    }
}

fn node_ports(state: &State) -> Option<NodePortAccess> {
    state.services.values().any(|service| service.node_port.is_some()).then(|| NodePortAccess {
        addresses: [
            state.node.v4.map(|(addr, _)| addr.into()),
            state.node.v6.map(|(addr, _)| addr.into()),
        ]
        .into_iter()
        .flatten()
        .collect(),
        ports: NODE_PORTS,
    })
}
