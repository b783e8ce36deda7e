//! Which connections need no worker any more: TCP that is established between two pods behind the
//! trunk and allowed both ways by the snapshot in force.
//!
//! The engine only *mentions* a connection, after every 32nd packet of a direction. Whoever hears of
//! it often enough asks [`legs`] for what the kernel needs to know to move the packets by itself.

use std::net::{IpAddr, SocketAddr};

use margay_tables::addr::Tuple;
use margay_tables::flow::{Dir, FlowRef, FlowTable, Stamped};
use margay_wire::protocol;

use crate::batch::{Packet, Side};
use crate::conntrack::State;
use crate::decision::{Decision, Verdict};
use crate::path;
use crate::path::parse::pod_may_send_from;
use crate::snapshot::{
    Adjacency, DeviceId, HopKey, HopState, PortId, PortKind, Snapshot, trunk_index,
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
    /// What they leave with, where a service stands between.
    pub translated: Option<Tuple>,
    /// The port that they come from.
    pub from: PortId,
    /// Index of that port's interface.
    pub from_index: u32,
    /// The port that they leave by.
    pub to: PortId,
    /// Index of that port's interface.
    pub to_index: u32,
    /// The receiving pod's Ethernet address.
    pub mac: [u8; 6],
    /// The largest IP packet that the receiving pod takes, in bytes.
    pub mtu: u16,
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

/// Whether a TCP packet may be of such a connection, as far as it and its next hop tell.
pub(crate) fn concerns(packet: &Packet, hop: &Adjacency) -> bool {
    packet.side == Side::Pod && matches!(hop.key, HopKey::Pod(_))
}

/// Both directions of the connection that a tuple is of, that of its first packet first; `None` if
/// it needs the workers. They hold for the snapshot's generation only. To be asked while awake.
pub fn legs(snapshot: &Snapshot, table: &FlowTable, tuple: &Tuple) -> Option<[Leg; 2]> {
    let flow = table.lookup(tuple, table.hash(tuple))?;
    if tuple.protocol != protocol::TCP || path::state(flow) != State::Established {
        return None;
    }
    let (orig, reply) = match flow.dir() {
        Dir::Orig => (flow, flow.peer()),
        Dir::Reply => (flow.peer(), flow),
    };
    // Where the answers go is where the questions come from.
    let (there, back) = (way(snapshot, orig)?, way(snapshot, reply)?);
    Some([leg(snapshot, orig, back, there)?, leg(snapshot, reply, there, back)?])
}

/// Whether a connection is still one that the shortcut may have.
pub fn is_established(table: &FlowTable, tuple: &Tuple) -> bool {
    let flow = table.lookup(tuple, table.hash(tuple));
    flow.is_some_and(|flow| path::state(flow) == State::Established)
}

/// Where a direction's packets go, if that is into a pod behind the trunk.
fn way<'s>(snapshot: &'s Snapshot, flow: FlowRef<'_>) -> Option<&'s Adjacency> {
    let Stamped { generation, action } = flow.decision();
    let Decision {
        side: Side::Pod,
        verdict: Verdict::Forward { hop, keep_ttl: false, read_along: false },
    } = Decision::unpack(action)?
    else {
        return None;
    };
    let hop = snapshot.adjacency(hop)?;
    let port = snapshot.port(hop.port)?;
    let good = generation == snapshot.generation
        && hop.state == HopState::Reachable
        && port.device == DeviceId::TRUNK
        && matches!((&hop.key, port.kind), (HopKey::Pod(_), PortKind::Pod(_)));
    good.then_some(hop)
}

fn leg(snapshot: &Snapshot, flow: FlowRef<'_>, from: &Adjacency, to: &Adjacency) -> Option<Leg> {
    let tuple = flow.tuple();
    let new = path::rewritten(flow, &tuple);
    // Who talks to himself needs no shortcut, and a borrowed address no second owner.
    if from.port == to.port || !pod_may_send_from(snapshot, from.port, tuple.src) {
        return None;
    }
    Some(Leg {
        tuple,
        translated: (new != tuple).then_some(new),
        from: from.port,
        from_index: trunk_index(&from.src_mac)?,
        to: to.port,
        to_index: trunk_index(&to.src_mac)?,
        mac: to.dst_mac,
        mtu: to.mtu,
    })
}
