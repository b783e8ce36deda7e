//! Pools and the settings of address management.

use serde::{Deserialize, Serialize};

use super::object::{Object, is_default};
use super::value::Net;

/// Addresses for pods, tunnels or load balancers.
pub type IpPool = Object<IpPoolSpec>;
/// Addresses that are not assigned automatically.
pub type IpReservation = Object<IpReservationSpec>;
/// How addresses are assigned.
pub type IpamConfiguration = Object<IpamConfigurationSpec>;

/// When packets to a pool are encapsulated.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// Always.
    Always,
    /// To nodes of other subnets.
    CrossSubnet,
}

/// What the addresses of a pool may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AllowedUse {
    /// Pods.
    Workload,
    /// Ends of tunnels.
    Tunnel,
    /// Services of type LoadBalancer; excludes the others.
    LoadBalancer,
}

/// Whether addresses are assigned without being asked for by pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignmentMode {
    /// Yes.
    #[default]
    Automatic,
    /// Only from pools that are asked for.
    Manual,
}

/// A pool of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// The addresses. Missing is refused by validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Net>,
    /// VXLAN. Never missing once the defaults are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<EncapMode>,
    /// IP in IP, IPv4 only. Never missing once the defaults are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<EncapMode>,
    /// Whether packets to addresses outside of all pools are masqueraded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nat_outgoing: bool,
    /// No new addresses are assigned.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// The pool is not advertised.
    #[serde(default, rename = "disableBGPExport", skip_serializing_if = "is_default")]
    pub disable_bgp_export: bool,
    /// Prefix length of a node's block. Never missing once the defaults are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<i64>,
    /// The nodes that use the pool. Never empty once the defaults are applied.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_selector: String,
    /// The namespaces that use the pool; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace_selector: String,
    /// What the addresses are for. Never empty once the defaults are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether addresses are assigned automatically. Never missing once the defaults are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<AssignmentMode>,
}

/// Reserved addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpReservationSpec {
    /// The addresses.
    #[serde(default, rename = "reservedCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub reserved_cidrs: Vec<Net>,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switch {
    /// It is.
    Enabled,
    /// It is not.
    Disabled,
}

/// How addresses are assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamConfigurationSpec {
    /// A node uses addresses of its own blocks only.
    #[serde(default)]
    pub strict_affinity: bool,
    /// Blocks of a node at most; 0 is no limit of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_blocks_per_host: i64,
    /// Nodes claim blocks when they need them. True when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_allocate_blocks: Option<bool>,
    /// Virtual machines keep their address. Enabled when missing.
    #[serde(
        default,
        rename = "kubeVirtVMAddressPersistence",
        skip_serializing_if = "Option::is_none"
    )]
    pub kube_virt_vm_address_persistence: Option<Switch>,
    /// Seconds for which a released address is not assigned again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_cooldown_seconds: Option<i64>,
}
