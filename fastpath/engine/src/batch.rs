//! What goes through the path: frames, what parse learned of them, and their fates.

use arrayvec::ArrayVec;
use margay_model::{DropReason, PuntReason};
use margay_tables::addr::{Addr, Tuple};
use margay_wire::ethernet::Ethernet;
use margay_wire::transport::TcpFacts;
use margay_wire::{at, at_mut};

use crate::snapshot::{AdjacencyId, PortId};

/// Frames that one batch holds at most.
pub const BATCH: usize = 64;

/// The Ethernet source of a frame that another node has handed on. Behind a tunnel nobody else looks
/// there, and the slow path gives a frame back, or makes one of its fragments, with what stood there.
const HANDED_ON_MAC: [u8; 6] = [0x02, 0x4d, 0xff, 0xff, 0xff, 0xff];

/// Where the worker took a frame from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// The trunk: the Ethernet destination names the port.
    Trunk,
    /// A port with a socket of its own.
    Port(PortId),
    /// A tunnel whose outer packet came from the port; it is out of the tunnel already.
    Tunnel(PortId),
    /// The slow path, in the node's name: an IP packet behind room for an Ethernet header.
    Own,
}

/// A frame in its chunk of packet memory. Headers are pushed into the room before `start`.
#[derive(Debug)]
pub struct Frame<'m> {
    /// The whole chunk.
    pub chunk: &'m mut [u8],
    /// Offset of the Ethernet header in the chunk.
    pub start: usize,
    /// Length of the frame in bytes, without checksum.
    pub len: usize,
    /// Where it came from.
    pub ingress: Ingress,
    /// Whether the slow path put it together from fragments: where it is too big to leave it is
    /// cut again, IPv6 too.
    pub reassembled: bool,
    /// Whether the slow path has read it: a conversation that is read along goes on with it.
    pub read: bool,
}

impl<'m> Frame<'m> {
    /// A frame as it was received: the slow path has had nothing to do with it.
    #[inline]
    pub fn new(chunk: &'m mut [u8], start: usize, len: usize, ingress: Ingress) -> Self {
        Self { chunk, start, len, ingress, reassembled: false, read: false }
    }

    /// The frame's bytes; empty where start and length contradict the chunk.
    pub fn bytes(&self) -> &[u8] {
        self.chunk.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The frame's bytes for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.chunk.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// Whether a frame that came out of a tunnel was handed on by another node, as its client sent it.
pub fn is_handed_on(frame: &[u8]) -> bool {
    at(frame, 0).is_some_and(|header| Ethernet(header).src() == HANDED_ON_MAC)
}

/// Says that a frame that just came out of a tunnel was handed on, or that it was not; `None` where it
/// has no Ethernet header.
pub(crate) fn set_handed_on(frame: &mut [u8], handed_on: bool) -> Option<()> {
    if handed_on != is_handed_on(frame) {
        let mut header = Ethernet(at_mut(frame, 0)?);
        let (dst, kind) = (header.dst(), header.ethertype());
        header.emit(dst, if handed_on { HANDED_ON_MAC } else { [0; 6] }, kind);
    }
    Some(())
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves through this port, as it now is.
    Forward(PortId),
    /// It leaves through this port, as it now is, so many nanoseconds after the batch's time.
    Later(PortId, u32),
    /// It ends here.
    Drop(DropReason),
    /// It goes to the slow path.
    Punt(Punt),
}

impl Fate {
    /// The port that the frame leaves by, now or later.
    pub fn egress(self) -> Option<PortId> {
        match self {
            Self::Forward(port) | Self::Later(port, _) => Some(port),
            Self::Drop(_) | Self::Punt(_) => None,
        }
    }
}

/// A frame for the slow path. Behind parse the IP header of every frame stands right behind its
/// Ethernet header, except for `Fragment`, whose outer headers are on already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// The port it came from.
    pub port: PortId,
    /// Whether it came out of a tunnel (it is out of it now).
    pub tunneled: bool,
    /// Why.
    pub why: Why,
}

/// Why a frame goes to the slow path, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An ARP packet of a pod.
    Arp,
    /// A discovery packet of a pod.
    Ndisc,
    /// The TTL ran out.
    TtlExpired,
    /// Too big, and not to be fragmented.
    TooBig {
        /// The largest IP packet that passes, in bytes.
        mtu: u16,
    },
    /// Too big, and finished as though it were not.
    Fragment {
        /// The port to leave by.
        egress: PortId,
        /// The largest IP packet that passes, in bytes.
        mtu: u16,
        /// Offset of that packet from the start of the frame.
        ip: u16,
    },
    /// A part of a datagram.
    Reassemble,
    /// No route (`false`) or no such host in a local block (`true`).
    Unreachable {
        /// Whether only the host is missing.
        host: bool,
    },
    /// Nobody serves there.
    Reject,
    /// A pod has as many connections as it may.
    ConnectionLimit,
    /// The next hop's Ethernet address is not known; the packet is as it came. Where it goes once
    /// it is translated, which is the neighbour itself on an uplink's own network, is the source
    /// of [`Engine::answer_to`](crate::Engine::answer_to).
    Neighbour(AdjacencyId),
    /// An ICMP error.
    IcmpError,
    /// The first packet of a connection from outside to a backend in the host network; what tuple
    /// the kernel's answers carry says [`Engine::answer_to`](crate::Engine::answer_to).
    HostFlow,
    /// The first packet of a masqueraded connection by a protocol without ports: nothing but what its
    /// answers carry tells them from the node's own packets, and that says
    /// [`Engine::answer_to`](crate::Engine::answer_to).
    Portless,
    /// Of a conversation with a trusted name server, which is read along: see
    /// [`Engine::conversation`](crate::Engine::conversation).
    Dns,
}

impl Why {
    /// Whether its connection needs what the slow path is to do: without that it is to begin anew.
    pub const fn is_vital(self) -> bool {
        matches!(self, Self::HostFlow | Self::Portless)
    }

    /// The reason it is counted under.
    pub const fn reason(self) -> PuntReason {
        match self {
            Self::Arp => PuntReason::Arp,
            Self::Ndisc => PuntReason::Ndisc,
            Self::TtlExpired => PuntReason::TtlExpired,
            Self::TooBig { .. } => PuntReason::TooBig,
            Self::Fragment { .. } => PuntReason::Fragment,
            Self::Reassemble => PuntReason::Reassemble,
            Self::Unreachable { .. } => PuntReason::Unreachable,
            Self::Reject => PuntReason::Reject,
            Self::ConnectionLimit => PuntReason::ConnectionLimit,
            Self::Neighbour(_) => PuntReason::Neighbour,
            Self::IcmpError => PuntReason::IcmpError,
            Self::HostFlow => PuntReason::HostFlow,
            Self::Portless => PuntReason::Portless,
            Self::Dns => PuntReason::Dns,
        }
    }
}

/// Which side of the node a packet came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The uplink, in a tunnel or not.
    #[default]
    Wire = 0,
    /// A pod of this node.
    Pod = 1,
    /// The node itself, through the host port.
    Host = 2,
}

/// What the dataplane does with a packet by its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// It belongs to a connection.
    #[default]
    Tracked,
    /// An ICMP error: it belongs to the connection that it quotes.
    IcmpError,
    /// A part of a datagram: it has no ports.
    Fragment,
}

/// What the parse stage learned of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet {
    /// The port it came from.
    pub port: PortId,
    /// That port's side.
    pub side: Side,
    /// Its kind.
    pub kind: Kind,
    /// Whether it came out of a tunnel.
    pub tunneled: bool,
    /// Whether another node handed it on, as its client sent it: this one answers.
    pub handed_on: bool,
    /// The uplink that the kernel had sent it out of, if it is one of the node's own.
    pub departs: Option<PortId>,
    /// Whether an untracked policy has allowed it.
    pub accepted: bool,
    /// Length of the IP packet in bytes.
    pub ip_len: u16,
    /// Offset of the transport header from the IP header in bytes.
    pub transport: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether it may not be fragmented: IPv4 with DF, all of IPv6.
    pub dont_fragment: bool,
    /// Type and code of ICMP.
    pub icmp: (u8, u8),
    /// Addresses, ports and protocol as it arrived.
    pub tuple: Tuple,
    /// The tuple's hash.
    pub hash: u64,
    /// TCP's header, where it is TCP.
    pub tcp: Option<TcpFacts>,
}

// === impl Packet ===

impl Packet {
    /// Nothing learned yet: [`Packet::default`] as a constant, of which a copy is a few stores.
    pub const BLANK: Self = Self {
        port: PortId(0),
        side: Side::Wire,
        kind: Kind::Tracked,
        tunneled: false,
        handed_on: false,
        departs: None,
        accepted: false,
        ip_len: 0,
        transport: 0,
        ttl: 0,
        dont_fragment: false,
        icmp: (0, 0),
        tuple: Tuple {
            src: Addr::from_bits(0),
            dst: Addr::from_bits(0),
            src_port: 0,
            dst_port: 0,
            protocol: 0,
            zone: 0,
        },
        hash: 0,
        tcp: None,
    };
}

/// Up to [`BATCH`] frames on their way through the path.
#[derive(Debug, Default)]
pub struct Batch<'m> {
    /// The frames.
    pub frames: ArrayVec<Frame<'m>, BATCH>,
    /// One fate for each frame, in the same order, after the path has run.
    pub fates: ArrayVec<Fate, BATCH>,
}
