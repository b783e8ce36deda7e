//! What the kernel is wanted to have, by what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use margay_engine::snapshot::{HAIRPIN_V4, HAIRPIN_V6};
use margay_model::{Pool, RouteTarget, State};

use crate::fronts::Fronts;
use crate::kernel::{Desired, HostRoute, KERNEL_END, KernelView, NodePortAccess};

/// Ranges of node ports of one protocol that have rules of their own.
const RANGES: usize = 32;

/// The kernel's part for a state, whose services are reached by `fronts`; queues and MTU of the trunk
/// stay as they are.
pub(crate) fn desired(
    state: &State,
    fronts: &Fronts,
    view: &KernelView,
    last: &Desired,
) -> Desired {
    Desired {
        queues: last.queues,
        mtu: last.mtu,
        tunnel_addresses: state.node.tunnel_addresses.iter().map(|t| t.address).collect(),
        routes: routes(state, fronts, view),
        node_ports: node_ports(state, fronts, view),
        reserved_ports: reserved_ports(state, fronts, view),
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
        reserved_ports: vec![margay_model::Settings::default().snat_ports],
    }
}

/// Pools, local blocks and services lead to the trunk. Remote blocks carry the tunnel's address
/// where all ways between nodes are tunnels. A service's address in a named range has its route:
/// ten thousand of their own would be looked through at every change.
fn routes(state: &State, fronts: &Fronts, view: &KernelView) -> Vec<HostRoute> {
    let route = |dst: IpNet, source| HostRoute { dst, source, mtu: None };
    let mut routes: Vec<_> =
        state.pools.values().map(|pool| route(pool.cidr, pool_source(state, pool))).collect();
    let blocks = state.routes.iter().filter(|(_, target)| **target == RouteTarget::LocalBlock);
    routes.extend(blocks.map(|(dst, _)| route(*dst, own(state, dst))));
    // Addresses that pods have of elsewhere: borrowed, or out of no pool.
    let pods = state.endpoints.values().flat_map(|pod| pod.addresses.iter().copied());
    let covered = |addr: &IpAddr| routes.iter().any(|route| route.dst.contains(addr));
    let pods: Vec<_> = pods.filter(|addr| !covered(addr)).map(IpNet::from).collect();
    routes.extend(pods.into_iter().map(|dst| route(dst, own(state, &dst))));
    let ranges = &state.node.settings.service_ranges;
    let services: BTreeSet<IpNet> = (fronts.addresses())
        .filter(|addr| !view.has_address(*addr))
        .filter(|addr| !ranges.iter().any(|range| range.contains(addr)))
        .map(IpNet::from)
        .chain(ranges.iter().copied())
        .collect();
    routes.extend(services.into_iter().map(|dst| route(dst, own(state, &dst))));
    // Answers of the node to itself through a service.
    if *fronts != Fronts::default() {
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

/// The node's addresses and the ports that services have on them. Rules are few: a kernel asks them
/// one by one for every packet of the node.
fn node_ports(state: &State, fronts: &Fronts, view: &KernelView) -> Option<NodePortAccess> {
    let mut used = BTreeMap::<u8, BTreeSet<u16>>::new();
    for (protocol, port) in &fronts.node_ports {
        used.entry(*protocol).or_default().insert(*port);
    }
    let ports = used.into_iter().map(|(protocol, ports)| (protocol, ranges(&ports)));
    let named = &state.node.settings.node_port_addresses;
    let answers = |addr: &IpAddr| named.is_empty() || named.iter().any(|net| net.contains(addr));
    let access = NodePortAccess {
        addresses: own_addresses(state, view).into_iter().filter(answers).collect(),
        ports: ports.collect(),
    };
    (!access.ports.is_empty()).then_some(access)
}

/// The node's addresses by which others reach it.
fn own_addresses(state: &State, view: &KernelView) -> BTreeSet<IpAddr> {
    let ours = |index: &u32| view.links.get(index).is_some_and(|link| &*link.name == KERNEL_END);
    let is_global = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => !addr.is_loopback() && !addr.is_link_local(),
        IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
    };
    let of_kernel = view.addresses.iter().filter(|(index, _)| !ours(index));
    let of_kernel = of_kernel.map(|(_, net)| net.addr()).filter(is_global);
    let told = [state.node.v4.map(|(a, _)| a.into()), state.node.v6.map(|(a, _)| a.into())];
    of_kernel.chain(told.into_iter().flatten()).collect()
}

/// What comes to these ports of the node's is the dataplane's: answers to what is masqueraded, and
/// what asks for services. The answers to a connection of the node from one of them would be too.
fn reserved_ports(state: &State, fronts: &Fronts, view: &KernelView) -> Vec<(u16, u16)> {
    let outside = fronts.outside.iter().filter(|(addr, ..)| view.has_address(*addr));
    let services = outside.map(|(.., port)| port).chain(fronts.node_ports.iter().map(|(_, p)| p));
    let services: BTreeSet<u16> = services.copied().collect();
    let services = services.into_iter().map(|port| (port, port));
    std::iter::once(state.node.settings.snat_ports).chain(services).collect()
}

/// Ports as ranges; where there would be too many, the one that holds them all.
fn ranges(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    match (ports.first(), ports.last()) {
        (Some(first), Some(last)) if ranges.len() > RANGES => vec![(*first, *last)],
        _ => ranges,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use margay_model::{Backend, Service};

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
            cluster_backends: vec![Backend { addr: ip("10.65.0.2"), port: 80 }],
            ..Service::default()
        };
        state.services.insert(service.key.clone(), service.into());
        let routes = routes(&state, &Fronts::of(&state), &KernelView::default());
        let text: Vec<_> = routes.iter().map(|route| route.dst.to_string()).collect();
        assert_eq!(text, ["10.96.0.0/16", "10.97.0.1/32", "203.0.113.7/32"]);
    }

    #[test]
    fn the_ports_of_services_on_the_nodes_addresses_are_reserved() {
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        let view = KernelView {
            addresses: Arc::new([(2, IpNet::from(own))].into()),
            ..KernelView::default()
        };
        let fronts = Fronts {
            outside: [(own, 6, 40_443), ("198.18.0.1".parse().unwrap(), 6, 40_080)].into(),
            node_ports: [(6, 50_051), (17, 50_051), (17, 30_053)].into(),
            ..Fronts::default()
        };
        let (state, one) = (State::default(), |port| (port, port));
        let snat = state.node.settings.snat_ports;
        let reserved = reserved_ports(&state, &fronts, &view);
        assert_eq!(reserved, [snat, one(30_053), one(40_443), one(50_051)]);
    }

    #[test]
    fn node_ports_are_named_one_by_one_while_they_are_few() {
        assert_eq!(ranges(&[30_001, 30_002, 30_007].into()), [(30_001, 30_002), (30_007, 30_007)]);
        let scattered: BTreeSet<u16> = (0..=RANGES as u16).map(|n| 30_000 + 2 * n).collect();
        assert_eq!(ranges(&scattered), [(30_000, 30_000 + 2 * RANGES as u16)]);
        assert_eq!(ranges(&BTreeSet::new()), []);
    }
}
