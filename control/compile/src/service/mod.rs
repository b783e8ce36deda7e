//! Services and their endpoints.
//!
//! Endpoints come from EndpointSlices, or, where a service has none, from the pods that its
//! selector matches. [`choose`] picks the usable ones, [`health`] is what load balancers are told,
//! [`view`] shows all endpoints to people. [`host_port`]: the ports of the node that lead to one pod.

mod choose;
mod health;
mod host_port;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{Selection, Service, ServiceKey, TrafficPolicy, Update};

pub use choose::Usable;
pub(crate) use choose::{Conditions, Hints, ServiceEndpoint, Viewer};
pub use health::{HealthCheck, HealthChecks};
pub(crate) use host_port::{HostPort, HostPorts};

use crate::label::{Event, Expression, ItemId, LabelIndex, Labels, SelectorId};
use crate::name::ObjectName;
use crate::sets::{NamedPort, ServiceMember, Sets};

/// A service; one that is headless or has no addresses has no cluster addresses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceFacts {
    pub(crate) name: ObjectName,
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) external_ips: Vec<IpAddr>,
    pub(crate) load_balancer_ips: Vec<IpAddr>,
    pub(crate) load_balancer_sources: Vec<IpNet>,
    pub(crate) ports: Vec<ServicePort>,
    /// Over pod labels and the namespace's name.
    pub(crate) selector: Option<Expression>,
    pub(crate) internal: TrafficPolicy,
    pub(crate) external: TrafficPolicy,
    pub(crate) affinity: Option<u32>,
    pub(crate) publish_not_ready: bool,
    pub(crate) distribution: Distribution,
    pub(crate) selection: Selection,
    /// Port where every node tells whether it serves the service itself.
    pub(crate) health_check: Option<u16>,
}

/// What a service without slices prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Distribution {
    #[default]
    Everywhere,
    SameZone,
    SameNode,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty for an unnamed port.
    pub(crate) name: Arc<str>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) target: Target,
    pub(crate) node_port: Option<u16>,
}

/// The port of a pod that a service port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Number(u16),
    Name(Arc<str>),
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    pub(crate) service: ObjectName,
    pub(crate) ports: Vec<SlicePort>,
    /// The endpoints, with port 0.
    pub(crate) endpoints: Vec<ServiceEndpoint>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// A pod as an endpoint of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodBackend {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) conditions: Conditions,
}

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    index: LabelIndex,
    pods: HashMap<ItemId, PodBackend>,
    services: HashMap<ObjectName, (ServiceFacts, Option<SelectorId>)>,
    by_selector: HashMap<SelectorId, BTreeSet<ObjectName>>,
    slices: HashMap<ObjectName, SliceFacts>,
    slices_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
    zones: HashMap<Arc<str>, Arc<str>>,
    viewer: Option<Arc<str>>,
    published: HashMap<ObjectName, BTreeMap<ServiceKey, Published>>,
    health: HealthChecks,
    dirty: BTreeSet<ObjectName>,
    events: Vec<Event>,
    compiled: u64,
}

#[derive(Debug)]
struct Published {
    service: Arc<Service>,
    endpoints: Vec<ServiceEndpoint>,
}

// === impl Services ===

impl Services {
    /// `viewer` is the node for which backends are chosen.
    pub(crate) fn new(viewer: Option<Arc<str>>) -> Self {
        Self { viewer, ..Self::default() }
    }

    /// Selectors compared with pods since the start.
    pub(crate) fn evaluated(&self) -> u64 {
        self.index.evaluated()
    }

    /// Services compiled since the start.
    pub(crate) fn compiled(&self) -> u64 {
        self.compiled
    }

    /// The usable backends of an emitted service for clients on a node, or anywhere.
    pub(crate) fn usable(&self, key: &str, node: Option<&str>) -> Option<Usable> {
        let (name, _) = key.split_once(':')?;
        let (namespace, name) = name.split_once('/')?;
        let services = self.published.get(&ObjectName::new(namespace, name))?;
        let viewer = node.map(|node| self.viewer(node));
        Some(Usable::choose(&services.get(key)?.endpoints, viewer.as_ref()))
    }

    fn viewer(&self, node: &str) -> Viewer {
        Viewer { node: node.into(), zone: self.zones.get(node).cloned() }
    }

    /// Adds, replaces or removes a service.
    pub(crate) fn set_service(&mut self, name: &ObjectName, service: Option<ServiceFacts>) {
        let old = self.services.remove(name);
        if let Some(facts) = service {
            let selector = facts.selector.as_ref().map(|s| self.index.acquire(s).0);
            if let Some(selector) = selector {
                self.by_selector.entry(selector).or_default().insert(name.clone());
            }
            if let Some((_, Some(old))) = &old
                && Some(*old) != selector
            {
                self.forget_selector(*old, name);
            }
            self.services.insert(name.clone(), (facts, selector));
        } else if let Some((_, Some(old))) = &old {
            self.forget_selector(*old, name);
        }
        if let Some((_, Some(old))) = old {
            self.index.release(old);
        }
        self.dirty.insert(name.clone());
    }

    fn forget_selector(&mut self, selector: SelectorId, name: &ObjectName) {
        if let Some(names) = self.by_selector.get_mut(&selector) {
            names.remove(name);
            if names.is_empty() {
                self.by_selector.remove(&selector);
            }
        }
    }

    /// Adds, replaces or removes an EndpointSlice.
    pub(crate) fn set_slice(&mut self, name: &ObjectName, slice: Option<SliceFacts>) {
        if let Some(old) = self.slices.remove(name) {
            if let Some(names) = self.slices_of.get_mut(&old.service) {
                names.remove(name);
                if names.is_empty() {
                    self.slices_of.remove(&old.service);
                }
            }
            self.dirty.insert(old.service);
        }
        if let Some(slice) = slice {
            self.slices_of.entry(slice.service.clone()).or_default().insert(name.clone());
            self.dirty.insert(slice.service.clone());
            self.slices.insert(name.clone(), slice);
        }
    }

    /// Adds or replaces a pod.
    pub(crate) fn set_pod(&mut self, id: ItemId, labels: Labels, pod: PodBackend) {
        if self.pods.get(&id) != Some(&pod) {
            self.pods.insert(id, pod);
            self.touch_services_of(id);
        }
        let mut events = std::mem::take(&mut self.events);
        self.index.set_item(id, labels, &mut events);
        self.handle(events);
    }

    /// Removes a pod.
    pub(crate) fn remove_pod(&mut self, id: ItemId) {
        let mut events = std::mem::take(&mut self.events);
        self.index.remove_item(id, &mut events);
        self.handle(events);
        self.pods.remove(&id);
    }

    /// Sets or removes the zone of a node.
    pub(crate) fn set_zone(&mut self, node: &Arc<str>, zone: Option<Arc<str>>) {
        if self.zones.get(node) == zone.as_ref() {
            return;
        }
        match zone {
            Some(zone) => self.zones.insert(node.clone(), zone),
            None => self.zones.remove(node),
        };
        // Zones are set once in the life of a node; to know who is concerned is not worth it.
        self.dirty.extend(self.services.keys().cloned());
    }

    fn handle(&mut self, mut events: Vec<Event>) {
        for event in events.drain(..) {
            self.dirty.extend(self.by_selector.get(&event.selector).into_iter().flatten().cloned());
        }
        self.events = events;
    }

    fn touch_services_of(&mut self, id: ItemId) {
        let selectors = self.index.selectors_of(id);
        let names = selectors.filter_map(|s| self.by_selector.get(&s)).flatten();
        self.dirty.extend(names.cloned());
    }

    /// The changes since the last flush; the members of services that rules name go to `sets`.
    pub(crate) fn flush(&mut self, sets: &mut Sets) -> (Vec<Update>, Vec<Update>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.dirty) {
            self.compiled += 1;
            sets.set_service(&name, self.members(&name));
            let mut old = self.published.remove(&name).unwrap_or_default();
            let mut new = BTreeMap::new();
            for (service, endpoints) in self.compile(&name) {
                let key = service.key.clone();
                let service = match old.remove(&key) {
                    Some(old) if *old.service == service => old.service,
                    _ => {
                        let service = Arc::new(service);
                        changed.push(Update::Service(service.clone()));
                        service
                    }
                };
                new.insert(key, Published { service, endpoints });
            }
            gone.extend(old.into_keys().map(Update::ServiceGone));
            self.health.set(&name, self.health_check(&name, &new));
            if !new.is_empty() {
                self.published.insert(name, new);
            }
        }
        (changed, gone)
    }

    /// What is told about services to load balancers outside.
    pub(crate) fn health(&self) -> &HealthChecks {
        &self.health
    }

    fn health_check(
        &self,
        name: &ObjectName,
        ports: &BTreeMap<ServiceKey, Published>,
    ) -> Option<HealthCheck> {
        let port = self.services.get(name)?.0.health_check?;
        let viewer = self.viewer.as_deref()?;
        let endpoints = ports.values().flat_map(|port| &port.endpoints);
        let here = endpoints.filter(|e| e.is_ready_on(viewer)).map(|e| e.addr);
        Some(HealthCheck::new(port, name, here))
    }

    /// The addresses of all endpoints, usable or not, alone and with each of their ports: what
    /// rules mean by a service. An endpoint without a port is one all the same.
    fn members(&self, name: &ObjectName) -> BTreeSet<ServiceMember> {
        let mut members = BTreeSet::new();
        if let Some(slices) = self.slices_of.get(name) {
            for slice in slices.iter().filter_map(|s| self.slices.get(s)) {
                for endpoint in &slice.endpoints {
                    let ports =
                        slice.ports.iter().map(|p| (endpoint.addr, Some((p.protocol, p.port))));
                    members.extend(ports.chain([(endpoint.addr, None)]));
                }
            }
            return members;
        }
        let Some((facts, selector)) = self.services.get(name) else { return members };
        let pods = selector.iter().flat_map(|selector| self.index.items_of(*selector));
        let addresses = pods.filter_map(|id| self.pods.get(&id)).flat_map(|pod| &pod.addresses);
        members.extend(addresses.map(|addr| (*addr, None)));
        for port in &facts.ports {
            let endpoints = self.endpoints_of_pods(name, facts, port).into_iter();
            members.extend(endpoints.map(|e| (e.addr, Some((port.protocol, e.port)))));
        }
        members
    }

    fn compile(&self, name: &ObjectName) -> Vec<(Service, Vec<ServiceEndpoint>)> {
        let Some((facts, _)) = self.services.get(name) else { return Vec::new() };
        let viewer = self.viewer.as_deref().map(|node| self.viewer(node));
        let mut services = Vec::new();
        for port in &facts.ports {
            let endpoints = self.endpoints(name, facts, port);
            for v6 in [false, true] {
                if !facts.cluster_ips.iter().any(|a| a.is_ipv6() == v6) {
                    continue;
                }
                let endpoints: Vec<_> =
                    endpoints.iter().filter(|e| e.addr.is_ipv6() == v6).cloned().collect();
                let usable = Usable::choose(&endpoints, viewer.as_ref());
                services.push((service(facts, port, v6, usable), endpoints));
            }
        }
        // Two ports that differ in nothing but their name make one service.
        services.dedup_by(|b, a| a.0.key == b.0.key);
        services
    }

    /// The endpoints of a port, ordered, each address once.
    fn endpoints(
        &self,
        name: &ObjectName,
        facts: &ServiceFacts,
        port: &ServicePort,
    ) -> Vec<ServiceEndpoint> {
        let mut endpoints = match self.slices_of.get(name) {
            Some(slices) => self.endpoints_of_slices(slices, port),
            None => self.endpoints_of_pods(name, facts, port),
        };
        if facts.publish_not_ready {
            endpoints.iter_mut().for_each(|e| e.conditions.ready = true);
        }
        if facts.selection == Selection::Maglev {
            // Where all nodes are to choose alike, none has a view of its own.
            endpoints.iter_mut().for_each(|e| e.hints = Hints::default());
        }
        // The more usable one of two with the same address comes first and stays.
        endpoints.sort_by(|a, b| {
            let by_address = (a.addr, a.port).cmp(&(b.addr, b.port));
            by_address.then_with(|| b.conditions.cmp(&a.conditions)).then_with(|| a.cmp(b))
        });
        endpoints.dedup_by(|b, a| (a.addr, a.port) == (b.addr, b.port));
        endpoints
    }

    fn endpoints_of_slices(
        &self,
        slices: &BTreeSet<ObjectName>,
        port: &ServicePort,
    ) -> Vec<ServiceEndpoint> {
        let mut endpoints = Vec::new();
        for slice in slices.iter().filter_map(|s| self.slices.get(s)) {
            let ports = slice.ports.iter();
            for p in ports.filter(|p| p.name == port.name && p.protocol == port.protocol) {
                let with_port = |e: &ServiceEndpoint| ServiceEndpoint { port: p.port, ..e.clone() };
                endpoints.extend(slice.endpoints.iter().map(with_port));
            }
        }
        endpoints
    }

    fn endpoints_of_pods(
        &self,
        name: &ObjectName,
        facts: &ServiceFacts,
        port: &ServicePort,
    ) -> Vec<ServiceEndpoint> {
        let Some((_, Some(selector))) = self.services.get(name) else { return Vec::new() };
        let mut endpoints = Vec::new();
        for pod in self.index.items_of(*selector).filter_map(|id| self.pods.get(&id)) {
            let number = match &port.target {
                Target::Number(number) => Some(*number),
                Target::Name(name) => {
                    let mut ports = pod.ports.iter();
                    let named = ports.find(|p| p.name == *name && p.protocol == port.protocol);
                    named.map(|p| p.port)
                }
            };
            let Some(number) = number else { continue };
            endpoints.extend(pod.addresses.iter().map(|addr| ServiceEndpoint {
                addr: *addr,
                port: number,
                node: pod.node.clone(),
                conditions: pod.conditions,
                hints: self.hints(facts.distribution, pod.node.as_ref()),
            }));
        }
        endpoints
    }

    /// The hints that Kubernetes' controller would give.
    fn hints(&self, distribution: Distribution, node: Option<&Arc<str>>) -> Hints {
        let zone = node.and_then(|n| self.zones.get(n)).cloned();
        let list =
            |wanted: bool, place: Option<Arc<str>>| place.filter(|_| wanted).into_iter().collect();
        Hints {
            nodes: list(distribution == Distribution::SameNode, node.cloned()),
            zones: list(distribution != Distribution::Everywhere, zone),
        }
    }
}

fn service(facts: &ServiceFacts, port: &ServicePort, v6: bool, usable: Usable) -> Service {
    let of_family = |list: &[IpAddr]| {
        let mut list: Vec<_> = list.iter().copied().filter(|a| a.is_ipv6() == v6).collect();
        list.sort_unstable();
        list.dedup();
        list
    };
    let v6_net = |n: &IpNet| matches!(n, IpNet::V6(_));
    Service {
        key: key(&facts.name, port.port, port.protocol, v6),
        protocol: port.protocol,
        port: port.port,
        cluster_ips: of_family(&facts.cluster_ips),
        external_ips: of_family(&facts.external_ips),
        load_balancer_ips: of_family(&facts.load_balancer_ips),
        load_balancer_sources: source_ranges(facts, |n| v6_net(n) == v6),
        node_port: port.node_port,
        internal: facts.internal,
        external: facts.external,
        affinity: facts.affinity,
        selection: facts.selection,
        cluster_backends: usable.cluster,
        local_backends: usable.local,
        kept_backends: usable.kept,
    }
}

/// The name of a service's port of one family.
fn key(name: impl std::fmt::Display, port: u16, protocol: u8, v6: bool) -> ServiceKey {
    let protocol = match protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    };
    let family = if v6 { "IPv6" } else { "IPv4" };
    format!("{name}:{port}/{protocol}/{family}").into()
}

/// The ranges of one family. A list that holds the other family only still closes this one: to
/// leave it empty would open it to all.
fn source_ranges(facts: &ServiceFacts, in_family: impl Fn(&IpNet) -> bool) -> Vec<IpNet> {
    let of_family: Vec<_> =
        facts.load_balancer_sources.iter().copied().filter(|n| in_family(n)).collect();
    if of_family.is_empty() { facts.load_balancer_sources.clone() } else { of_family }
}
