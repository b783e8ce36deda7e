//! What a worker hands over.

use std::net::IpAddr;

use margay_model::flow::FlowTuple;
use margay_model::node::Encap;
use margay_model::reason::PuntReason;

/// Number of a port, as the daemon numbers them. The slow path only compares and returns it.
pub type PortId = u32;

/// Where a packet came from: how it is to be put back, and whose address an error about it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ingress {
    /// A port.
    Port(PortId),
    /// A tunnel; the outer packet came from the port.
    Tunnel(PortId, Encap),
    /// The node itself: an [`Injection::Own`](crate::Injection::Own) that had to be punted again.
    Own,
}

/// What the slow path has done to a packet before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// It was put together from fragments: it may be larger than its port's MTU, and where it is too
    /// big to leave it is to be fragmented, IPv6 too.
    pub reassembled: bool,
    /// It has been read and is not to come back for that.
    pub read: bool,
}

/// A packet that the fast path cannot finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Where it came from.
    pub ingress: Ingress,
    /// What has become of it here before.
    pub past: Past,
    /// The Ethernet frame: as received, but for [`Request::Fragment`] as it is to leave.
    pub frame: Vec<u8>,
    /// Offset in `frame` of the IP packet (or ARP packet) that the request is about: behind the
    /// Ethernet header, or behind the outer headers of a tunnel.
    pub ip_start: usize,
    /// What is asked for.
    pub request: Request,
}

/// What is asked for, one for each [`PuntReason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An ARP packet of a pod.
    Arp,
    /// A neighbour solicitation or advertisement of a pod.
    Ndisc,
    /// The TTL or hop limit ran out: tell the sender.
    TtlExpired,
    /// Larger than the path and not to be fragmented: tell the sender.
    TooBig {
        /// The largest IP packet that goes, in bytes, tunnel headers already taken off.
        mtu: u16,
    },
    /// Larger than the path: cut it. Here the frame is as it is to leave, with all its rewrites and
    /// outer headers done as though there were no limit; the IP packet at `ip_start` is cut, each
    /// piece is sent behind a copy of what precedes it, lengths corrected.
    Fragment {
        /// Port to leave by.
        egress: PortId,
        /// The largest IP packet at `ip_start` that goes, in bytes.
        mtu: u16,
    },
    /// A fragment: put its datagram together.
    Reassemble,
    /// No way to the destination: tell the sender.
    Unreachable(Unreachable),
    /// Nobody serves there: refuse the connection in the name of the address it was sent to.
    Reject,
    /// A TCP segment that begins one connection too many: refuse it in the name of the address it was
    /// sent to.
    ConnectionLimit,
    /// The next hop's Ethernet address is not known: keep the packet until it is.
    Neighbour {
        /// Port to leave by.
        egress: PortId,
        /// The next hop.
        hop: IpAddr,
    },
    /// An ICMP error: translate its quotation.
    IcmpError {
        /// Whether it may be about a tunnel of this node: it came from between the nodes, and quotes a
        /// packet from this node to another one. Whoever else says so is not believed.
        tunnel: bool,
    },
    /// The first packet of a connection from outside to a backend in the host network. The kernel's
    /// answers carry this tuple and are to be steered here.
    HostFlow(FlowTuple),
    /// A router solicitation or DHCP packet of a pod.
    Dhcp,
    /// A packet of a pod's conversation with a trusted name server.
    Dns {
        /// The tuple that the pod's packets of the conversation arrive with.
        conversation: FlowTuple,
        /// Whether the packet is the pod's.
        from_client: bool,
    },
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unreachable {
    /// No route (ICMP 3/0, ICMPv6 1/0).
    Net,
    /// No such host on the link or in the block (ICMP 3/1, ICMPv6 1/3).
    Host,
    /// Nobody listens on the port (ICMP 3/3, ICMPv6 1/4).
    Port,
    /// Forbidden (ICMP 3/13, ICMPv6 1/1).
    Prohibited,
}

// === impl Ingress ===

impl Ingress {
    /// The port that is charged for what the packet causes.
    pub fn port(self) -> Option<PortId> {
        match self {
            Self::Port(port) | Self::Tunnel(port, _) => Some(port),
            Self::Own => None,
        }
    }
}

// === impl Request ===

impl Request {
    /// The reason it is counted under.
    pub fn reason(&self) -> PuntReason {
        match self {
            Self::Arp => PuntReason::Arp,
            Self::Ndisc => PuntReason::Ndisc,
            Self::TtlExpired => PuntReason::TtlExpired,
            Self::TooBig { .. } => PuntReason::TooBig,
            Self::Fragment { .. } => PuntReason::Fragment,
            Self::Reassemble => PuntReason::Reassemble,
            Self::Unreachable(_) => PuntReason::Unreachable,
            Self::Reject => PuntReason::Reject,
            Self::ConnectionLimit => PuntReason::ConnectionLimit,
            Self::Neighbour { .. } => PuntReason::Neighbour,
            Self::IcmpError { .. } => PuntReason::IcmpError,
            Self::HostFlow(_) => PuntReason::HostFlow,
            Self::Dhcp => PuntReason::Dhcp,
            Self::Dns { .. } => PuntReason::Dns,
        }
    }
}

// === impl Punt ===

impl Punt {
    /// The packet that the request is about; empty where `ip_start` lies outside the frame.
    pub fn packet(&self) -> &[u8] {
        self.frame.get(self.ip_start..).unwrap_or_default()
    }
}
