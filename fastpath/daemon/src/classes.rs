//! What the uplink's XDP program has to redirect, by what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use margay_engine::Underlay;
use margay_model::{Encap, State};
use margay_xsk::program::{AddressClass, UplinkConfig};

/// Address classes, service ports on the node's addresses, and the rest.
pub(crate) struct Classes {
    /// Class of each network.
    pub addresses: BTreeMap<IpNet, AddressClass>,
    /// Protocol and port of what answers on the node's addresses.
    pub ports: BTreeSet<(u8, u16)>,
    /// The rest.
    pub config: UplinkConfig,
}

impl Classes {
    /// The classes for a state on a node.
    pub(crate) fn new(state: &State, underlay: &Underlay) -> Self {
        let mut addresses = BTreeMap::new();
        for range in &state.node.settings.service_ranges {
            addresses.insert(*range, AddressClass::SERVICE);
        }
        for pool in state.pools.keys() {
            addresses.insert(*pool, AddressClass::POOL);
        }
        let mut ports = BTreeSet::new();
        for service in state.services.values() {
            let outside = service.external_ips.iter().chain(&service.load_balancer_ips);
            for addr in service.cluster_ips.iter().chain(outside) {
                addresses.insert(IpNet::from(*addr), AddressClass::SERVICE);
                // An external address may be the node's own.
                ports.insert((service.protocol, service.port));
            }
            ports.extend(service.node_port.map(|port| (service.protocol, port)));
        }
        // The node's own addresses decide last: they are the most specific, and its own traffic
        // must pass whatever else they are.
        for addr in own(state, underlay) {
            addresses.insert(IpNet::from(addr), AddressClass::NODE);
        }
        let encap = |kind| state.pools.values().any(|pool| pool.encap == kind);
        let settings = &state.node.settings;
        let config = UplinkConfig {
            vxlan_port: encap(Encap::Vxlan).then_some(settings.vxlan_port),
            ipip: encap(Encap::Ipip),
            snat_ports: Some(settings.snat_ports.0..=settings.snat_ports.1),
        };
        Self { addresses, ports, config }
    }
}

fn own(state: &State, underlay: &Underlay) -> Vec<IpAddr> {
    let told: Vec<_> = state.node.addresses().collect();
    underlay.addresses.iter().copied().chain(told).collect()
}
