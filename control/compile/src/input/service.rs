//! Services and EndpointSlices.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort as Port, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use margay_model::{Selection, TrafficPolicy};
use margay_resources::selector::{NAMESPACE_LABEL, Selector};

use crate::intent::kubernetes::{network, protocol};
use crate::name::ObjectName;
use crate::service::{
    Conditions, Distribution, Hints, ServiceEndpoint, ServiceFacts, ServicePort, SliceFacts,
    SlicePort, Target,
};

/// Marks services that another proxy serves.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Marks services that no proxy serves.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Says that all nodes choose a service's backends alike, in Calico's words.
const STRATEGY: &str = "lb.projectcalico.org/external-traffic-strategy";
/// Names the service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Seconds of client affinity where none are given.
const AFFINITY_SECONDS: i32 = 10_800;

/// Converts a service. One that no proxy is to serve keeps its endpoints, which rules may name,
/// but has no addresses. `None` for a service that is only a name (ExternalName).
pub(crate) fn service(object: &Service) -> Option<ServiceFacts> {
    let name = object_name(&object.metadata);
    let default = ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = object.metadata.labels.as_ref();
    let ignored = labels.is_some_and(|l| l.contains_key(PROXY_NAME) || l.contains_key(HEADLESS));
    let cluster_ips = if ignored { Vec::new() } else { cluster_ips(spec) };
    let served = !cluster_ips.is_empty();
    let local = |policy: &Option<String>| match policy.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    let external_ips = spec.external_ips.iter().flatten().filter(|_| served);
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let external = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    Some(ServiceFacts {
        cluster_ips,
        external_ips: external_ips.filter_map(|ip| ip.trim().parse().ok()).collect(),
        load_balancer_ips: if served { load_balancer_ips(object) } else { Vec::new() },
        load_balancer_sources: ranges.filter_map(|range| network(range)).collect(),
        ports: spec.ports.iter().flatten().filter_map(|p| port(p, external)).collect(),
        selector: selector(spec, &name),
        internal: local(&spec.internal_traffic_policy),
        external: local(&spec.external_traffic_policy),
        affinity: affinity(spec),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        distribution: match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => Distribution::SameZone,
            Some("PreferSameNode") => Distribution::SameNode,
            _ => Distribution::Everywhere,
        },
        selection: selection(object),
        health_check: health_check(spec).filter(|_| served),
        name,
    })
}

fn selection(object: &Service) -> Selection {
    let annotations = object.metadata.annotations.as_ref();
    match annotations.and_then(|a| a.get(STRATEGY)).map(String::as_str) {
        Some("maglev") => Selection::Maglev,
        _ => Selection::Even,
    }
}

/// Only a load balancer's choice of the node matters to who is served there.
fn health_check(spec: &ServiceSpec) -> Option<u16> {
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let port = u16::try_from(spec.health_check_node_port.filter(|_| balanced && local)?);
    port.ok().filter(|port| *port > 0)
}

pub(crate) fn object_name(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> ObjectName {
    let text = |t: &Option<String>| Arc::from(t.as_deref().unwrap_or_default());
    ObjectName { namespace: text(&metadata.namespace), name: text(&metadata.name) }
}

/// Empty for a headless service, whose address is the word `None`.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    for address in all.filter_map(|ip| ip.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn load_balancer_ips(object: &Service) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_deref()).unwrap_or_default();
    // In the mode `Proxy` the balancer sends to the node's addresses itself.
    let ours = ingress.iter().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    ours.filter_map(|i| i.ip.as_deref()?.parse().ok()).collect()
}

fn port(port: &Port, external: bool) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok().filter(|p| *p > 0)?;
    let target = match &port.target_port {
        None => Target::Number(number),
        Some(IntOrString::Int(0)) => Target::Number(number),
        Some(IntOrString::Int(target)) => Target::Number(u16::try_from(*target).ok()?),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(target) => Target::Number(target),
            Err(_) => Target::Name(name.as_str().into()),
        },
    };
    let node_port = port.node_port.filter(|_| external).and_then(|p| u16::try_from(p).ok());
    Some(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: protocol(port.protocol.as_deref())?,
        port: number,
        target,
        node_port: node_port.filter(|p| *p > 0),
    })
}

/// A service without a selector has the endpoints that its slices name, and no others.
fn selector(spec: &ServiceSpec, name: &ObjectName) -> Option<crate::label::Expression> {
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    let own = Selector::equals(NAMESPACE_LABEL, &name.namespace);
    let all = labels.iter().fold(own, |all, (k, v)| all.and(&Selector::equals(k, v)));
    Some(all.into())
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    u32::try_from(seconds.unwrap_or(AFFINITY_SECONDS)).ok()
}

/// Converts a slice; `None` for one of no service, or of names instead of addresses.
pub(crate) fn slice(object: &EndpointSlice) -> Option<SliceFacts> {
    let labels = object.metadata.labels.as_ref()?;
    let service = labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    if !matches!(object.address_type.as_str(), "IPv4" | "IPv6") {
        return None;
    }
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let ports = object.ports.iter().flatten().filter_map(|port| {
        Some(SlicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port?).ok()?,
        })
    });
    let v6 = object.address_type == "IPv6";
    let endpoints = slice_endpoints(object).filter(|e| e.addr.is_ipv6() == v6).collect();
    let service = ObjectName::new(namespace, service.as_str());
    Some(SliceFacts { service, ports: ports.collect(), endpoints })
}

fn slice_endpoints(object: &EndpointSlice) -> impl Iterator<Item = ServiceEndpoint> + '_ {
    object.endpoints.iter().flatten().flat_map(|endpoint| {
        endpoint.addresses.iter().filter_map(|a| a.parse().ok()).map(|addr| ServiceEndpoint {
            addr,
            port: 0,
            node: endpoint.node_name.as_deref().map(Into::into),
            conditions: conditions(endpoint),
            hints: hints(endpoint),
        })
    })
}

fn conditions(endpoint: &Endpoint) -> Conditions {
    let given = endpoint.conditions.clone().unwrap_or_default();
    Conditions {
        ready: given.ready.unwrap_or(true),
        serving: given.serving.unwrap_or(true),
        terminating: given.terminating.unwrap_or(false),
    }
}

fn hints(endpoint: &Endpoint) -> Hints {
    let Some(hints) = &endpoint.hints else { return Hints::default() };
    Hints {
        nodes: hints.for_nodes.iter().flatten().map(|n| n.name.as_str().into()).collect(),
        zones: hints.for_zones.iter().flatten().map(|z| z.name.as_str().into()).collect(),
    }
}
