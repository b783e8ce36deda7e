//! What the plugins ask, in the order in which an ADD asks it.

use std::net::IpAddr;

use margay_model::Mac;
use serde::{Deserialize, Serialize};

use crate::identity::{Attachment, AttachmentRef, Workload};
use crate::mac_text;

/// How is the attachment's interface to be made? Asked before anything is made, so that an agent
/// that is not there fails an ADD which has nothing to undo yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanEndpoint {
    /// The attachment.
    pub attachment: Attachment,
    /// Its workload.
    pub workload: Workload,
    /// `mtu` of the network configuration; 0 leaves it to the agent.
    pub mtu: u32,
    /// `feature_control.ip_addrs_no_ipam`: whether the Pod may name addresses that IPAM does not
    /// know (annotation `cni.projectcalico.org/ipAddrsNoIpam`).
    pub allow_ip_addrs_no_ipam: bool,
}

/// Address families to assign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// `ipam.assign_ipv4`.
    pub ipv4: bool,
    /// `ipam.assign_ipv6`.
    pub ipv6: bool,
}

/// Reserve one address of each family for the attachment. Asked again for the same attachment it
/// answers with the addresses that are reserved already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocate {
    /// The attachment.
    pub attachment: Attachment,
    /// Its workload; annotations of its Pod and Namespace go before what follows.
    pub workload: Workload,
    /// Families to assign.
    pub families: Families,
    /// `ipam.ipv4_pools`: names or CIDRs of pools; empty means any.
    pub ipv4_pools: Vec<String>,
    /// `ipam.ipv6_pools`.
    pub ipv6_pools: Vec<String>,
    /// Addresses that the runtime asks for (`IP` of CNI_ARGS, `args.cni.ips`,
    /// `runtimeConfig.ips`); empty means any.
    pub ips: Vec<IpAddr>,
}

/// Free the attachment's addresses. None being reserved is success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The attachment.
    pub attachment: Attachment,
    /// Its workload.
    pub workload: Workload,
}

/// Are these addresses reserved for the attachment?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckAddress {
    /// The attachment.
    pub attachment: Attachment,
    /// Addresses of the ADD's result.
    pub addresses: Vec<IpAddr>,
}

/// A port of the node that leads to a pod (`runtimeConfig.portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// IP protocol number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The node's port.
    pub host_port: u16,
    /// The node's address that has it; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// The pod's port.
    pub port: u16,
}

/// What a pod may use of the network (`runtimeConfig.bandwidth`), in bits and bits a second; 0 is
/// no limit, and a burst of 0 is the agent's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_rate: u64,
    /// Bits to the pod at once.
    pub ingress_burst: u64,
    /// From the pod.
    pub egress_rate: u64,
    /// Bits from the pod at once.
    pub egress_burst: u64,
}

/// Bring the endpoint into force: the answer comes when the first packet that the pod sends or
/// receives will be judged by its policy. The pod's end is down until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddEndpoint {
    /// The attachment.
    pub attachment: Attachment,
    /// Its workload.
    pub workload: Workload,
    /// CNI_NETNS as the runtime gave it; for people, the agent does not open it.
    pub netns: String,
    /// Name of the host's end of the veth pair.
    pub host_interface: String,
    /// Ethernet address of the pod's end.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// MTU of both ends.
    pub mtu: u32,
    /// Ports of the node that lead to the pod.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
    /// What the pod may use, where its annotations do not say otherwise.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// How long to wait for the policy, in seconds; 0 leaves it to the agent.
    #[serde(default)]
    pub timeout_s: u32,
}

/// Take the endpoint out of force and forget it, if it is still this attachment's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelEndpoint {
    /// The attachment.
    pub attachment: Attachment,
    /// Its workload.
    pub workload: Workload,
}

/// Is the endpoint stored and in force, as it was added?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckEndpoint {
    /// The attachment.
    pub attachment: Attachment,
    /// Its workload.
    pub workload: Workload,
    /// Name of the host's end of the veth pair.
    pub host_interface: String,
    /// Addresses of the ADD's result.
    pub addresses: Vec<IpAddr>,
}

/// Forget this node's endpoints of the network whose attachment is not in `valid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcEndpoints {
    /// `name` of the network configuration.
    pub network: String,
    /// `cni.dev/valid-attachments`.
    pub valid: Vec<AttachmentRef>,
}

/// Free this node's addresses of the network whose attachment is not in `valid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcAddresses {
    /// `name` of the network configuration.
    pub network: String,
    /// `cni.dev/valid-attachments`.
    pub valid: Vec<AttachmentRef>,
}

/// Would an ADD succeed, as far as endpoints go?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// Would an ADD get its addresses?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressStatus {
    /// Families that an ADD would ask for.
    pub families: Families,
    /// `ipam.ipv4_pools`.
    pub ipv4_pools: Vec<String>,
    /// `ipam.ipv6_pools`.
    pub ipv6_pools: Vec<String>,
}
