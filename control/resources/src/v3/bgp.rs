//! BGP: settings, peers, filters.

use k8s_openapi::api::core::v1::SecretKeySelector;
use serde::{Deserialize, Serialize};

use super::object::{Object, is_default};
use super::value::{AsNumber, Net};

/// Settings of BGP, `default` or of one node.
pub type BgpConfiguration = Object<BgpConfigurationSpec>;
/// A session with a router.
pub type BgpPeer = Object<BgpPeerSpec>;
/// What is imported from and exported to a peer.
pub type BgpFilter = Object<BgpFilterSpec>;

/// Settings of BGP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfigurationSpec {
    /// Least severity that is logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<String>,
    /// Every node peers with every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// AS number of nodes without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// Load-balancer addresses that are advertised.
    #[serde(default, rename = "serviceLoadBalancerIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_load_balancer_ips: Vec<CidrBlock>,
    /// External addresses that are advertised.
    #[serde(default, rename = "serviceExternalIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_external_ips: Vec<CidrBlock>,
    /// Cluster addresses that are advertised.
    #[serde(default, rename = "serviceClusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_cluster_ips: Vec<CidrBlock>,
    /// Whether load-balancer addresses are advertised as whole networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<String>,
    /// Names of communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Community>,
    /// Communities of networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// TCP port of BGP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub listen_port: u16,
    /// Password of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<BgpPassword>,
    /// Graceful restart of the mesh, a duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<String>,
    /// `None` or `NodeIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<String>,
    /// Interfaces whose routes are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_interfaces: Vec<String>,
    /// Address at which nodes peer with their own workloads.
    #[serde(
        default,
        rename = "localWorkloadPeeringIPV4",
        skip_serializing_if = "String::is_empty"
    )]
    pub local_workload_peering_ipv4: String,
    /// Address at which nodes peer with their own workloads.
    #[serde(
        default,
        rename = "localWorkloadPeeringIPV6",
        skip_serializing_if = "String::is_empty"
    )]
    pub local_workload_peering_ipv6: String,
    /// Which routes of the cluster BGP programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_cluster_routes: Option<String>,
    /// Metric of routes.
    #[serde(default, rename = "ipv4NormalRoutePriority", skip_serializing_if = "Option::is_none")]
    pub ipv4_normal_route_priority: Option<i64>,
    /// Metric of routes.
    #[serde(default, rename = "ipv6NormalRoutePriority", skip_serializing_if = "Option::is_none")]
    pub ipv6_normal_route_priority: Option<i64>,
}

/// A network in an object of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrBlock {
    /// The network.
    pub cidr: Net,
}

/// A name for a community.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Community {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `aa:nn` or `aa:nn:mm`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Communities of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixAdvertisement {
    /// The network.
    pub cidr: Net,
    /// Names or values of communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
}

/// A password in a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPassword {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeySelector>,
}

/// A session with a router.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// The node; empty with an empty selector for every node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_selector: String,
    /// The router's address, and its port if it is not BGP's.
    #[serde(default, rename = "peerIP", skip_serializing_if = "String::is_empty")]
    pub peer_ip: String,
    /// The router's AS number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub as_number: AsNumber,
    /// The node's AS number in this session.
    #[serde(default, rename = "localASNumber", skip_serializing_if = "Option::is_none")]
    pub local_as_number: Option<AsNumber>,
    /// Peer with these nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_selector: String,
    /// Peer with these workloads of the node itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_workload_selector: String,
    /// Old form of `nextHopMode: Keep`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_original_next_hop: bool,
    /// `Auto`, `Self` or `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<String>,
    /// Password of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<BgpPassword>,
    /// `UseNodeIP` or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// Graceful restart, a duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<String>,
    /// Keepalives, a duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// How often the node's own AS number may occur in a path.
    #[serde(default, rename = "numAllowedLocalASNumbers", skip_serializing_if = "Option::is_none")]
    pub num_allowed_local_as_numbers: Option<i64>,
    /// Hops that are allowed (RFC 5082); 0 is off.
    #[serde(default, rename = "ttlSecurity", skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<i64>,
    /// Gateway by which the router is reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reachable_by: String,
    /// Filters, in the order in which they apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Whether the other side's session is made as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_peering: Option<String>,
}

/// Rules for routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BgpFilterSpec {
    /// IPv4 routes that are sent.
    #[serde(default, rename = "exportV4", skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<BgpFilterRule>,
    /// IPv4 routes that are received.
    #[serde(default, rename = "importV4", skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<BgpFilterRule>,
    /// IPv6 routes that are sent.
    #[serde(default, rename = "exportV6", skip_serializing_if = "Vec::is_empty")]
    pub export_v6: Vec<BgpFilterRule>,
    /// IPv6 routes that are received.
    #[serde(default, rename = "importV6", skip_serializing_if = "Vec::is_empty")]
    pub import_v6: Vec<BgpFilterRule>,
}

/// How a route's network is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOperator {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It lies inside.
    In,
    /// It does not lie inside.
    NotIn,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterAction {
    /// It is taken.
    Accept,
    /// It is left.
    Reject,
}

/// A rule for routes: all conditions that are given must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpFilterRule {
    /// What becomes of the route.
    pub action: FilterAction,
    /// The network to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Net>,
    /// How to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Limits of the prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// `RemotePeers`: learned by BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Interface of the route; `*` stands for any text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// `eBGP` or `iBGP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// A community that the route carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    /// The beginning of the route's AS path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_path_prefix: Vec<AsNumber>,
    /// The route's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Changes to a route that is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<FilterOperation>,
}

/// Limits of a prefix length, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixLength {
    /// At least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// At most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// Communities to look for: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommunityMatch {
    /// `aa:nn` or `aa:nn:mm`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// A change to a route: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterOperation {
    /// Adds a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,
    /// Lengthens the AS path.
    #[serde(default, rename = "prependASPath", skip_serializing_if = "Option::is_none")]
    pub prepend_as_path: Option<PrependAsPath>,
    /// Sets the metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<SetPriority>,
}

/// A community to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddCommunity {
    /// `aa:nn` or `aa:nn:mm`.
    pub value: String,
}

/// AS numbers to put before a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrependAsPath {
    /// The numbers, in the order of the path.
    pub prefix: Vec<AsNumber>,
}

/// A metric to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPriority {
    /// The metric.
    pub value: i64,
}
