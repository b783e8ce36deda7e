//! Workload endpoints: the pods of this node.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::limit::Limits;
use crate::node::Mac;
use crate::policy::{PolicyKey, TierPolicies};

/// `NAMESPACE/POD/INTERFACE`, with INTERFACE as the pod sees it.
pub type EndpointKey = Arc<str>;

/// A pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub key: EndpointKey,
    /// The host's end of the veth pair.
    pub interface: Arc<str>,
    /// Ethernet address of the pod's end.
    pub mac: Mac,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks that the pod may use as source besides its addresses.
    pub allowed_sources: Vec<IpNet>,
    /// Largest IP packet that the pod's interface takes, in bytes.
    pub mtu: u16,
    /// Tiers in the order of evaluation; those without a policy here are left out.
    pub tiers: Arc<[TierPolicies]>,
    /// The tiers that it would have if all staged policies were enforced; `None` where none of them
    /// concerns it. Nothing is enforced by these.
    pub pending: Option<Arc<[TierPolicies]>>,
    /// Profiles in order; the first that decides wins, none deciding means drop.
    pub profiles: Arc<[PolicyKey]>,
    /// Of several endpoints with one address the highest priority has it.
    pub priority: u32,
    /// What it may use of the network.
    pub limits: Limits,
}
