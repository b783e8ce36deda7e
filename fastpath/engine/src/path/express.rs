//! Arrives: a frame as the wire or a pod sent it. Leaves: the same on its way to the next hop, if
//! nothing about it needs more than one look; anything else as it came, for the stages that follow.
//!
//! What travels express is IPv4 without options or IPv6 without extensions, whole, TCP or UDP, and
//! belongs to a connection that goes on: its decision is in force, its sequence number is the next one,
//! its next hop is known, it fits. Nine of ten packets are like that, and few words name their
//! connection. All that is asked here is asked by the other stages too, and what they ask of nothing but
//! tuple, side and snapshot was asked when the decision was made. They would do exactly the same with
//! such a packet, to which `tests/path/express.rs` holds both, and they alone decide what becomes of
//! others.
//!
//! Drops: malformed and no_headroom, as [`write`] does.

use std::ops::ControlFlow;

use margay_tables::addr::Addr;
use margay_tables::flow::{FlowId, FlowKey, FlowRef, KeyV4, KeyV6, Stamped, Words};
use margay_wire::checksum::{Sum, pseudo_header};
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::transport::{self, TCP_LEN, TcpFacts, tcp_flags};
use margay_wire::{at, protocol};

use super::decap::{self, Tunnel};
use super::parse::is_martian;
use super::{Last, apply, window, write};
use crate::Engine;
use crate::batch::{Fate, Frame, Ingress, Side};
use crate::conntrack::{self, tcp};
use crate::decision::Decision;
use crate::shortcut;
use crate::snapshot::{Adjacency, HopState, Outer, Port, PortId, PortKind, Snapshot, trunk_index};

/// Flags that more has to be done about than to count.
const FLAGS: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

/// What either family of IP has of its own.
trait Family: Words {
    const V4: bool;
    /// Length of the IP header of what travels express.
    const IP_LEN: usize;

    /// Translates a packet that begins with its IP header.
    fn translate(ip: &mut [u8], old: FlowKey<Self>, new: FlowKey<Self>) -> Option<()>;
}

/// What was read of a packet that may travel express.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Express {
    key: Key,
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

/// The tuple of a packet.
#[derive(Clone, Copy, Debug)]
enum Key {
    V4(KeyV4),
    V6(KeyV6),
}

impl Family for u64 {
    const V4: bool = true;
    const IP_LEN: usize = ipv4::LEN;

    #[inline(always)]
    fn translate(ip: &mut [u8], old: KeyV4, new: KeyV4) -> Option<()> {
        apply::translate_v4(ip, old, new)
    }
}

impl Family for [u64; 4] {
    const V4: bool = false;
    const IP_LEN: usize = ipv6::LEN;

    #[inline]
    fn translate(ip: &mut [u8], old: KeyV6, new: KeyV6) -> Option<()> {
        apply::translate(ip, ipv6::LEN, &old.tuple(), &new.tuple())
    }
}

/// Reads a frame into `place`; `None` where it has to go through the other stages, for which it is as it
/// came, or out of its tunnel.
#[inline(always)]
pub(super) fn read<'p>(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    port: ControlFlow<Fate, PortId>,
    place: &'p mut Option<Express>,
) -> Option<&'p Express> {
    *place = None;
    let port = port.continue_value()?;
    // Where a host endpoint looks at every single packet, none travels express.
    let from = snapshot.port(port).filter(|_| !snapshot.untracked)?;
    while let Seen::Enclosed(tunnel) = look(engine, snapshot, frame, from, place)? {
        decap::open(snapshot, frame, port, tunnel)?;
    }
    place.as_ref()
}

/// What a frame is.
enum Seen {
    Plain,
    Enclosed(Tunnel),
}

#[inline(always)]
fn look(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &Frame<'_>,
    from: &Port,
    place: &mut Option<Express>,
) -> Option<Seen> {
    let header = Ethernet(at(frame.bytes(), 0)?);
    let side = side_of(frame.ingress, from, &header)?;
    match header.ethertype() {
        ethertype::IPV4 => look_v4(engine, snapshot, frame, from, side, place),
        ethertype::IPV6 => look_v6(engine, snapshot, frame, from, side, place),
        _ => None,
    }
}

#[inline(always)]
fn look_v4(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &Frame<'_>,
    from: &Port,
    side: Side,
    place: &mut Option<Express>,
) -> Option<Seen> {
    let bytes = frame.bytes();
    let header = at::<{ ipv4::LEN }>(bytes, ethernet::LEN)?;
    let ip = Ipv4(header);
    let body = bytes.get(ethernet::LEN + ipv4::LEN..ethernet::LEN + usize::from(ip.total_len()))?;
    if header[0] != 0x45 || ip.is_fragment() || !ipv4::checksum_ok(header) {
        return None;
    }
    let ports = match ip.protocol() {
        protocol::IPIP => return enclosed(frame, side, Tunnel::Ipip),
        protocol => ports(protocol, body)?,
    };
    if ip.protocol() == protocol::UDP && ports.1 == snapshot.settings.vxlan_port {
        return enclosed(frame, side, Tunnel::Vxlan);
    }
    let (src, dst) = (u32::from_be_bytes(ip.src()), u32::from_be_bytes(ip.dst()));
    let pseudo = || pseudo_header(&ip.src(), &ip.dst(), ip.protocol(), body.len() as u32);
    let partial = || is_partial(pseudo(), ip.protocol(), body);
    if is_odd(snapshot, frame, from, side, [src, dst].map(Addr::from_v4_bits), partial) {
        return None;
    }
    let key = KeyV4::new((src, dst), ports, ip.protocol());
    let (ip_len, ttl, hash) = (ip.total_len(), ip.ttl(), engine.hash(&key.tuple()));
    let (key, expected) = (Key::V4(key), None);
    *place = Some(Express { key, hash, expected, port: from.id, side, ip_len, ttl });
    Some(Seen::Plain)
}

#[inline(always)]
fn look_v6(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &Frame<'_>,
    from: &Port,
    side: Side,
    place: &mut Option<Express>,
) -> Option<Seen> {
    let bytes = frame.bytes();
    let ip = Ipv6(at::<{ ipv6::LEN }>(bytes, ethernet::LEN)?);
    let ip_len = ip.payload_len().checked_add(ipv6::LEN as u16)?;
    let body = bytes.get(ethernet::LEN + ipv6::LEN..ethernet::LEN + usize::from(ip_len))?;
    if ip.version() != 6 {
        return None;
    }
    let ports = ports(ip.next_header(), body)?;
    if ip.next_header() == protocol::UDP && ports.1 == snapshot.settings.vxlan_port {
        return enclosed(frame, side, Tunnel::Vxlan);
    }
    let (src, dst) = (Addr::from(ip.src()), Addr::from(ip.dst()));
    let pseudo = || pseudo_header(&ip.src(), &ip.dst(), ip.next_header(), body.len() as u32);
    let partial = || is_partial(pseudo(), ip.next_header(), body);
    if is_odd(snapshot, frame, from, side, [src, dst], partial) {
        return None;
    }
    let key = KeyV6::new((src, dst), ports, ip.next_header());
    let (ttl, hash) = (ip.hop_limit(), engine.hash(&key.tuple()));
    let (key, expected) = (Key::V6(key), None);
    *place = Some(Express { key, hash, expected, port: from.id, side, ip_len, ttl });
    Some(Seen::Plain)
}

/// Whether a packet between these two is for the other stages to judge: it may not be its pod's, or not be
/// complete, or one uplink may let in what another does not (behind a host endpoint the kernel takes
/// packets of any address).
#[inline(always)]
fn is_odd(
    snapshot: &Snapshot,
    frame: &Frame<'_>,
    from: &Port,
    side: Side,
    [src, dst]: [Addr; 2],
    partial: impl FnOnce() -> bool,
) -> bool {
    match side {
        Side::Pod => !from.sources.contains(&src) || frame.ingress != Ingress::Trunk && partial(),
        Side::Wire => !snapshot.guards.is_empty() && are_martian(src, dst),
        Side::Host => false,
    }
}

#[cold]
#[inline(never)]
fn are_martian(src: Addr, dst: Addr) -> bool {
    is_martian(src) || is_martian(dst)
}

/// A tunnel's packet, if it comes from where tunnels come from, in no other one.
fn enclosed(frame: &Frame<'_>, side: Side, tunnel: Tunnel) -> Option<Seen> {
    let outermost = side == Side::Wire && matches!(frame.ingress, Ingress::Port(_));
    outermost.then_some(Seen::Enclosed(tunnel))
}

/// The side that a frame came from, where its Ethernet destination says no more than that.
#[inline(always)]
fn side_of(ingress: Ingress, from: &Port, header: &Ethernet<&[u8; ethernet::LEN]>) -> Option<Side> {
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

/// Both ports of a packet that may travel express, by what follows its IP header.
#[inline(always)]
fn ports(protocol: u8, body: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        protocol::TCP => tcp_ports(body),
        protocol::UDP => udp_ports(body),
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

/// Whether the transport checksum may have been left to the pod's interface: see `offload`.
#[inline(always)]
fn is_partial(pseudo: Sum, protocol: u8, body: &[u8]) -> bool {
    let field = transport::checksum_offset(protocol).and_then(|offset| at::<2>(body, offset));
    field == Some(&pseudo.fold().to_be_bytes())
}

/// Sends the packet on; `None` where that takes more than the flow's own lines say. It is as it came
/// then.
#[inline(always)]
pub(super) fn forward(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Express,
) -> Option<ControlFlow<Fate, PortId>> {
    match packet.key {
        Key::V4(key) => forward_as(engine, snapshot, frame, packet, key),
        Key::V6(key) => forward_as(engine, snapshot, frame, packet, key),
    }
}

#[inline(always)]
fn forward_as<W: Family>(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Express,
    key: FlowKey<W>,
) -> Option<ControlFlow<Fate, PortId>> {
    let flow = engine.expected(packet.expected?, &key)?;
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
    let next = next(flow, frame, packet.ip_len, key)?;
    frame.len = ethernet::LEN + usize::from(packet.ip_len);
    flow.touch(engine.now, packet.ip_len.into());
    if next != flow.conntrack() {
        flow.set_conntrack(next);
    }
    let new = key.rewritten(&flow);
    let last = Last { v4: W::V4, keep_ttl, hash: packet.hash };
    let written = write(frame, hop, &last, |ip| match new == key {
        true => Some(()),
        false => W::translate(ip, key, new),
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
fn next<W: Family>(
    flow: FlowRef<'_>,
    frame: &Frame<'_>,
    ip_len: u16,
    key: FlowKey<W>,
) -> Option<u64> {
    if key.protocol() != protocol::TCP {
        return Some(conntrack::SEEN);
    }
    let facts = TcpFacts::parse(at(frame.bytes(), ethernet::LEN + W::IP_LEN)?);
    let payload = window::payload(ip_len, W::IP_LEN as u16, &facts);
    let word = flow.conntrack();
    tcp::is_next(word, &facts).then(|| tcp::advance(word, &facts, payload))
}
