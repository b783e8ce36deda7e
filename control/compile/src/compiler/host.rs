//! Host endpoints, of the node whose view is compiled or of everybody.

use std::sync::Arc;

use ipnet::IpNet;
use margay_model::{Endpoint, EndpointKey, HostInterface, Mac};

use super::{Compiler, ItemKey};
use crate::input::endpoint::HostFacts;
use crate::label::Labels;
use crate::policy::EndpointFacts;
use crate::sets::Contribution;

// === impl Compiler ===

impl Compiler {
    pub(super) fn flush_host(&mut self, name: &Arc<str>) {
        let key = ItemKey::Host(name.clone());
        let Some(host) = self.hosts.get(name) else {
            if let Some(id) = self.items.remove(&key) {
                self.sets.remove_item(id);
                self.policies.remove_endpoint(id);
                self.policies.remove_host(id);
            }
            self.endpoint_nodes.remove(&*host_key(name));
            return;
        };
        let own = host.labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
        let profiles = host.profiles.iter().filter_map(|p| self.profiles.get(p));
        let labels: Labels = own.chain(profiles.flat_map(|p| p.labels)).collect();
        let nets = host.addresses.iter().copied().map(IpNet::from).collect();
        let id = self.items.id(key);
        let item = Contribution { nets, ports: host.ports.clone(), domains: Vec::new() };
        self.sets.set_item(id, labels.clone(), item);
        match &self.own_node {
            Some(own) if *own == host.node => {
                self.policies.set_host(id, host.of_node(name), labels);
            }
            Some(_) => self.policies.remove_host(id),
            // Everybody can ask what their policy would say to the node's own connections.
            None => {
                let facts = self.host_endpoint(name, host);
                self.endpoint_nodes.insert(facts.endpoint.key.clone(), host.node.clone());
                self.policies.set_endpoint(id, facts, labels);
            }
        }
    }

    fn host_endpoint(&self, name: &Arc<str>, host: &HostFacts) -> EndpointFacts {
        let mut addresses = host.addresses.clone();
        if host.interface() == HostInterface::All && addresses.is_empty() {
            let node = self.network.node(&host.node);
            addresses.extend(node.into_iter().flat_map(|n| n.addresses.iter().copied()));
        }
        let endpoint = Endpoint {
            key: host_key(name),
            interface: "".into(),
            mac: Mac::default(),
            addresses,
            allowed_sources: Vec::new(),
            mtu: 0,
            tiers: Arc::new([]),
            pending: None,
            profiles: Arc::new([]),
            priority: 0,
        };
        EndpointFacts { endpoint, profiles: host.profiles.clone() }
    }
}

/// The key of a host endpoint: no pod has an empty namespace.
fn host_key(name: &str) -> EndpointKey {
    format!("/{name}/").into()
}
