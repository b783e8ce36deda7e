//! The way of a packet, stage by stage; the modules stand in the packet's order.

mod express;

pub(crate) mod parse;
mod decap;
mod offload;

mod untracked;
mod flow;
pub(crate) mod miss;

mod window;
mod limit;
mod apply;
pub(crate) mod finish;
mod relay;

pub(crate) mod own;

pub(crate) use flow::{owner, rewritten, state};

use std::ops::ControlFlow::{self, Break, Continue};

use margay_model::DropReason;
use margay_tables::flow::FlowRef;
use margay_wire::ethernet::{self, Ethernet};
use margay_wire::transport::{TCP_LEN, tcp_flags};
use margay_wire::{ipv4, ipv6};

use self::express::Express;
use crate::Engine;
use crate::batch::{Batch, Fate, Frame, Ingress, Packet, Punt, Why};
use crate::conntrack::{self, tcp};
use crate::decision::{Decision, Verdict};
use crate::meter::Stage;
use crate::shortcut;
use crate::snapshot::{Adjacency, AdjacencyId, HopKey, HopState, Outer, PortId, Snapshot};
use crate::trace::Seen;

/// What one frame's way through its batch has in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Read {
    /// It may travel express.
    express: Option<Express>,
    /// What parse learned of it otherwise, and how it ended there, if it did. The hash is there in either
    /// case.
    packet: Packet,
    ended: Option<Fate>,
}

/// Runs a batch: afterwards every frame has a fate.
///
/// All frames pass one stage before the first passes the next, as far as memory is concerned: the
/// index lines of the last packet's flow are on their way while the first is being decided.
pub(crate) fn run(engine: &mut Engine<'_>, snapshot: &Snapshot, batch: &mut Batch<'_>) {
    let mut all = std::mem::take(&mut engine.read);
    batch.fates.clear();
    // What is it, and may it come from there? Which flow is it? Ask memory for all of them at once.
    for (frame, read) in batch.frames.iter_mut().zip(&mut all) {
        let port = parse::port_of(snapshot, frame);
        engine.counters.received(port.continue_value().unwrap_or(PortId::HOST), frame.len);
        match express::read(engine, snapshot, frame, port, &mut read.express) {
            Some(express) => read.packet.hash = express.hash,
            None => read.parse(engine, snapshot, frame, port),
        }
        engine.prefetch(read.packet.hash);
    }
    for read in all.iter_mut().take(batch.frames.len()) {
        let expected = engine.prefetch_record(read.packet.hash);
        if let Some(express) = &mut read.express {
            express.expected = expected;
        }
    }
    engine.lap(Stage::Parse, batch.frames.len());
    // Decide, rewrite, wrap.
    for (frame, read) in batch.frames.iter_mut().zip(&mut all) {
        let express = read.express.as_ref();
        let fate = match express.and_then(|e| express::forward(engine, snapshot, frame, e)) {
            Some(fate) => fate,
            None => read.go_on(engine, snapshot, frame),
        };
        // A fate is wide, a port is not: the common case is written as it is.
        match fate {
            Continue(port) => batch.fates.push(Fate::Forward(port)),
            Break(fate) => batch.fates.push(fate),
        }
    }
    engine.read = all;
    engine.lap(Stage::Decide, batch.frames.len());
}

impl Read {
    #[inline]
    fn parse(
        &mut self,
        engine: &Engine<'_>,
        snapshot: &Snapshot,
        frame: &mut Frame<'_>,
        port: ControlFlow<Fate, PortId>,
    ) {
        self.express = None;
        self.packet = Packet::BLANK;
        self.ended = parse::parse(snapshot, frame, port, &mut self.packet).break_value();
        self.packet.hash = engine.hash(&self.packet.tuple);
    }

    /// The fate of a frame that does not travel express, or not any more.
    #[inline(never)]
    fn go_on(
        &mut self,
        engine: &mut Engine<'_>,
        snapshot: &Snapshot,
        frame: &mut Frame<'_>,
    ) -> ControlFlow<Fate, PortId> {
        if self.express.is_some() {
            let port = parse::port_of(snapshot, frame);
            self.parse(engine, snapshot, frame, port);
        }
        match self.ended {
            None => one(engine, snapshot, frame, &self.packet),
            Some(fate) => settled(engine, snapshot, frame, &self.packet, fate),
        }
    }
}

/// Runs one frame of the slow path's: it was counted when it came.
pub(crate) fn run_again(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
) -> Fate {
    let fate = match frame.ingress {
        Ingress::Own => own::own(snapshot, frame),
        _ => {
            let mut packet = Packet::default();
            let port = parse::port_of(snapshot, frame);
            match parse::parse(snapshot, frame, port, &mut packet) {
                Continue(()) => {
                    packet.hash = engine.hash(&packet.tuple);
                    one(engine, snapshot, frame, &packet).map_continue(Fate::Forward)
                }
                Break(fate) => {
                    settled(engine, snapshot, frame, &packet, fate).map_continue(Fate::Forward)
                }
            }
        }
    };
    let (Break(fate) | Continue(fate)) = fate;
    fate
}

/// The fate of a frame that parse gave one: of an error perhaps another.
fn settled(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
    fate: Fate,
) -> ControlFlow<Fate, PortId> {
    match fate {
        Fate::Punt(Punt { why: Why::IcmpError, .. }) => {
            relay::relay(engine, snapshot, frame, packet, fate)
        }
        fate => Break(fate),
    }
}

/// What a frame is, by its port and parse alone.
pub(crate) fn look(snapshot: &Snapshot, frame: &mut Frame<'_>) -> Seen {
    let port = parse::port_of(snapshot, frame);
    let mut packet = Packet::default();
    let parsed = parse::parse(snapshot, frame, port, &mut packet);
    Seen { port: port.continue_value(), packet: parsed.is_continue().then_some(packet) }
}

/// A decision that is neither, which cannot be.
pub(crate) const NO_FATE: Fate = Fate::Drop(DropReason::Malformed);

/// Takes one parsed packet to its fate.
#[inline(never)] // Measured: within the loop of `run` it takes a third more time.
fn one(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
) -> ControlFlow<Fate, PortId> {
    if snapshot.untracked {
        return untracked::untracked(engine, snapshot, frame, packet);
    }
    tracked(engine, snapshot, frame, packet)
}

/// The same by the connection that it belongs to.
#[inline(always)]
fn tracked(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
) -> ControlFlow<Fate, PortId> {
    // The flow's decision; made now if there is none, or an old one.
    let id = flow::decide(engine, snapshot, packet)?;
    let Some(flow) = engine.flow(id) else { return Break(NO_FATE) };
    let (hop, keep_ttl) = match Decision::unpack(flow.decision().action).map(|d| d.verdict) {
        Some(Verdict::Forward { read_along: true, .. }) if !frame.read => {
            return parse::punt(packet, Why::Dns);
        }
        Some(Verdict::Forward { hop, keep_ttl, .. }) => (hop, keep_ttl),
        Some(Verdict::Drop { reason, .. }) => {
            flow.touch(engine.now, packet.ip_len.into());
            return parse::dropped(reason);
        }
        None => return Break(NO_FATE),
    };
    // Does it belong where the connection is?
    let known = window::known(flow, frame, packet)?;
    let hop = match hop_for(snapshot, hop, packet)? {
        hop if is_this_way(hop, packet) => hop,
        _ => kernels_way(snapshot, packet, flow)?,
    };
    // Errors quote the packet as it came: they are found before anything is written.
    let too_big = checks(hop, frame, packet, keep_ttl)?;
    let mut delay = 0;
    if snapshot.limited() {
        // What is refused has not been here, as far as the connection knows.
        delay = limit::limit(snapshot, engine.fine, packet, hop)?;
        let new = flow.rewrite();
        limit::mark(snapshot, frame, packet, (new.src, new.dst), hop);
    }
    advance(engine, flow, hop, packet, known);
    if snapshot.settings.clamp_mss {
        clamp(hop, frame, packet);
    }
    let last = Last { v4: packet.tuple.is_v4(), keep_ttl, hash: packet.hash };
    write(frame, hop, &last, |ip| {
        let new = flow::rewritten(flow, &packet.tuple);
        if new == packet.tuple || hop.is_direct() {
            return Some(());
        }
        apply::translate(ip, packet.transport.into(), &packet.tuple, &new)
    })?;
    if too_big { Break(fragment(hop, frame, packet)) } else { limit::when(hop.port, delay) }
}

/// The next hop, if frames can be sent to it.
#[inline(always)]
fn hop_for<'s>(
    snapshot: &'s Snapshot,
    hop: AdjacencyId,
    packet: &Packet,
) -> ControlFlow<Fate, &'s Adjacency> {
    match snapshot.adjacency(hop) {
        Some(adjacency) if adjacency.state == HopState::Reachable => Continue(adjacency),
        Some(adjacency) if adjacency.state == HopState::Unresolved => {
            parse::punt(packet, Why::Neighbour(hop))
        }
        _ => parse::dropped(DropReason::NoRoute),
    }
}

/// Whether the packet goes where the flow's last one went: the kernel, not the flow, chooses the
/// uplink of its packets.
#[inline(always)]
fn is_this_way(hop: &Adjacency, packet: &Packet) -> bool {
    match hop.outer {
        Outer::Arrival => hop.key == HopKey::Arrival(packet.port),
        Outer::Departure => packet.departs == Some(hop.port),
        _ => true,
    }
}

/// The way of a packet whose flow was last seen on another uplink.
#[cold]
fn kernels_way<'s>(
    snapshot: &'s Snapshot,
    packet: &Packet,
    flow: FlowRef<'_>,
) -> ControlFlow<Fate, &'s Adjacency> {
    let mut way = miss::Way::of(flow, packet);
    miss::find(snapshot, packet, &mut way)?;
    hop_for(snapshot, way.hop, packet)
}

/// TTL (RFC 1812 §5.3.1) and size (RFC 1191, RFC 8201); whether the packet must be cut.
#[inline(always)]
fn checks(
    hop: &Adjacency,
    frame: &Frame<'_>,
    packet: &Packet,
    keep_ttl: bool,
) -> ControlFlow<Fate, bool> {
    if !keep_ttl && packet.ttl <= 1 {
        return parse::punt(packet, Why::TtlExpired);
    }
    if packet.ip_len <= largest(hop, frame, packet) {
        return Continue(false);
    }
    if packet.dont_fragment && !frame.reassembled {
        return parse::punt(packet, Why::TooBig { mtu: hop.mtu });
    }
    Continue(true)
}

/// The largest packet that may be sent to a next hop, in bytes. A sender that cuts IPv6 by itself may
/// know of a smaller MTU far away, and learns nothing from being told of it once more: what is cut
/// again on its way out of the cluster is cut to what passes everywhere (RFC 8200 §5).
#[inline(always)]
fn largest(hop: &Adjacency, frame: &Frame<'_>, packet: &Packet) -> u16 {
    if frame.reassembled
        && !packet.tuple.is_v4()
        && matches!(hop.key, HopKey::Neighbour(..) | HopKey::Link(_))
    {
        return hop.mtu.min(ipv6::LEAST_MTU);
    }
    hop.mtu
}

/// Notes the packet in its flow, whose word goes on from what was `known`.
#[inline(always)]
fn advance(
    engine: &mut Engine<'_>,
    flow: FlowRef<'_>,
    hop: &Adjacency,
    packet: &Packet,
    known: Option<u64>,
) {
    flow.touch(engine.now, packet.ip_len.into());
    let Some(known) = known else { return };
    if flow.packets().is_multiple_of(shortcut::EVERY) {
        mention(engine, flow, hop, packet);
    }
    let new = match &packet.tcp {
        Some(facts) => {
            let payload = window::payload(packet.ip_len, packet.transport, facts);
            tcp::advance(known, facts, payload)
        }
        None => conntrack::SEEN,
    };
    if new != flow.conntrack() {
        flow.set_conntrack(new);
    }
}

/// Says that the packet's connection is a busy one, if somebody can do something about it.
#[cold]
fn mention(engine: &mut Engine<'_>, flow: FlowRef<'_>, hop: &Adjacency, packet: &Packet) {
    if shortcut::concerns(packet, flow, hop) {
        // When there are too many they are mentioned again.
        let _ = engine.mentions.try_push(packet.tuple);
    }
}

/// Sees to it that a connection's segments will fit the way to the next hop.
#[inline(never)]
fn clamp(hop: &Adjacency, frame: &mut Frame<'_>, packet: &Packet) {
    let Some(facts) = packet.tcp.filter(|facts| facts.flags & tcp_flags::SYN != 0) else { return };
    let ip_len = if packet.tuple.is_v4() { ipv4::LEN } else { ipv6::LEN };
    let most = usize::from(hop.mtu).saturating_sub(ip_len + TCP_LEN);
    let tcp = ethernet::LEN + usize::from(packet.transport);
    if let Some(tcp) = frame.bytes_mut().get_mut(tcp..) {
        // A SYN without the option tells the least there is (RFC 9293 §3.7.1).
        let _ = apply::clamp_mss(tcp, facts.header_len, most as u16);
    }
}

/// What else is done to a packet that leaves.
struct Last {
    /// Whether it is of IPv4.
    v4: bool,
    /// Whether its TTL stays.
    keep_ttl: bool,
    /// The hash of what it came with.
    hash: u64,
}

/// Translates the packet and puts on it what its next hop wants.
#[inline(always)]
fn write(
    frame: &mut Frame<'_>,
    hop: &Adjacency,
    last: &Last,
    translate: impl FnOnce(&mut [u8]) -> Option<()>,
) -> ControlFlow<Fate> {
    const MALFORMED: ControlFlow<Fate> = Break(Fate::Drop(DropReason::Malformed));
    let Some((header, ip)) = frame.bytes_mut().split_first_chunk_mut() else { return MALFORMED };
    let Some(()) = translate(ip) else { return MALFORMED };
    if !last.keep_ttl {
        let Some(()) = apply::lower_ttl(ip, last.v4) else { return MALFORMED };
    }
    if matches!(hop.outer, Outer::None) {
        Ethernet(header).emit(hop.dst_mac, hop.src_mac, finish::own_ethertype(last.v4));
        return Continue(());
    }
    match finish::finish(frame, hop, last.v4, last.hash) {
        Some(()) => Continue(()),
        None => parse::dropped(DropReason::NoHeadroom),
    }
}

/// Finished, but too big: the slow path cuts the inner packet and repeats what is around it.
fn fragment(hop: &Adjacency, frame: &Frame<'_>, packet: &Packet) -> Fate {
    let ip = frame.len.saturating_sub(usize::from(packet.ip_len));
    let mtu = largest(hop, frame, packet);
    let why = Why::Fragment { egress: hop.port, mtu, ip: ip as u16 };
    Fate::Punt(Punt { port: packet.port, tunneled: packet.tunneled, why })
}
