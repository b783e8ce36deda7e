//! What a workload may use of the network.

use serde::{Deserialize, Serialize};

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
    /// TCP connections to the workload at a time.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_max_connections: u64,
    /// TCP connections from the workload at a time.
    #[serde(skip_serializing_if = "is_default")]
    pub egress_max_connections: u64,
    /// What packets to outside of the cluster are marked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
}

/// The limits of one direction, as [`QosControls`] has them for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QosDirection {
    /// Bits a second.
    pub bandwidth: u64,
    /// Bits that may pass at once.
    pub burst: u64,
    /// Bits a second within a burst.
    pub peakrate: u64,
    /// Bytes that pass faster than the peak rate.
    pub minburst: u64,
    /// Packets a second.
    pub packet_rate: u64,
    /// Packets that may pass at once.
    pub packet_burst: u64,
    /// TCP connections at a time.
    pub max_connections: u64,
}

/// A differentiated services code point, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dscp {
    /// 0–63.
    Number(u8),
    /// A name such as `EF`, or a number as text.
    Name(String),
}

/// The names (RFC 2474, RFC 2597, RFC 3246) and their numbers, as Calico has them.
const NAMES: &[(&str, u8)] = &[
    ("DF", 0),
    ("EF", 46),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("CS0", 0),
    ("CS1", 8),
    ("CS2", 16),
    ("CS3", 24),
    ("CS4", 32),
    ("CS5", 40),
    ("CS6", 48),
];

// === impl QosControls ===

impl QosControls {
    /// What the workload may receive.
    pub fn ingress(&self) -> QosDirection {
        QosDirection {
            bandwidth: self.ingress_bandwidth,
            burst: self.ingress_burst,
            peakrate: self.ingress_peakrate,
            minburst: self.ingress_minburst,
            packet_rate: self.ingress_packet_rate,
            packet_burst: self.ingress_packet_burst,
            max_connections: self.ingress_max_connections,
        }
    }

    /// What the workload may send.
    pub fn egress(&self) -> QosDirection {
        QosDirection {
            bandwidth: self.egress_bandwidth,
            burst: self.egress_burst,
            peakrate: self.egress_peakrate,
            minburst: self.egress_minburst,
            packet_rate: self.egress_packet_rate,
            packet_burst: self.egress_packet_burst,
            max_connections: self.egress_max_connections,
        }
    }
}

// === impl Dscp ===

impl Dscp {
    /// Its number; `None` where the name or the number is none.
    pub fn number(&self) -> Option<u8> {
        let number = match self {
            Self::Number(number) => *number,
            Self::Name(name) => {
                let name = name.trim();
                let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                known.map(|(_, number)| *number).or_else(|| name.parse().ok())?
            }
        };
        (number <= 63).then_some(number)
    }
}
