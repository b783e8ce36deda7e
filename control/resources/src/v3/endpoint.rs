//! Host endpoints and workload endpoints.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::object::{Object, is_default};
use super::qos::QosControls;
use super::value::{Net, Protocol};

/// An interface of a host that policy applies to.
pub type HostEndpoint = Object<HostEndpointSpec>;
/// An interface of a workload, written by the CNI plugin.
pub type WorkloadEndpoint = Object<WorkloadEndpointSpec>;

/// An interface of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointSpec {
    /// The node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The interface; `*` for all; empty to find it by its addresses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// The addresses of the endpoint, by which rules know it.
    #[serde(default, rename = "expectedIPs", skip_serializing_if = "Vec::is_empty")]
    pub expected_ips: Vec<IpAddr>,
    /// Profiles, in the order in which they apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Named ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Its name.
    pub name: String,
    /// TCP, UDP, SCTP or UDPLite.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// An interface of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEndpointSpec {
    /// `k8s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub orchestrator: String,
    /// The workload, where it is not a pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// The node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The container.
    #[serde(default, rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The interface inside the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The service account of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// The addresses, as networks of one.
    #[serde(default, rename = "ipNetworks", skip_serializing_if = "Vec::is_empty")]
    pub ip_networks: Vec<Net>,
    /// Addresses that are translated to the endpoint's own, one to one.
    #[serde(default, rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    pub ip_nats: Vec<IpNat>,
    /// The gateway that the pod sees.
    #[serde(default, rename = "ipv4Gateway", skip_serializing_if = "String::is_empty")]
    pub ipv4_gateway: String,
    /// The gateway that the pod sees.
    #[serde(default, rename = "ipv6Gateway", skip_serializing_if = "String::is_empty")]
    pub ipv6_gateway: String,
    /// Profiles, in the order in which they apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// The host's end of the interface.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// The Ethernet address of the pod's end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Named and mapped ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WorkloadEndpointPort>,
    /// Sources that the endpoint may use beside its own addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_spoofed_source_prefixes: Vec<Net>,
    /// What the endpoint may use of the network, where its Pod's annotations do not say otherwise.
    #[serde(default, rename = "qosControls", skip_serializing_if = "Option::is_none")]
    pub qos_controls: Option<QosControls>,
}

/// A named or mapped port of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEndpointPort {
    /// Its name; empty for a port that is only mapped.
    #[serde(default)]
    pub name: String,
    /// TCP, UDP, SCTP or UDPLite.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// The port of the host that is mapped to it; 0 for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_port: u16,
    /// The address of the host that is mapped; empty for all.
    #[serde(default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// An address that is translated one to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpNat {
    /// The endpoint's address.
    #[serde(rename = "internalIP")]
    pub internal_ip: IpAddr,
    /// The address that others use.
    #[serde(rename = "externalIP")]
    pub external_ip: IpAddr,
}
