//! What the uplink's XDP program has to redirect, by what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use margay_engine::Underlay;
use margay_model::{Encap, Failsafe, State};
use margay_xsk::program::{AddressClass, SafePort, UplinkConfig};

use crate::fronts::Fronts;

/// Address classes, service ports on the node's addresses, and the rest.
pub(crate) struct Classes {
    /// Class of each network.
    pub addresses: BTreeMap<IpNet, AddressClass>,
    /// Protocol and port of what answers on the node's addresses.
    pub ports: BTreeSet<(u8, u16)>,
    /// The rest, of an uplink without host endpoint.
    pub config: UplinkConfig,
    /// Uplinks that a host endpoint stands for.
    pub guarded: BTreeSet<String>,
    /// Ports of the node, and elsewhere, that those leave to the kernel.
    pub failsafes: [BTreeSet<SafePort>; 2],
}

impl Classes {
    /// The classes for a state, whose services are reached by `fronts`, on a node with these uplinks
    /// guarded.
    pub(crate) fn new(
        state: &State,
        fronts: &Fronts,
        underlay: &Underlay,
        guarded: BTreeSet<String>,
    ) -> Self {
        let mut addresses = BTreeMap::new();
        for range in &state.node.settings.service_ranges {
            addresses.insert(*range, AddressClass::SERVICE);
        }
        for pool in state.pools.keys() {
            addresses.insert(*pool, AddressClass::POOL);
        }
        // Pods that have addresses out of no pool.
        let in_pool = |addr: &&IpAddr| state.pools.keys().any(|pool| pool.contains(*addr));
        let pods = state.endpoints.values().flat_map(|pod| &pod.addresses);
        let stray = pods.filter(|addr| !in_pool(addr));
        addresses.extend(stray.map(|addr| (IpNet::from(*addr), AddressClass::POOL)));
        let own = own(state, underlay);
        addresses.extend(fronts.addresses().map(|a| (IpNet::from(a), AddressClass::SERVICE)));
        // Only an address that the node shares with a service takes a port from the node.
        let shared = fronts.outside.iter().filter(|(addr, ..)| own.contains(addr));
        let shared = shared.map(|(_, protocol, port)| (*protocol, *port));
        let ports = fronts.node_ports.iter().copied().chain(shared).collect();
        // The node's own addresses decide last: they are the most specific, and its own traffic
        // must pass whatever else they are.
        addresses.extend(own.into_iter().map(|addr| (IpNet::from(addr), AddressClass::NODE)));
        let encap = |kind| state.pools.values().any(|pool| pool.encap == kind);
        let settings = &state.node.settings;
        let config = UplinkConfig {
            vxlan_port: (encap(Encap::Vxlan) || settings.direct_return)
                .then_some(settings.vxlan_port),
            ipip: encap(Encap::Ipip),
            snat_ports: Some(settings.snat_ports.0..=settings.snat_ports.1),
            guard: None,
        };
        let failsafes = [&settings.failsafe_inbound, &settings.failsafe_outbound]
            .map(|failsafes| safe_ports(failsafes));
        Self { addresses, ports, config, guarded, failsafes }
    }
}

fn safe_ports(failsafes: &[Failsafe]) -> BTreeSet<SafePort> {
    let safe =
        |open: &Failsafe| SafePort { protocol: open.protocol, port: open.port, net: open.net };
    failsafes.iter().map(safe).collect()
}

fn own(state: &State, underlay: &Underlay) -> BTreeSet<IpAddr> {
    underlay.addresses.iter().copied().chain(state.node.addresses()).collect()
}

#[cfg(test)]
mod tests {
    use margay_model::Service;

    use super::*;

    #[test]
    fn a_services_port_is_the_nodes_unless_they_share_an_address() {
        let underlay =
            Underlay { addresses: vec!["192.0.2.1".parse().unwrap()], ..Underlay::default() };
        let mut state = State::default();
        let mut add = |name: &str, port, external: &str| {
            let service = Service {
                key: name.into(),
                protocol: 6,
                port,
                cluster_ips: vec!["10.96.0.1".parse().unwrap()],
                external_ips: vec![external.parse().unwrap()],
                ..Service::default()
            };
            state.services.insert(service.key.clone(), service.into());
        };
        add("ssh", 22, "198.51.100.7");
        add("web", 80, "192.0.2.1");
        let classes = Classes::new(&state, &Fronts::of(&state), &underlay, BTreeSet::new());
        assert_eq!(classes.ports, [(6, 80)].into());
    }
}
