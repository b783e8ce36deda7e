//! Services.

use margay_model::{Backend, Selection, Service, TrafficPolicy};

use crate::bytes::{address, addresses, each, from_address, from_addresses, messages, small};
use crate::error::{At, FieldError, Problem};
use crate::proto;

impl From<TrafficPolicy> for proto::TrafficPolicy {
    fn from(policy: TrafficPolicy) -> Self {
        match policy {
            TrafficPolicy::Cluster => Self::Cluster,
            TrafficPolicy::Local => Self::Local,
        }
    }
}

fn traffic_policy(value: i32) -> Result<TrafficPolicy, Problem> {
    match proto::TrafficPolicy::try_from(value) {
        Ok(proto::TrafficPolicy::Cluster) => Ok(TrafficPolicy::Cluster),
        Ok(proto::TrafficPolicy::Local) => Ok(TrafficPolicy::Local),
        Ok(proto::TrafficPolicy::Unspecified) | Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<Selection> for proto::Selection {
    fn from(selection: Selection) -> Self {
        match selection {
            Selection::Even => Self::Even,
            Selection::Maglev => Self::Maglev,
        }
    }
}

fn selection(value: i32) -> Result<Selection, Problem> {
    match proto::Selection::try_from(value) {
        Ok(proto::Selection::Even | proto::Selection::Unspecified) => Ok(Selection::Even),
        Ok(proto::Selection::Maglev) => Ok(Selection::Maglev),
        Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<&Backend> for proto::Backend {
    fn from(backend: &Backend) -> Self {
        Self { address: from_address(backend.addr), port: backend.port.into() }
    }
}

impl TryFrom<proto::Backend> for Backend {
    type Error = FieldError;

    fn try_from(backend: proto::Backend) -> Result<Self, FieldError> {
        Ok(Self {
            addr: address(&backend.address).at("address")?,
            port: small(backend.port).at("port")?,
        })
    }
}

impl From<&Service> for proto::Service {
    fn from(service: &Service) -> Self {
        Self {
            key: service.key.to_string(),
            protocol: service.protocol.into(),
            port: service.port.into(),
            cluster_ips: from_addresses(&service.cluster_ips),
            external_ips: from_addresses(&service.external_ips),
            load_balancer_ips: from_addresses(&service.load_balancer_ips),
            load_balancer_sources: messages(&service.load_balancer_sources),
            node_port: service.node_port.map(Into::into),
            internal: proto::TrafficPolicy::from(service.internal).into(),
            external: proto::TrafficPolicy::from(service.external).into(),
            affinity: service.affinity,
            cluster_backends: messages(&service.cluster_backends),
            local_backends: messages(&service.local_backends),
            kept_backends: messages(&service.kept_backends),
            selection: proto::Selection::from(service.selection).into(),
        }
    }
}

impl TryFrom<proto::Service> for Service {
    type Error = FieldError;

    fn try_from(service: proto::Service) -> Result<Self, FieldError> {
        Ok(Self {
            key: service.key.into(),
            protocol: small(service.protocol).at("protocol")?,
            port: small(service.port).at("port")?,
            cluster_ips: addresses(service.cluster_ips, "cluster_ips")?,
            external_ips: addresses(service.external_ips, "external_ips")?,
            load_balancer_ips: addresses(service.load_balancer_ips, "load_balancer_ips")?,
            load_balancer_sources: each(service.load_balancer_sources, "load_balancer_sources")?,
            node_port: service.node_port.map(small).transpose().at("node_port")?,
            internal: traffic_policy(service.internal).at("internal")?,
            external: traffic_policy(service.external).at("external")?,
            affinity: service.affinity,
            cluster_backends: each(service.cluster_backends, "cluster_backends")?,
            local_backends: each(service.local_backends, "local_backends")?,
            kept_backends: each(service.kept_backends, "kept_backends")?,
            selection: selection(service.selection).at("selection")?,
        })
    }
}
