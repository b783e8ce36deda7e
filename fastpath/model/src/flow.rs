//! A connection as it is shown to people and programs.

use std::net::IpAddr;
use std::sync::Arc;

use crate::endpoint::EndpointKey;
use crate::policy::PolicyKey;
use crate::reason::DropReason;

/// One direction's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port in host byte order; the identifier of an ICMP request; 0 without ports.
    pub src_port: u16,
    /// Destination port in host byte order; the identifier of an ICMP reply; 0 without ports.
    pub dst_port: u16,
}

/// Packets and bytes of one direction; bytes count IP packets without their Ethernet header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// The tuple of its first packet, as it arrived.
    pub orig: FlowTuple,
    /// The tuple of an answer, as it arrives.
    pub reply: FlowTuple,
    /// Counts of the first packet's direction.
    pub orig_count: FlowCount,
    /// Counts of the other direction.
    pub reply_count: FlowCount,
    /// Connection state in the field's words: `SYN_SENT`, `ESTABLISHED`, `DENIED`, ….
    pub state: &'static str,
    /// Milliseconds since the last packet of either direction.
    pub idle_ms: u64,
    /// Whether the connection is allowed.
    pub allowed: bool,
    /// Why its packets are dropped; `None` where it is allowed.
    pub denied: Option<DropReason>,
    /// Whether its packets go past the workers.
    pub shortcut: bool,
    /// The policy, and the rule's place in its document, that decided at the source's endpoint; of
    /// a tier's default action `Tier//NAME` and 0.
    pub egress: Option<(PolicyKey, u32)>,
    /// The same at the destination's endpoint.
    pub ingress: Option<(PolicyKey, u32)>,
    /// By which policy for what passes through the node host endpoints allowed it, where it leaves
    /// and where it came in.
    pub passed: [Option<(PolicyKey, u32)>; 2],
}

/// What an endpoint says to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Allowed or not.
    pub allowed: bool,
    /// The policy or profile whose rule decided; `None` where a tier's default action did, or
    /// nothing.
    pub policy: Option<PolicyKey>,
    /// The tier that decided; `None` where a profile did, or nothing.
    pub tier: Option<Arc<str>>,
    /// The rule's place in its document, from 0.
    pub rule: u32,
}

/// News of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// The connection.
    pub flow: FlowView,
    /// What both directions carried since the last report.
    pub more: [FlowCount; 2],
    /// Whether this is the first report.
    pub begun: bool,
    /// Whether this is the last.
    pub ended: bool,
    /// The endpoints of this node at its source and at its destination.
    pub endpoints: [Option<EndpointKey>; 2],
    /// What they said.
    pub enforced: [Option<Judgement>; 2],
    /// What they would say if all staged policies were enforced; `None` where none concerns them.
    pub pending: [Option<Judgement>; 2],
}
