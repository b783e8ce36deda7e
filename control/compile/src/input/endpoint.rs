//! Workload endpoints, host endpoints and network sets.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use margay_model::{DomainPattern, Dscp, HostEndpoint, HostInterface, Mac};
use margay_resources::{qos, v3};

use crate::limits;
use crate::name::ObjectName;
use crate::policy::HostEndpointFacts;
use crate::profiles::LabelMap;
use crate::service::HostPort;
use crate::sets::NamedPort;

/// An interface of a pod, as the CNI path wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WorkloadFacts {
    pub(crate) pod: ObjectName,
    /// The interface inside the pod.
    pub(crate) endpoint: Arc<str>,
    /// The host's end.
    pub(crate) interface: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) allowed_sources: Vec<IpNet>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) host_ports: Vec<HostPort>,
    /// What the runtime asked for.
    pub(crate) controls: v3::QosControls,
}

/// A host endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostFacts {
    pub(crate) node: Arc<str>,
    /// The interface that it names, `*` for all of its node; empty for one that has one of its
    /// addresses.
    pub(crate) interface: Arc<str>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) profiles: Vec<Arc<str>>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) labels: LabelMap,
    /// What the node's own packets out of the cluster are marked with.
    pub(crate) dscp: Option<Dscp>,
}

/// A network set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetFacts {
    pub(crate) nets: Vec<IpNet>,
    pub(crate) domains: Vec<DomainPattern>,
    pub(crate) labels: LabelMap,
}

impl From<&v3::WorkloadEndpoint> for WorkloadFacts {
    fn from(object: &v3::WorkloadEndpoint) -> Self {
        let spec = &object.spec;
        let pod = if spec.pod.is_empty() { &spec.workload } else { &spec.pod };
        let ports = spec.ports.iter().filter(|p| !p.name.is_empty()).map(|p| NamedPort {
            name: p.name.as_str().into(),
            protocol: p.protocol.number(),
            port: p.port,
        });
        let host_ports = spec.ports.iter().filter(|p| p.host_port != 0).map(|p| HostPort {
            protocol: p.protocol.number(),
            host_port: p.host_port,
            host_ip: p.host_ip.parse().ok(),
            port: p.port,
        });
        Self {
            pod: ObjectName::new(object.namespace(), pod.as_str()),
            endpoint: spec.endpoint.as_str().into(),
            interface: spec.interface_name.as_str().into(),
            node: spec.node.as_str().into(),
            mac: spec.mac.parse().unwrap_or_default(),
            addresses: spec.ip_networks.iter().map(|n| n.net().addr()).collect(),
            allowed_sources: spec.allow_spoofed_source_prefixes.iter().map(v3::Net::net).collect(),
            ports: ports.collect(),
            host_ports: host_ports.collect(),
            controls: spec.qos_controls.clone().unwrap_or_default(),
        }
    }
}

impl From<&v3::HostEndpoint> for HostFacts {
    fn from(object: &v3::HostEndpoint) -> Self {
        let spec = &object.spec;
        let ports = spec.ports.iter().map(|p| NamedPort {
            name: p.name.as_str().into(),
            protocol: p.protocol.number(),
            port: p.port,
        });
        Self {
            node: spec.node.as_str().into(),
            interface: spec.interface_name.as_str().into(),
            addresses: spec.expected_ips.clone(),
            profiles: spec.profiles.iter().map(|p| p.as_str().into()).collect(),
            ports: ports.collect(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            dscp: limits::dscp(qos::dscp(object.metadata.annotations.as_ref()).0.as_ref()),
        }
    }
}

impl From<&v3::NetworkSet> for SetFacts {
    fn from(object: &v3::NetworkSet) -> Self {
        Self {
            nets: object.spec.nets.iter().map(v3::Net::net).collect(),
            domains: (object.spec.allowed_egress_domains.iter())
                .filter_map(|text| text.parse().ok())
                .collect(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

// === impl HostFacts ===

impl HostFacts {
    /// The interfaces that it stands for.
    pub(crate) fn interface(&self) -> HostInterface {
        match &*self.interface {
            "*" => HostInterface::All,
            "" => HostInterface::With(self.addresses.clone()),
            _ => HostInterface::Named(self.interface.clone()),
        }
    }

    /// What its node's dataplane is told, without policies.
    pub(crate) fn of_node(&self, name: &Arc<str>) -> HostEndpointFacts {
        let none = || Arc::new([]);
        let host = HostEndpoint {
            key: name.clone(),
            interface: self.interface(),
            untracked: none(),
            pre_dnat: none(),
            forward: none(),
            tiers: none(),
            profiles: Arc::new([]),
            dscp: self.dscp,
        };
        HostEndpointFacts { host, profiles: self.profiles.clone() }
    }
}
