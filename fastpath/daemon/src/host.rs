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
/// where all ways between nodes are tunnels. A service's address in a named range has its route:
/// ten thousand of their own would be looked through at every change.
fn routes(state: &State, view: &KernelView) -> Vec<HostRoute> {
    let route = |dst: IpNet, source| HostRoute { dst, source, mtu: None };
    let mut routes: Vec<_> =
        state.pools.values().map(|pool| route(pool.cidr, pool_source(state, pool))).collect();
    let blocks = state.routes.iter().filter(|(_, target)| **target == RouteTarget::LocalBlock);
    routes.extend(blocks.map(|(dst, _)| route(*dst, own(state, dst))));
    let ranges = &state.node.settings.service_ranges;
    let services: BTreeSet<IpNet> = (state.services.values())
        .flat_map(|s| s.cluster_ips.iter().chain(&s.external_ips).chain(&s.load_balancer_ips))
        .filter(|addr| !view.has_address(**addr))
        .filter(|addr| !ranges.iter().any(|range| range.contains(*addr)))
        .map(|addr| IpNet::from(*addr))
        .chain(ranges.iter().copied())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use margay_model::{Backend, Selection, Service, TrafficPolicy};

    use super::*;

    #[test]
    fn a_service_has_a_route_of_its_own_only_outside_of_all_ranges() {
        let mut state = State::default();
        let node = Arc::make_mut(&mut state.node);
        node.settings.service_ranges = vec!["10.96.0.0/16".parse().unwrap()];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let service = Service {
            key: "web".into(),
            protocol: 6,
            port: 80,
            cluster_ips: vec![ip("10.96.0.1"), ip("10.97.0.1")],
            external_ips: vec![ip("203.0.113.7")],
            load_balancer_ips: Vec::new(),
            load_balancer_sources: Vec::new(),
            node_port: None,
            internal: TrafficPolicy::Cluster,
            external: TrafficPolicy::Cluster,
            affinity: None,
            selection: Selection::Even,
            cluster_backends: vec![Backend { addr: ip("10.65.0.2"), port: 80 }],
            local_backends: Vec::new(),
            kept_backends: Vec::new(),
        };
        state.services.insert(service.key.clone(), service.into());
        let routes = routes(&state, &KernelView::default());
        let text: Vec<_> = routes.iter().map(|route| route.dst.to_string()).collect();
        assert_eq!(text, ["10.96.0.0/16", "10.97.0.1/32", "203.0.113.7/32"]);
    }
}
