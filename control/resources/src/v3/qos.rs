//! What a workload may use of the network.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::is_default;

/// Limits of a workload endpoint; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QosControls {
    /// Bits a second to the workload.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_bandwidth: u64,
    /// Bits a second from the workload.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_bandwidth: u64,
    /// Bits that may pass at once.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_burst: u64,
    /// Bits that may pass at once.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_burst: u64,
    /// Bits a second within a burst.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_peakrate: u64,
    /// Bits a second within a burst.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_peakrate: u64,
    /// Bytes that pass faster than the peak rate; less than a full packet means a full packet.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_minburst: u64,
    /// Bytes that pass faster than the peak rate; less than a full packet means a full packet.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_minburst: u64,
    /// Packets a second to the workload.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_packet_rate: u64,
    /// Packets a second from the workload.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_packet_rate: u64,
    /// Packets that may pass at once.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_packet_burst: u64,
    /// Packets that may pass at once.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_packet_burst: u64,
    /// Connections to the workload, kept as it is.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_max_connections: u64,
    /// Connections from the workload, kept as it is.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_max_connections: u64,
    /// DSCP of what leaves the cluster, kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Value>,
}
