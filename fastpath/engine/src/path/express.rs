//! Arrives: a frame as the wire or a pod sent it. Leaves: the same on its way to the next hop, if
//! nothing about it needs more than one look; anything else as it came, for the stages that follow.
//!
//! What travels express is IPv4 without options, whole, TCP or UDP, and belongs to a connection that
//! goes on: its decision is in force, its sequence number is the next one, its next hop is known, it
//! fits. Nine of ten packets are like that, and two words name their connection. All that is asked here
//! is asked by the other stages too. They would do exactly the same with such a packet, to which
//! `tests/path/express.rs` holds both, and they alone decide what becomes of others.
//!
//! Drops: malformed and no_headroom, as [`write`] does.

use std::ops::ControlFlow;

use margay_tables::addr::Addr;
use margay_tables::flow::{FlowId, FlowRef, KeyV4, Stamped};
use margay_wire::checksum::pseudo_header;
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::transport::{self, TCP_LEN, TcpFacts, tcp_flags};
use margay_wire::{at, protocol};

use super::decap::{self, Tunnel};
use super::parse::is_martian_v4;
use super::{Last, apply, window, write};
use crate::Engine;
use crate::batch::{Fate, Frame, Ingress, Side};
use crate::conntrack::{self, tcp};
use crate::decision::Decision;
use crate::shortcut;
use crate::snapshot::{Adjacency, HopState, Outer, Port, PortId, PortKind, Snapshot, trunk_index};

/// Flags that more has to be done about than to count.
const FLAGS: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

/// Offset of the transport header in a frame that travels express.
const TRANSPORT: usize = ethernet::LEN + ipv4::LEN;

/// What was read of a packet that may travel express.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Express {
    key: KeyV4,
    /// The hash of its tuple.
    pub(super) hash: u64,
    /// The record that the index names for the hash.
    pub(super) expected: Option<FlowId>,
    /// The port it came from.
    port: PortId,
    side: Side,
    /// Length of the IP packet in bytes.
    ip_len: u16,
    ttl: u8,
}

/// Reads a frame; `None` where it has to go through the other stages, for which it is as it came, or out
/// of its tunnel.
#[inline(always)]
pub(super) fn read(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    port: ControlFlow<Fate, PortId>,
) -> Option<Express> {
    let port = port.continue_value()?;
    // Where a host endpoint looks at every single packet, none travels express.
    let from = snapshot.port(port).filter(|_| !snapshot.untracked)?;
    loop {
        match look(engine, snapshot, frame, from)? {
            Seen::Plain(express) => return Some(express),
            Seen::Enclosed(tunnel) => decap::open(snapshot, frame, port, tunnel)?,
        }
    }
}

/// What a frame is.
enum Seen {
    Plain(Express),
    Enclosed(Tunnel),
}

#[inline(always)]
fn look(engine: &Engine<'_>, snapshot: &Snapshot, frame: &Frame<'_>, from: &Port) -> Option<Seen> {
    let bytes = frame.bytes();
    let side = side_of(frame.ingress, from, Ethernet(at(bytes, 0)?))?;
    let header = at::<{ ipv4::LEN }>(bytes, ethernet::LEN)?;
    let ip = Ipv4(header);
    let body = bytes.get(TRANSPORT..ethernet::LEN + usize::from(ip.total_len()))?;
    if header[0] != 0x45 || ip.is_fragment() || !ipv4::checksum_ok(header) {
        return None;
    }
    let ports = match ip.protocol() {
        protocol::TCP => tcp_ports(body)?,
        protocol::UDP => udp_ports(body)?,
        protocol::IPIP => return enclosed(frame, side, Tunnel::Ipip),
        _ => return None,
    };
    if ip.protocol() == protocol::UDP && ports.1 == snapshot.settings.vxlan_port {
        return enclosed(frame, side, Tunnel::Vxlan);
    }
    let (src, dst) = (u32::from_be_bytes(ip.src()), u32::from_be_bytes(ip.dst()));
    let odd = is_martian_v4(src)
        || is_martian_v4(dst)
        || (side == Side::Pod && !from.sources.contains(&Addr::from_v4_bits(src)))
        || (side == Side::Pod && frame.ingress != Ingress::Trunk && is_partial(&ip, body));
    if odd {
        return None;
    }
    let key = KeyV4::new((src, dst), ports, ip.protocol());
    let (ip_len, ttl, hash) = (ip.total_len(), ip.ttl(), engine.hash(&key.tuple()));
    let expected = None;
    Some(Seen::Plain(Express { key, hash, expected, port: from.id, side, ip_len, ttl }))
}

/// A tunnel's packet, if it comes from where tunnels come from, in no other one.
fn enclosed(frame: &Frame<'_>, side: Side, tunnel: Tunnel) -> Option<Seen> {
    let outermost = side == Side::Wire && matches!(frame.ingress, Ingress::Port(_));
    outermost.then_some(Seen::Enclosed(tunnel))
}

/// The side that a frame of IPv4 came from, where its Ethernet header says no more than that.
#[inline(always)]
fn side_of(ingress: Ingress, from: &Port, header: Ethernet<&[u8; ethernet::LEN]>) -> Option<Side> {
    if header.ethertype() != ethertype::IPV4 {
        return None;
    }
    match (from.kind, ingress) {
        (PortKind::Pod(_), Ingress::Trunk | Ingress::Port(_)) => Some(Side::Pod),
        (PortKind::Uplink, Ingress::Port(_)) if header.dst() != from.mac => None,
        (PortKind::Uplink, Ingress::Port(_) | Ingress::Tunnel(_)) if from.guard.is_none() => {
            Some(Side::Wire)
        }
        (PortKind::Host, Ingress::Trunk) if trunk_index(&header.dst()) == Some(0) => {
            Some(Side::Host)
        }
        _ => None,
    }
}

#[inline(always)]
fn tcp_ports(body: &[u8]) -> Option<(u16, u16)> {
    let tcp = at::<TCP_LEN>(body, 0)?;
    let facts = TcpFacts::parse(tcp);
    let whole = (TCP_LEN..=body.len()).contains(&facts.header_len);
    (goes_on(&facts) && whole).then(|| transport::ports(&[tcp[0], tcp[1], tcp[2], tcp[3]]))
}

/// Whether a segment neither begins nor ends a connection.
#[inline(always)]
fn goes_on(facts: &TcpFacts) -> bool {
    facts.flags & (FLAGS | tcp_flags::ACK) == tcp_flags::ACK
}

#[inline(always)]
fn udp_ports(body: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d, hi, lo, _, _] = at::<8>(body, 0)?;
    let whole = (8..=body.len()).contains(&usize::from(u16::from_be_bytes([hi, lo])));
    whole.then(|| transport::ports(&[a, b, c, d]))
}

/// Whether the transport checksum may have been left to the pod's interface.
#[inline(always)]
fn is_partial(ip: &Ipv4<&[u8; ipv4::LEN]>, body: &[u8]) -> bool {
    let sum = pseudo_header(&ip.src(), &ip.dst(), ip.protocol(), body.len() as u32).fold();
    let field = transport::checksum_offset(ip.protocol()).and_then(|offset| at::<2>(body, offset));
    field == Some(&sum.to_be_bytes())
}

/// Sends the packet on; `None` where that takes more than the flow's own line says. It is as it came
/// then.
#[inline(always)]
pub(super) fn forward(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Express,
) -> Option<ControlFlow<Fate, PortId>> {
    let flow = engine.expected(packet.expected?, packet.key)?;
    let Stamped { generation, action } = flow.decision();
    let (hop, keep_ttl) = Decision::onward(action, packet.side)?;
    let hop = snapshot.adjacency(hop)?;
    let goes_on = generation == snapshot.generation
        && is_open(hop)
        && (keep_ttl || packet.ttl > 1)
        && packet.ip_len <= hop.mtu
        // Now and then somebody may be told that the connection is a busy one.
        && !(flow.packets() + 1).is_multiple_of(shortcut::EVERY)
        && !(snapshot.limited() && is_limited(snapshot, packet.port, hop.port));
    if !goes_on {
        return None;
    }
    let next = next(flow, frame, packet)?;
    frame.len = ethernet::LEN + usize::from(packet.ip_len);
    flow.touch(engine.now, packet.ip_len.into());
    if next != flow.conntrack() {
        flow.set_conntrack(next);
    }
    let new = flow.rewrite_v4(packet.key);
    let last = Last { v4: true, keep_ttl, hash: packet.hash };
    let written = write(frame, hop, &last, |ip| {
        if new == packet.key {
            return Some(());
        }
        apply::translate_v4(ip, packet.key, new)
    });
    Some(written.map_continue(|()| hop.port))
}

/// Whether a next hop takes every packet that is sent to it, and always the same way.
#[inline(always)]
fn is_open(hop: &Adjacency) -> bool {
    let same_way = !matches!(hop.outer, Outer::Arrival | Outer::Departure);
    hop.state == HopState::Reachable && same_way && !hop.is_direct()
}

/// Whether somebody has a word in what passes between two ports.
fn is_limited(snapshot: &Snapshot, from: PortId, to: PortId) -> bool {
    let limits = |port| snapshot.limits_of(port).is_some();
    limits(from) || limits(to) || snapshot.dscp_of_host(to).is_some()
}

/// The conntrack word after the packet, if it is the next one that was to come.
#[inline(always)]
fn next(flow: FlowRef<'_>, frame: &Frame<'_>, packet: &Express) -> Option<u64> {
    if packet.key.protocol() != protocol::TCP {
        return Some(conntrack::SEEN);
    }
    let facts = TcpFacts::parse(at(frame.bytes(), TRANSPORT)?);
    let payload = window::payload(packet.ip_len, ipv4::LEN as u16, &facts);
    let word = flow.conntrack();
    tcp::is_next(word, &facts).then(|| tcp::advance(word, &facts, payload))
}
