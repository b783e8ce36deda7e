//! Who has an address, and which service answers on one: from the objects of the datastore.
//!
//! What is deleted keeps its addresses for a while, unless somebody else gets them: flows are
//! reported after they have ended.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay_resources::{Kind, Resource, k8s};

use super::entry::{Party, PartyKind, ServicePort};

/// How long addresses of deleted objects are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// An object.
type Object = (Kind, String, String);

/// An address of a service with protocol and port.
type Front = (IpAddr, u8, u16);

/// A protocol and a port of every node.
type NodePort = (u8, u16);

/// Everything that has a name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    owners: HashMap<IpAddr, Object>,
    addresses: HashMap<Object, Vec<IpAddr>>,
    /// What pods' names begin with that one template made.
    templates: HashMap<(String, String), String>,
    /// The pods of workload endpoints.
    pods: HashMap<Object, String>,
    sets: HashMap<IpNet, BTreeSet<Object>>,
    nets: HashMap<Object, Vec<IpNet>>,
    /// Lengths of the sets' networks, of either family.
    lengths: [BTreeSet<u8>; 2],
    services: HashMap<Front, ServicePort>,
    node_ports: HashMap<NodePort, ServicePort>,
    frontends: HashMap<Object, (Vec<Front>, Vec<NodePort>)>,
    gone: VecDeque<(Instant, Object)>,
}

// === impl Names ===

impl Names {
    /// Takes notice of an object.
    pub(crate) fn upsert(&mut self, resource: &Resource) {
        let object = (resource.kind(), resource.namespace().to_owned(), resource.name().to_owned());
        match resource {
            Resource::Pod(pod) => {
                let template = pod.metadata.generate_name.clone().filter(|name| !name.is_empty());
                let name = (object.1.clone(), object.2.clone());
                match template {
                    Some(template) => self.templates.insert(name, template),
                    None => self.templates.remove(&name),
                };
                let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
                let status = pod.status.as_ref().filter(|_| !host);
                let listed = status.and_then(|status| status.pod_ips.as_ref());
                let ips = listed.into_iter().flatten().map(|ip| ip.ip.as_str());
                let first = status.and_then(|status| status.pod_ip.as_deref());
                self.set_addresses(object, parsed(ips.chain(first)));
            }
            Resource::WorkloadEndpoint(endpoint) => {
                let spec = &endpoint.spec;
                let pod = if spec.pod.is_empty() { &spec.workload } else { &spec.pod };
                self.pods.insert(object.clone(), pod.clone());
                let nets = spec.ip_networks.iter().map(|net| net.net().addr());
                self.set_addresses(object, nets.collect());
            }
            Resource::KubernetesNode(node) => {
                let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
                let addresses = status.into_iter().flatten().map(|a| a.address.as_str());
                self.set_addresses(object, parsed(addresses));
            }
            Resource::Node(node) => {
                let bgp = node.spec.bgp.iter();
                let texts = bgp.flat_map(|bgp| {
                    [&bgp.ipv4_address, &bgp.ipv6_address, &bgp.ipv4_ipip_tunnel_addr]
                });
                let tunnels =
                    [&node.spec.ipv4_vxlan_tunnel_addr, &node.spec.ipv6_vxlan_tunnel_addr];
                let own = node.spec.addresses.iter().map(|a| &a.address);
                let all = texts.chain(tunnels).chain(own).map(|text| &**text);
                self.set_addresses(object, parsed(all));
            }
            Resource::NetworkSet(set) | Resource::GlobalNetworkSet(set) => {
                let nets = set.spec.nets.iter().map(|net| net.net()).collect();
                self.set_nets(object, nets);
            }
            Resource::Service(service) => self.set_service(object, service),
            _ => {}
        }
    }

    /// An object is deleted.
    pub(crate) fn delete(&mut self, kind: Kind, namespace: &str, name: &str, now: Instant) {
        let object = (kind, namespace.to_owned(), name.to_owned());
        match kind {
            Kind::Pod | Kind::WorkloadEndpoint | Kind::KubernetesNode | Kind::Node => {
                self.gone.push_back((now, object));
            }
            Kind::NetworkSet | Kind::GlobalNetworkSet => self.set_nets(object, Vec::new()),
            Kind::Service => self.clear_service(&object),
            _ => {}
        }
        self.forget(now);
    }

    /// Lets go of what was deleted long ago.
    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.gone.front()
            && now.duration_since(*since) > REMEMBERED
            && let Some((_, object)) = self.gone.pop_front()
        {
            self.set_addresses(object.clone(), Vec::new());
            self.pods.remove(&object);
            if object.0 == Kind::Pod {
                self.templates.remove(&(object.1, object.2));
            }
        }
    }

    fn set_addresses(&mut self, object: Object, addresses: Vec<IpAddr>) {
        if !addresses.is_empty() {
            // It is there again.
            self.gone.retain(|(_, gone)| *gone != object);
        }
        for old in self.addresses.remove(&object).into_iter().flatten() {
            if self.owners.get(&old) == Some(&object) {
                self.owners.remove(&old);
            }
        }
        for address in &addresses {
            self.owners.insert(*address, object.clone());
        }
        if !addresses.is_empty() {
            self.addresses.insert(object, addresses);
        }
    }

    fn set_nets(&mut self, object: Object, nets: Vec<IpNet>) {
        for old in self.nets.remove(&object).into_iter().flatten() {
            if let Some(sets) = self.sets.get_mut(&old) {
                sets.remove(&object);
                if sets.is_empty() {
                    self.sets.remove(&old);
                }
            }
        }
        for net in &nets {
            let net = net.trunc();
            self.sets.entry(net).or_default().insert(object.clone());
            self.lengths[usize::from(net.addr().is_ipv6())].insert(net.prefix_len());
        }
        if !nets.is_empty() {
            self.nets.insert(object, nets.iter().map(IpNet::trunc).collect());
        }
    }

    fn set_service(&mut self, object: Object, service: &k8s::Service) {
        self.clear_service(&object);
        let Some(spec) = &service.spec else { return };
        let balancers = service.status.iter().flat_map(|status| &status.load_balancer);
        let ingress = balancers.flat_map(|balancer| balancer.ingress.iter().flatten());
        let texts = (spec.cluster_ips.iter().flatten())
            .chain(&spec.cluster_ip)
            .chain(spec.external_ips.iter().flatten())
            .map(String::as_str)
            .chain(ingress.filter_map(|ingress| ingress.ip.as_deref()));
        let addresses = parsed(texts);
        let (mut fronts, mut node_ports) = (Vec::new(), Vec::new());
        for port in spec.ports.iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else { continue };
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => 17,
                Some("SCTP") => 132,
                _ => 6,
            };
            let name = ServicePort {
                namespace: object.1.clone(),
                name: object.2.clone(),
                port_name: port.name.clone().unwrap_or_default(),
                port: number,
            };
            for address in &addresses {
                self.services.insert((*address, protocol, number), name.clone());
                fronts.push((*address, protocol, number));
            }
            if let Some(number) = port.node_port.and_then(|port| u16::try_from(port).ok()) {
                self.node_ports.insert((protocol, number), name);
                node_ports.push((protocol, number));
            }
        }
        self.frontends.insert(object, (fronts, node_ports));
    }

    fn clear_service(&mut self, object: &Object) {
        let Some((fronts, node_ports)) = self.frontends.remove(object) else { return };
        let own = |name: &ServicePort| name.namespace == object.1 && name.name == object.2;
        for front in fronts {
            if self.services.get(&front).is_some_and(own) {
                self.services.remove(&front);
            }
        }
        for port in node_ports {
            if self.node_ports.get(&port).is_some_and(own) {
                self.node_ports.remove(&port);
            }
        }
    }

    /// The pod behind the key of an endpoint, `NAMESPACE/POD/INTERFACE`.
    pub(super) fn pod(&self, endpoint: &str) -> Option<Party> {
        let mut parts = endpoint.split('/');
        let (namespace, name) = (parts.next()?, parts.next()?);
        Some(self.workload(namespace, name))
    }

    /// Who has an address.
    pub(super) fn party(&self, address: IpAddr) -> Party {
        match self.owners.get(&address) {
            Some((Kind::Pod, namespace, name)) => return self.workload(namespace, name),
            Some(object @ (Kind::WorkloadEndpoint, namespace, _)) => {
                if let Some(pod) = self.pods.get(object) {
                    return self.workload(namespace, pod);
                }
            }
            Some((_, _, name)) => {
                let (kind, namespace) = (PartyKind::Node, String::new());
                return Party { kind, namespace, name: name.clone() };
            }
            None => {}
        }
        if let Some((_, namespace, name)) = self.set(address) {
            let kind = PartyKind::NetworkSet;
            return Party { kind, namespace: namespace.clone(), name: name.clone() };
        }
        let name = if is_private(address) { "pvt" } else { "pub" };
        Party { kind: PartyKind::Network, namespace: String::new(), name: name.into() }
    }

    fn workload(&self, namespace: &str, name: &str) -> Party {
        let template = self.templates.get(&(namespace.to_owned(), name.to_owned()));
        let name = template.map_or_else(|| name.to_owned(), |template| format!("{template}*"));
        Party { kind: PartyKind::WorkloadEndpoint, namespace: namespace.to_owned(), name }
    }

    /// The set with the longest network around an address; the first by name of several.
    fn set(&self, address: IpAddr) -> Option<&Object> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().rev().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.sets.get(&net)?.first()
        })
    }

    /// The service that answers on an address and port.
    pub(super) fn service(&self, address: IpAddr, protocol: u8, port: u16) -> Option<ServicePort> {
        let front = self.services.get(&(address, protocol, port));
        front.or_else(|| self.node_ports.get(&(protocol, port))).cloned()
    }
}

/// The addresses among the texts, which may have a prefix's length behind them.
fn parsed<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<IpAddr> {
    let address = |text: &str| text.split('/').next().unwrap_or_default().parse().ok();
    let mut all: Vec<IpAddr> = texts.filter_map(address).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Addresses of private use (RFC 1918, RFC 4193), of this link and of this host.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}
