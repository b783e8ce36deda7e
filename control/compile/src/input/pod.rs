//! Pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::intent::kubernetes::protocol;
use crate::profiles::LabelMap;
use crate::service::Conditions;
use crate::sets::NamedPort;

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodFacts {
    pub(crate) labels: LabelMap,
    pub(crate) service_account: Arc<str>,
    pub(crate) node: Option<Arc<str>>,
    /// It shares the network of its node.
    pub(crate) host_network: bool,
    /// It has ended and gave its addresses back.
    pub(crate) finished: bool,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// As its status tells them.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<NamedPort>,
    /// Annotations about what it may use of the network.
    pub(crate) qos: BTreeMap<String, String>,
}

// === impl PodFacts ===

impl PodFacts {
    /// The state of the pod as an endpoint of services.
    pub(crate) fn conditions(&self) -> Conditions {
        Conditions {
            ready: self.ready && !self.terminating,
            serving: self.ready,
            terminating: self.terminating,
        }
    }

    /// The addresses that belong to the pod alone.
    pub(crate) fn own_addresses(&self) -> &[IpAddr] {
        if self.host_network || self.finished { &[] } else { &self.addresses }
    }
}

impl From<&Pod> for PodFacts {
    fn from(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let account = spec.and_then(|s| s.service_account_name.as_deref());
        let phase = status.and_then(|s| s.phase.as_deref());
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().find(|c| c.type_ == "Ready");
        let ips = status.and_then(|s| s.pod_ips.as_deref()).unwrap_or_default();
        let ip = status.and_then(|s| s.pod_ip.as_deref());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in ips.iter().map(|ip| ip.ip.as_str()).chain(ip).filter_map(|t| t.parse().ok())
        {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            service_account: account.filter(|a| !a.is_empty()).unwrap_or("default").into(),
            node: spec
                .and_then(|s| s.node_name.as_deref())
                .filter(|n| !n.is_empty())
                .map(Into::into),
            host_network: spec.and_then(|s| s.host_network).unwrap_or_default(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            // A pod without conditions is ready.
            ready: conditions.is_empty() || ready.is_some_and(|c| c.status == "True"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            addresses,
            ports: ports(pod),
            qos: qos(pod),
        }
    }
}

fn qos(pod: &Pod) -> BTreeMap<String, String> {
    let annotations = pod.metadata.annotations.iter().flatten();
    let ours = annotations.filter(|(name, _)| margay_resources::qos::is_about(name));
    ours.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn ports(pod: &Pod) -> Vec<NamedPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    // Init containers that are restarted run beside the others.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mut named: Vec<_> = ports
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.as_deref()?.into(),
                protocol: protocol(port.protocol.as_deref())?,
                port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect();
    named.dedup();
    named
}
