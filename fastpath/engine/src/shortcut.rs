//! Which connections need no worker any more: TCP that is established, and UDP, answered or not, from
//! or to a pod behind the trunk, or through the node by its uplinks, and allowed by the snapshot in
//! force.
//!
//! The engine only *mentions* a connection, after every 32nd packet of a direction. Whoever hears of
//! it often enough asks [`legs`] for what the kernel needs to know to move the packets by itself.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use margay_tables::addr::Tuple;
use margay_tables::flow::{Dir, FlowRef, FlowTable, Stamped};
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::protocol;

use crate::batch::{Frame, Ingress, Packet, Side};
use crate::conntrack::{self, tcp};
use crate::decision::{Decision, Verdict};
use crate::path;
use crate::path::finish::finish;
use crate::path::parse::pod_may_send_from;
use crate::snapshot::{
    Adjacency, AdjacencyId, DeviceId, HopKey, HopState, Outer, POD_GATEWAY_MAC, Place, PortId,
    PortKind, Snapshot, trunk_index,
};

/// Packets of a direction between two mentions.
pub(crate) const EVERY: u64 = 32;

/// Mentions of one batch, at most: a busy connection has its turn in the next.
pub const MENTIONS: usize = 4;

/// What of a connection may take the shortcut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Legs {
    /// The tuple of its first packet.
    pub tuple: Tuple,
    /// One direction or both, that of the first packet before the other.
    pub legs: ArrayVec<Leg, 2>,
}

/// One direction of a connection that may take the shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// What its packets carry.
    pub tuple: Tuple,
    /// What they leave with, where a service or masquerading stands between.
    pub translated: Option<Tuple>,
    /// The port that they come from.
    pub from: PortId,
    /// Index of that port's interface.
    pub from_index: u32,
    /// What they come behind, where that port is an uplink. The Ethernet source may be another.
    pub expected: Option<Cover>,
    /// The port that they leave by.
    pub to: PortId,
    /// Index of that port's interface.
    pub to_index: u32,
    /// Whether that is an uplink.
    pub to_uplink: bool,
    /// What they leave behind.
    pub cover: Cover,
    /// What the identification of their outer header differs from their own by.
    pub identification: u16,
    /// The largest IP packet that may leave, without what is put around it, in bytes.
    pub mtu: u16,
}

/// What stands before an IP packet, from the Ethernet header on. What depends on the packet (outer
/// lengths, class, DF, identification, checksum) is another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    bytes: [u8; Self::MOST],
    len: usize,
}

// === impl Leg ===

impl Leg {
    /// Source and destination of its packets.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        ends(&self.tuple)
    }

    /// Source and destination that they leave with, where those are others.
    pub fn translated_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.translated.as_ref().map(ends)
    }
}

fn ends(tuple: &Tuple) -> (SocketAddr, SocketAddr) {
    let end = |addr, port| SocketAddr::new(IpAddr::from(addr), port);
    (end(tuple.src, tuple.src_port), end(tuple.dst, tuple.dst_port))
}

// === impl Cover ===

impl Cover {
    /// The longest: VXLAN over IPv4.
    const MOST: usize = 64;

    /// The headers.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn is_tunnel(&self) -> bool {
        self.len > ethernet::LEN
    }

    fn new(headers: &[u8]) -> Option<Self> {
        let (mut bytes, len) = ([0; Self::MOST], headers.len());
        bytes.get_mut(..len)?.copy_from_slice(headers);
        Some(Self { bytes, len })
    }

    /// What the path puts before a flow's packets to a next hop. `None` where that cannot be said once
    /// for all: of VXLAN over IPv6, whose UDP checksum is each packet's own.
    fn of(hop: &Adjacency, v4: bool, hash: u64) -> Option<Self> {
        /// Enough for any header and for what is put before it.
        const IP: usize = 40;
        const ROOM: usize = 128;
        if !v4 && hop.outer != Outer::None {
            return None;
        }
        let mut chunk = [0; ROOM + ethernet::LEN + IP];
        let mut frame = Frame::new(&mut chunk, ROOM, ethernet::LEN + IP, Ingress::Own);
        finish(&mut frame, hop, v4, hash)?;
        let before = frame.len.checked_sub(IP)?;
        Self::new(frame.bytes().get(..before)?)
    }

    /// What a pod gets its packets behind, from the shortcut as from the trunk.
    fn of_pod(mac: [u8; 6], v4: bool) -> Option<Self> {
        let mut bytes = [0; ethernet::LEN];
        let kind = if v4 { ethertype::IPV4 } else { ethertype::IPV6 };
        Ethernet(&mut bytes).emit(mac, POD_GATEWAY_MAC, kind);
        Self::new(&bytes)
    }
}

/// Whether a packet may be of such a connection, as far as it, its flow and its next hop tell. Of a
/// segment that nobody answers, a flood's say, nobody is to hear.
pub(crate) fn concerns(packet: &Packet, flow: FlowRef<'_>, hop: &Adjacency) -> bool {
    let heard = match packet.tuple.protocol {
        protocol::TCP => flow.peer().conntrack() != 0,
        protocol::UDP => true,
        // The kernel's part knows no other.
        _ => false,
    };
    heard
        && packet.side != Side::Host
        && (matches!(hop.key, HopKey::Pod(_)) || leaves_by_uplink(hop))
}

/// What of the connection that a tuple is of may take the shortcut; `None` if it needs the workers. It
/// holds for the snapshot's generation only, while the ways of the next hops do not change, and while the
/// flow [`holds`] it. To be asked while awake.
pub fn legs(snapshot: &Snapshot, table: &FlowTable, tuple: &Tuple) -> Option<Legs> {
    let flow = table.lookup(tuple, table.hash(tuple))?;
    // One end's packets come by another node.
    if !may_stay(flow) || flow.marks() & (conntrack::HANDED_ON | conntrack::TAKEN_ON) != 0 {
        return None;
    }
    let both = match flow.dir() {
        Dir::Orig => [flow, flow.peer()],
        Dir::Reply => [flow.peer(), flow],
    };
    let legs = both.into_iter().filter_map(|flow| leg(snapshot, table, flow)).collect();
    let legs = Legs { tuple: both[0].tuple(), legs };
    // What is seen of TCP is seen of both ends.
    let enough = if tuple.protocol == protocol::TCP { 2 } else { 1 };
    (legs.legs.len() >= enough).then_some(legs)
}

/// Says that somebody else may carry a connection's segments from now on; to be said before it is so.
/// False where the connection is gone.
pub fn take(table: &FlowTable, tuple: &Tuple) -> bool {
    let Some(flow) = table.lookup(tuple, table.hash(tuple)) else { return false };
    if tuple.protocol == protocol::TCP {
        flow.add_marks(tcp::LOOSE);
    }
    true
}

/// Whether the flow of a direction is still there, of the connection that began with `first`, and leaves
/// with what the leg says. A record may have been made anew for the same tuple: with another backend, or
/// another port for masquerading.
pub fn holds(table: &FlowTable, first: &Tuple, leg: &Leg) -> bool {
    let Some(flow) = table.lookup(&leg.tuple, table.hash(&leg.tuple)) else { return false };
    let begun = match flow.dir() {
        Dir::Orig => leg.tuple,
        Dir::Reply => flow.peer().tuple(),
    };
    let new = path::rewritten(flow, &leg.tuple);
    may_stay(flow) && begun == *first && new == leg.translated.unwrap_or(leg.tuple)
}

/// Whether a flow's state is that of such a connection.
fn may_stay(flow: FlowRef<'_>) -> bool {
    let state = path::state(flow);
    match flow.tuple().protocol {
        protocol::TCP => state.is_assured(),
        protocol::UDP => state != conntrack::State::Denied,
        _ => false,
    }
}

fn leaves_by_uplink(hop: &Adjacency) -> bool {
    matches!(hop.key, HopKey::Neighbour(..) | HopKey::Ipip(_) | HopKey::Vxlan(..))
}

/// Where packets go, and the index of the interface there.
struct Way<'s> {
    hop: &'s Adjacency,
    index: u32,
    uplink: bool,
}

/// The next hop of a direction's packets, and the side that they were judged from, if they are allowed
/// by the snapshot's generation, and nobody looks at each.
fn allowed(snapshot: &Snapshot, flow: FlowRef<'_>) -> Option<(AdjacencyId, Side)> {
    let Stamped { generation, action } = flow.decision();
    let Decision { side, verdict } = Decision::unpack(action)?;
    match verdict {
        Verdict::Forward { hop, keep_ttl: false, read_along: false }
            if generation == snapshot.generation =>
        {
            Some((hop, side))
        }
        _ => None,
    }
}

/// Where a direction's packets come from: that is where those of the other direction go or, if none of
/// them came yet, would go.
fn origin(snapshot: &Snapshot, flow: FlowRef<'_>) -> Option<AdjacencyId> {
    if flow.peer().decision().generation == snapshot.generation {
        return allowed(snapshot, flow.peer()).map(|(hop, _)| hop);
    }
    match snapshot.place(flow.tuple().src)? {
        Place::Pod(index) => Some(snapshot.workload(*index)?.adjacency),
        Place::Hops { hops, .. } => match hops[..] {
            [hop] => Some(hop),
            _ => None,
        },
        _ => None,
    }
}

/// The way by a next hop, if that leads into a pod behind the trunk, or out of an uplink that has no
/// host endpoint: what comes and goes there is nobody's business but the flow's.
fn way(snapshot: &Snapshot, hop: AdjacencyId) -> Option<Way<'_>> {
    let hop = snapshot.adjacency(hop).filter(|hop| hop.state == HopState::Reachable)?;
    let port = snapshot.port(hop.port)?;
    if snapshot.limits_of(hop.port).is_some() {
        // Past the workers nobody would count.
        return None;
    }
    let (index, uplink) = match port.kind {
        PortKind::Pod(_) if matches!(hop.key, HopKey::Pod(_)) && port.device == DeviceId::TRUNK => {
            (trunk_index(&hop.src_mac)?, false)
        }
        PortKind::Uplink
            if leaves_by_uplink(hop) && port.guard.is_none() && !snapshot.untracked =>
        {
            (snapshot.trunk.ifindex(port.id)?, true)
        }
        _ => return None,
    };
    Some(Way { hop, index, uplink })
}

/// A direction, if its packets may take the shortcut.
fn leg(snapshot: &Snapshot, table: &FlowTable, flow: FlowRef<'_>) -> Option<Leg> {
    let (hop, judged) = allowed(snapshot, flow)?;
    let (from, to) = (way(snapshot, origin(snapshot, flow)?)?, way(snapshot, hop)?);
    let tuple = flow.tuple();
    let (v4, hash) = (tuple.is_v4(), table.hash(&tuple));
    let new = path::rewritten(flow, &tuple);
    if judged != if from.uplink { Side::Wire } else { Side::Pod } {
        return None;
    }
    // Who talks to himself needs no shortcut, and a borrowed address no second owner.
    if !from.uplink
        && (from.hop.port == to.hop.port || !pod_may_send_from(snapshot, from.hop.port, tuple.src))
    {
        return None;
    }
    let cover = match to.uplink {
        true => Cover::of(to.hop, v4, hash)?,
        false => Cover::of_pod(to.hop.dst_mac, v4)?,
    };
    let expected = match from.uplink {
        true => Some(Cover::of(&mirrored(from.hop), v4, 0)?),
        false => None,
    };
    // The kernel may still think of what came out of one tunnel as in it.
    if expected.is_some_and(|expected| expected.is_tunnel()) && cover.is_tunnel() {
        return None;
    }
    Some(Leg {
        tuple,
        translated: (new != tuple).then_some(new),
        from: from.hop.port,
        from_index: from.index,
        expected,
        to: to.hop.port,
        to_index: to.index,
        to_uplink: to.uplink,
        cover,
        identification: hash as u16,
        mtu: to.hop.mtu,
    })
}

/// The same way as the other end has it.
fn mirrored(hop: &Adjacency) -> Adjacency {
    let (src_mac, dst_mac, outer) = (hop.dst_mac, hop.src_mac, hop.outer.mirrored());
    Adjacency { src_mac, dst_mac, outer, ..hop.clone() }
}
