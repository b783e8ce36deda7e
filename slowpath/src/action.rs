//! What is to be done, and how it is counted.
//!
//! The account, in three rules (tests assert them over every request):
//! 1. Each punt ends exactly once, at once or later: as [`Action::Consumed`] or as
//!    [`Action::Dropped`]. A packet that waits (a fragment, an unresolved next hop, an answer of a
//!    name server) has not ended.
//! 2. Each [`Action::Inject`] is one more frame; it counts as injected under its reason. A packet
//!    that goes on after the slow path is consumed once and injected once.
//! 3. So, once nothing waits: rx + injected = tx + drops + consumed.

use std::net::IpAddr;

use margay_model::flow::FlowTuple;
use margay_model::reason::{DnsReading, DropReason, PuntReason};

use crate::dns::Fact;
use crate::punt::{Ingress, Past, PortId};

/// One step of the answer to a punt. Steps are to be taken in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A frame enters the dataplane.
    Inject(PuntReason, Injection),
    /// A punt of this reason has ended and is accounted for.
    Consumed(PuntReason),
    /// A punt of this reason has ended as a drop.
    Dropped(PuntReason, DropReason),
    /// The kernel is to be asked for a neighbour's Ethernet address; when it is known,
    /// [`SlowPath::resolved`](crate::SlowPath::resolved) is to be called.
    ResolveNeighbour {
        /// Port the neighbour is behind.
        egress: PortId,
        /// Its address.
        hop: IpAddr,
    },
    /// The kernel's packets with this tuple are to be steered to the host port.
    SteerHostFlow(FlowTuple),
    /// A message between a pod and a name server was read.
    Read(DnsReading),
    /// Names have these addresses. When that is in force,
    /// [`SlowPath::learned`](crate::SlowPath::learned) is to be called: an answer waits for it.
    Learn {
        /// What to call it with.
        ticket: u64,
        /// What an answer said.
        facts: Vec<Fact>,
    },
    /// The path to a tunnel's far end takes outer packets of at most this many bytes.
    PathMtu {
        /// The far end.
        peer: IpAddr,
        /// Largest outer IP packet, in bytes.
        mtu: u16,
    },
}

/// How a frame enters the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injection {
    /// It leaves by a port as it is.
    Send {
        /// The port.
        port: PortId,
        /// A whole Ethernet frame.
        frame: Vec<u8>,
    },
    /// An IP packet of the node's own: routed and encapsulated, without policy, NAT or connection
    /// tracking, its TTL left alone. Punted again it comes with [`Ingress::Own`].
    Own {
        /// An IP packet without Ethernet header.
        packet: Vec<u8>,
    },
    /// It runs through the engine once more as though received.
    Again {
        /// Where it came from.
        ingress: Ingress,
        /// A whole Ethernet frame with its outer headers, if any.
        frame: Vec<u8>,
        /// What has become of it here.
        past: Past,
    },
}
