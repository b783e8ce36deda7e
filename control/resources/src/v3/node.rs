//! Nodes as machines describe them, and reports on them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::Object;
use super::value::AsNumber;

/// What the network knows of a node.
pub type Node = Object<NodeSpec>;
/// A report on a node that somebody asked for.
pub type CalicoNodeStatus = Object<CalicoNodeStatusSpec>;

/// A node. Addresses are texts, as they may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Underlay addresses and BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
    /// The node's address in VXLAN pools.
    #[serde(default, rename = "ipv4VXLANTunnelAddr", skip_serializing_if = "String::is_empty")]
    pub ipv4_vxlan_tunnel_addr: String,
    /// Ethernet address of its VTEP.
    #[serde(default, rename = "vxlanTunnelMACAddr", skip_serializing_if = "String::is_empty")]
    pub vxlan_tunnel_mac_addr: String,
    /// The node's address in VXLAN pools of IPv6.
    #[serde(default, rename = "ipv6VXLANTunnelAddr", skip_serializing_if = "String::is_empty")]
    pub ipv6_vxlan_tunnel_addr: String,
    /// Ethernet address of its VTEP of IPv6.
    #[serde(default, rename = "vxlanTunnelMACAddrV6", skip_serializing_if = "String::is_empty")]
    pub vxlan_tunnel_mac_addr_v6: String,
    /// The node in orchestrators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orch_refs: Vec<OrchRef>,
    /// Addresses of WireGuard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<NodeWireguard>,
    /// Further addresses of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Interfaces and their addresses, which are kept as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Value>,
}

/// Underlay addresses and BGP of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeBgp {
    /// AS number, if it differs from the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// Address with the length of its subnet.
    #[serde(default, rename = "ipv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// Address with the length of its subnet.
    #[serde(default, rename = "ipv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// The node's address in IPIP pools.
    #[serde(default, rename = "ipv4IPIPTunnelAddr", skip_serializing_if = "String::is_empty")]
    pub ipv4_ipip_tunnel_addr: String,
    /// The node reflects routes.
    #[serde(default, rename = "routeReflectorClusterID", skip_serializing_if = "String::is_empty")]
    pub route_reflector_cluster_id: String,
}

/// A node in an orchestrator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrchRef {
    /// Its name there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// `k8s`.
    pub orchestrator: String,
}

/// Addresses of WireGuard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWireguard {
    /// IPv4.
    #[serde(default, rename = "interfaceIPv4Address", skip_serializing_if = "String::is_empty")]
    pub interface_ipv4_address: String,
    /// IPv6.
    #[serde(default, rename = "interfaceIPv6Address", skip_serializing_if = "String::is_empty")]
    pub interface_ipv6_address: String,
}

/// A further address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// The address, perhaps with a length.
    pub address: String,
    /// `CalicoNodeIP`, `InternalIP` or `ExternalIP`.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// What a report is to contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CalicoNodeStatusSpec {
    /// The node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `Agent`, `BGP`, `Routes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Seconds between reports; 0 stops them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_period_seconds: Option<i64>,
}
