//! Which connections need no worker any more: TCP that is established, and UDP that is answered, from
//! or to a pod behind the trunk, or through the node by its uplinks, and allowed both ways by the
//! snapshot in force.
//!
//! The engine only *mentions* a connection, after every 32nd packet of a direction. Whoever hears of
//! it often enough asks [`legs`] for what the kernel needs to know to move the packets by itself.

use std::net::{IpAddr, SocketAddr};

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
    Adjacency, DeviceId, HopKey, HopState, Outer, POD_GATEWAY_MAC, PortId, PortKind, Snapshot,
    trunk_index,
};

/// Packets of a direction between two mentions.
pub(crate) const EVERY: u64 = 32;

/// Mentions of one batch, at most: a busy connection has its turn in the next.
pub const MENTIONS: usize = 4;

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

/// Whether a packet may be of such a connection, as far as it, its flow and its next hop tell. Of what
/// nobody answers, a flood say, nobody is to hear.
pub(crate) fn concerns(packet: &Packet, flow: FlowRef<'_>, hop: &Adjacency) -> bool {
    is_carried(packet.tuple.protocol)
        && packet.side != Side::Host
        && (matches!(hop.key, HopKey::Pod(_)) || leaves_by_uplink(hop))
        && flow.peer().conntrack() != 0
}

/// Whether the kernel's part knows the protocol.
fn is_carried(ip_protocol: u8) -> bool {
    matches!(ip_protocol, protocol::TCP | protocol::UDP)
}

/// Both directions of the connection that a tuple is of, that of its first packet first; `None` if
/// it needs the workers. They hold for the snapshot's generation only, and while the ways of their
/// next hops do not change. To be asked while awake.
pub fn legs(snapshot: &Snapshot, table: &FlowTable, tuple: &Tuple) -> Option<[Leg; 2]> {
    let flow = table.lookup(tuple, table.hash(tuple))?;
    if !is_carried(tuple.protocol) || !path::state(flow).is_assured() {
        return None;
    }
    // One end's packets come by another node.
    if flow.marks() & (conntrack::HANDED_ON | conntrack::TAKEN_ON) != 0 {
        return None;
    }
    let (orig, reply) = match flow.dir() {
        Dir::Orig => (flow, flow.peer()),
        Dir::Reply => (flow.peer(), flow),
    };
    // Where the answers go is where the questions come from.
    let (there, back) = (way(snapshot, orig)?, way(snapshot, reply)?);
    let leg = |flow, from, to| leg(snapshot, table, flow, from, to);
    Some([leg(orig, &back, &there)?, leg(reply, &there, &back)?])
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

/// Whether a connection is still one that the shortcut may have.
pub fn is_assured(table: &FlowTable, tuple: &Tuple) -> bool {
    let flow = table.lookup(tuple, table.hash(tuple));
    flow.is_some_and(|flow| path::state(flow).is_assured())
}

fn leaves_by_uplink(hop: &Adjacency) -> bool {
    matches!(hop.key, HopKey::Neighbour(..) | HopKey::Ipip(_) | HopKey::Vxlan(..))
}

/// Where a direction's packets go, and the index of the interface there.
struct Way<'s> {
    /// The side that the direction was judged from.
    judged: Side,
    hop: &'s Adjacency,
    index: u32,
    uplink: bool,
}

/// Where a direction's packets go, if that is into a pod behind the trunk, or out of an uplink that has
/// no host endpoint: what comes and goes there is nobody's business but the flow's.
fn way<'s>(snapshot: &'s Snapshot, flow: FlowRef<'_>) -> Option<Way<'s>> {
    let Stamped { generation, action } = flow.decision();
    let Decision {
        side: judged,
        verdict: Verdict::Forward { hop, keep_ttl: false, read_along: false },
    } = Decision::unpack(action)?
    else {
        return None;
    };
    let hop = snapshot.adjacency(hop)?;
    if generation != snapshot.generation || hop.state != HopState::Reachable {
        return None;
    }
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
    Some(Way { judged, hop, index, uplink })
}

/// The direction whose packets come from where those of the other one go.
fn leg(
    snapshot: &Snapshot,
    table: &FlowTable,
    flow: FlowRef<'_>,
    from: &Way<'_>,
    to: &Way<'_>,
) -> Option<Leg> {
    let tuple = flow.tuple();
    let (v4, hash) = (tuple.is_v4(), table.hash(&tuple));
    let new = path::rewritten(flow, &tuple);
    if to.judged != if from.uplink { Side::Wire } else { Side::Pod } {
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
