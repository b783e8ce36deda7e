//! Services: from the address that a client uses to the one that answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use margay_compile::{Compiler, Usable};
use margay_model::{Backend, Service, ServiceKey, TrafficPolicy};

use super::flow::Flow;
use super::world::Party;

/// Where services are reached, and what they lead to.
pub(crate) struct Services<'c> {
    compiler: &'c Compiler,
    frontends: HashMap<(IpAddr, u8, u16), (Frontend, &'c Service)>,
    node_ports: HashMap<(u8, u16, bool), &'c Service>,
    /// Addresses that belong to services, whatever the port.
    addresses: HashSet<IpAddr>,
    ranges: Vec<IpNet>,
    node_port_addresses: Vec<IpNet>,
    /// The choice of backends by service and node, as flows ask for it.
    usable: HashMap<(ServiceKey, Option<Arc<str>>), Usable>,
}

/// What kind of address a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    /// The service's address in the cluster.
    Cluster,
    /// One of its `externalIPs`.
    External,
    /// An address of a load balancer.
    LoadBalancer,
    /// A node's address, with the service's port on nodes.
    NodePort,
}

/// A service that a flow finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lead<'c, 'p> {
    /// What the client used.
    pub(crate) frontend: Frontend,
    /// The port of the service.
    pub(crate) service: &'c Service,
    /// The client is in none of the source ranges.
    pub(crate) barred: bool,
    /// The node from which the service is used.
    pub(crate) node: Option<&'p Arc<str>>,
    /// Only backends on that node count.
    pub(crate) local: bool,
}

/// What services make of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// It is no service's.
    Unchanged,
    /// It is this one in truth.
    To(SocketAddr),
    /// Nothing answers there.
    Refused,
}

// === impl Services ===

impl<'c> Services<'c> {
    /// Indexes the services of what was compiled.
    pub(crate) fn new(compiler: &'c Compiler) -> Self {
        let settings = compiler.settings_of("");
        let mut services = Self {
            compiler,
            frontends: HashMap::new(),
            node_ports: HashMap::new(),
            addresses: HashSet::new(),
            ranges: settings.service_ranges,
            node_port_addresses: settings.node_port_addresses,
            usable: HashMap::new(),
        };
        for service in compiler.state().services.values() {
            services.add(service);
        }
        services
    }

    /// Of two services with one address and port the first by name has it.
    fn add(&mut self, service: &'c Service) {
        let lists = [
            (Frontend::Cluster, &service.cluster_ips),
            (Frontend::LoadBalancer, &service.load_balancer_ips),
            (Frontend::External, &service.external_ips),
        ];
        for (frontend, addresses) in lists {
            for address in addresses {
                let key = (*address, service.protocol, service.port);
                self.frontends.entry(key).or_insert((frontend, service));
                self.addresses.insert(*address);
            }
        }
        if let Some(port) = service.node_port {
            let v6 = service.cluster_ips.iter().any(IpAddr::is_ipv6);
            self.node_ports.entry((service.protocol, port, v6)).or_insert(service);
        }
    }

    /// Translates the destination of a flow from `src` to `dst`.
    pub(crate) fn translate(
        &mut self,
        flow: &Flow,
        src: &Party<'_>,
        dst: &Party<'_>,
    ) -> Translation {
        let Some(lead) = self.lead(flow, src, dst) else {
            return self.without_service(flow, dst);
        };
        if lead.barred {
            return Translation::Refused;
        }
        match self.usable(&lead).first() {
            Some(backend) => Translation::To(SocketAddr::new(backend.addr, backend.port)),
            None => Translation::Refused,
        }
    }

    /// The service that a flow from `src` to `dst` finds, and how.
    pub(crate) fn lead<'p>(
        &self,
        flow: &Flow,
        src: &Party<'p>,
        dst: &Party<'p>,
    ) -> Option<Lead<'c, 'p>> {
        let (frontend, service) = self.find(flow, dst)?;
        let barred = frontend == Frontend::LoadBalancer
            && !service.load_balancer_sources.is_empty()
            && !service.load_balancer_sources.iter().any(|net| net.contains(&flow.src));
        // A client outside is on whichever node it comes in by, which only a node port tells.
        let node = src.node.or(dst.host.filter(|_| frontend == Frontend::NodePort));
        let local = match frontend {
            Frontend::Cluster => service.internal == TrafficPolicy::Local && node.is_some(),
            Frontend::NodePort => service.external == TrafficPolicy::Local && src.node.is_none(),
            Frontend::External | Frontend::LoadBalancer => false,
        };
        Some(Lead { frontend, service, barred, node, local })
    }

    /// The backends that may serve, ordered; the first one does.
    pub(crate) fn usable(&mut self, lead: &Lead<'_, '_>) -> &[Backend] {
        let compiler = self.compiler;
        let key = (lead.service.key.clone(), lead.node.cloned());
        let usable = self.usable.entry(key).or_insert_with(|| {
            let node = lead.node.map(AsRef::as_ref);
            compiler.usable_backends(&lead.service.key, node).unwrap_or_default()
        });
        if lead.local { &usable.local } else { &usable.cluster }
    }

    fn find(&self, flow: &Flow, dst: &Party<'_>) -> Option<(Frontend, &'c Service)> {
        let port = flow.dst_port?;
        if let Some(found) = self.frontends.get(&(flow.dst, flow.protocol, port)) {
            return Some(*found);
        }
        let answers = dst.host.is_some()
            && (self.node_port_addresses.is_empty()
                || self.node_port_addresses.iter().any(|net| net.contains(&flow.dst)));
        let key = (flow.protocol, port, flow.dst.is_ipv6());
        let service = self.node_ports.get(&key).filter(|_| answers)?;
        Some((Frontend::NodePort, service))
    }

    /// An address of services answers at their ports only, and one of their ranges only if it is
    /// a service's. An address that somebody has besides (an external address may be a node's) is
    /// not closed by that.
    fn without_service(&self, flow: &Flow, dst: &Party<'_>) -> Translation {
        let somebodys = dst.endpoint.is_some() || dst.host.is_some();
        let of_services = self.addresses.contains(&flow.dst)
            || self.ranges.iter().any(|range| range.contains(&flow.dst));
        if of_services && !somebodys { Translation::Refused } else { Translation::Unchanged }
    }
}
