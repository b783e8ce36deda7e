//! A connection as it is shown to people and programs.

use std::net::IpAddr;

use crate::policy::PolicyKey;

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
    /// Whether its packets go past the workers.
    pub shortcut: bool,
    /// The policy and rule that decided at the source's endpoint.
    pub egress: Option<(PolicyKey, u32)>,
    /// The policy and rule that decided at the destination's endpoint.
    pub ingress: Option<(PolicyKey, u32)>,
}
