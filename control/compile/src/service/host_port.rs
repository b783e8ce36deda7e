//! Ports of the node that lead to a pod on it, as a container runtime asks for them.
//!
//! Each is a service of one backend, on all of the node's addresses as a node port is, or on the one
//! that was asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{Backend, Service, ServiceKey, TrafficPolicy, Update};

use super::key;
use crate::name::ObjectName;

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// The node's port, in host byte order.
    pub(crate) host_port: u16,
    /// The node's address that has it; `None` for all.
    pub(crate) host_ip: Option<IpAddr>,
    /// The pod's port, in host byte order.
    pub(crate) port: u16,
}

/// The mapped ports of all pods of the node.
#[derive(Debug, Default)]
pub(crate) struct HostPorts {
    wanted: BTreeMap<ObjectName, Vec<Service>>,
    published: BTreeMap<ServiceKey, Arc<Service>>,
    dirty: bool,
}

// === impl HostPorts ===

impl HostPorts {
    /// Replaces the mapped ports of a pod: those of each interface, with its addresses.
    pub(crate) fn set(&mut self, pod: &ObjectName, interfaces: &[(Vec<HostPort>, Vec<IpAddr>)]) {
        let mut services = Vec::new();
        for (ports, addresses) in interfaces {
            for port in ports {
                services.extend(addresses.iter().filter_map(|addr| service(pod, port, *addr)));
            }
        }
        let old = match services.is_empty() {
            true => self.wanted.remove(pod),
            false => self.wanted.insert(pod.clone(), services),
        };
        self.dirty |= old.as_deref().unwrap_or_default() != self.of(pod);
    }

    fn of(&self, pod: &ObjectName) -> &[Service] {
        self.wanted.get(pod).map(Vec::as_slice).unwrap_or_default()
    }

    /// The changes since the last flush: what is there, and what is gone.
    pub(crate) fn flush(&mut self) -> (Vec<Update>, Vec<Update>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        if !std::mem::take(&mut self.dirty) {
            return (changed, gone);
        }
        let mut old = std::mem::take(&mut self.published);
        for service in self.wanted.values().flatten() {
            let service = match old.remove(&service.key) {
                Some(old) if *old == *service => old,
                _ => {
                    let service = Arc::new(service.clone());
                    changed.push(Update::Service(service.clone()));
                    service
                }
            };
            self.published.insert(service.key.clone(), service);
        }
        gone.extend(old.into_keys().map(Update::ServiceGone));
        (changed, gone)
    }
}

/// A port as a service; none if it is for an address of the other family.
fn service(pod: &ObjectName, port: &HostPort, addr: IpAddr) -> Option<Service> {
    let HostPort { protocol, host_port, host_ip, .. } = *port;
    if host_ip.is_some_and(|host_ip| host_ip.is_ipv4() != addr.is_ipv4()) {
        return None;
    }
    // No Service's name has a blank in it.
    let name = match host_ip {
        Some(host_ip) => format!("{pod} host port {host_ip}"),
        None => format!("{pod} host port"),
    };
    let backends = vec![Backend { addr, port: port.port }];
    Some(Service {
        key: key(name, host_port, protocol, addr.is_ipv6()),
        protocol,
        port: host_port,
        external_ips: host_ip.into_iter().collect(),
        node_port: host_ip.is_none().then_some(host_port),
        // The client's address stays, but where the answer would not find back.
        internal: TrafficPolicy::Local,
        external: TrafficPolicy::Local,
        cluster_backends: backends.clone(),
        local_backends: backends,
        ..Service::default()
    })
}
