//! Host endpoints, of the node whose view is compiled or of everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use margay_model::{Endpoint, EndpointKey, HostInterface, Limits, Mac};

use super::{Compiler, ItemKey};
use crate::input::endpoint::HostFacts;
use crate::label::Labels;
use crate::network::NodeFacts;
use crate::policy::EndpointFacts;
use crate::sets::Contribution;

// === impl Compiler ===

impl Compiler {
    pub(super) fn flush_hosts(&mut self) {
        let mut names = std::mem::take(&mut self.dirty_hosts);
        let nodes = std::mem::take(&mut self.dirty_host_nodes);
        if self.own_node.is_none() {
            let affected = self.hosts.iter().filter(|(_, host)| nodes.contains(&host.node));
            names.extend(affected.map(|(name, _)| name.clone()));
        }
        let addresses = self.addresses_of_hosts(&names);
        for name in names {
            let addresses = addresses.get(&name).cloned().unwrap_or_default();
            self.flush_host(&name, addresses);
        }
    }

    /// The addresses of the interfaces that host endpoints stand for, with the others of their nodes.
    fn addresses_of_hosts(&self, names: &BTreeSet<Arc<str>>) -> HashMap<Arc<str>, Vec<IpAddr>> {
        let nodes: HashSet<_> =
            names.iter().filter_map(|name| self.hosts.get(name)).map(|host| &host.node).collect();
        let mut by_node: HashMap<&Arc<str>, BTreeMap<&Arc<str>, &HostFacts>> = HashMap::new();
        for (name, host) in self.hosts.iter().filter(|(_, host)| nodes.contains(&host.node)) {
            by_node.entry(&host.node).or_default().insert(name, host);
        }
        let shared = by_node.into_iter().map(|(node, hosts)| share(self.network.node(node), hosts));
        shared.flatten().collect()
    }

    fn flush_host(&mut self, name: &Arc<str>, addresses: Vec<IpAddr>) {
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
            // Everybody can ask what policy would say: of all lists, and of the one for the node's
            // own connections as of a pod's.
            None => {
                let facts = endpoint(name, host, addresses);
                self.endpoint_nodes.insert(facts.endpoint.key.clone(), host.node.clone());
                self.policies.set_host(id, host.of_node(name), labels.clone());
                self.policies.set_endpoint(id, facts, labels);
            }
        }
    }
}

/// Which of a node's addresses its host endpoints have, as far as the datastore tells. Those that
/// they expect are theirs; of the rest, the first that stands for one interface has all but the tunnels'
/// of each family that it expects none of, and one for all interfaces what is left.
fn share(
    node: Option<&NodeFacts>,
    hosts: BTreeMap<&Arc<str>, &HostFacts>,
) -> Vec<(Arc<str>, Vec<IpAddr>)> {
    let everywhere = |host: &HostFacts| host.interface() == HostInterface::All;
    let (all, some): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|(_, host)| everywhere(host));
    let mut rest = node.map(|node| node.addresses.clone()).unwrap_or_default();
    for (_, host) in &some {
        rest.retain(|address| !host.addresses.contains(address));
    }
    let tunnels: Vec<_> =
        node.into_iter().flat_map(|n| &n.tunnel_addresses).map(|t| t.address).collect();
    let mut take = |(name, host): (&Arc<str>, &HostFacts)| {
        let mut own = host.addresses.clone();
        if everywhere(host) {
            own.extend(std::mem::take(&mut rest));
            own.sort_unstable();
            own.dedup();
        } else {
            let expects = |family: bool| host.addresses.iter().any(|own| own.is_ipv4() == family);
            let takes =
                |address: &IpAddr| !tunnels.contains(address) && !expects(address.is_ipv4());
            own.extend(rest.extract_if(.., |address| takes(address)));
        }
        (name.clone(), own)
    };
    some.into_iter().chain(all).map(&mut take).collect()
}

/// A host endpoint as one end of its node's own connections.
fn endpoint(name: &Arc<str>, host: &HostFacts, addresses: Vec<IpAddr>) -> EndpointFacts {
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
        limits: Limits::default(),
    };
    EndpointFacts { endpoint, profiles: host.profiles.clone() }
}

/// The key of a host endpoint: no pod has an empty namespace.
fn host_key(name: &str) -> EndpointKey {
    format!("/{name}/").into()
}
