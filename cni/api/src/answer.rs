//! What the agent answers.

use std::net::IpAddr;

use margay_model::Mac;
use serde::{Deserialize, Serialize};

use crate::mac_text;

/// How the plugin is to make the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPlan {
    /// MTU of both ends, in bytes; the configured one where one is configured.
    pub mtu: u32,
    /// Ethernet address of the pod's end (annotation `cni.projectcalico.org/hwAddr`); none lets
    /// the plugin draw a random one.
    #[serde(default, with = "mac_text::option")]
    pub mac: Option<Mac>,
    /// Queues of each end of the veth pair, at least 1.
    pub queues: u32,
    /// Whether the pod's end may leave TCP and UDP checksums to what is behind the veth pair.
    /// True where the kernel completes them on the way to the dataplane, false where the
    /// dataplane takes the frame from the veth itself.
    pub tx_checksum_offload: bool,
    /// The pod's addresses when they do not come from IPAM (annotation
    /// `cni.projectcalico.org/ipAddrsNoIpam`); empty means: ask the IPAM plugin.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs` of this node, for `host-local` with `"subnet": "usePodCidr"`.
    #[serde(default)]
    pub pod_cidrs: Vec<String>,
}

/// Addresses reserved for an attachment, IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// It is so, or it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The endpoint or the addresses are not there (any more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Whether there was something of this attachment to delete.
    pub existed: bool,
}

/// What a collection removed, and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Container ids of what was removed.
    pub removed: Vec<String>,
    /// One sentence for each failure; the collection went on after it.
    pub errors: Vec<String>,
}

/// Whether the next ADD can succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot (CNI error 50); pods that run are well.
    NotReady {
        /// Why, and what to do.
        reason: String,
    },
    /// It cannot, and pods that run may have lost their network (CNI error 51).
    Degraded {
        /// Why, and what to do.
        reason: String,
    },
}
