//! Arrives: a packet whose way is decided. Leaves: its flow, both directions, published.
//!
//! The flow table is what knows the tuples in use: a masqueraded connection tries source ports
//! until its answer's tuple is free, so that no tuple is ever handed out twice.
//!
//! Drops: flow_table_full, snat_exhausted, invalid_state.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_tables::addr::Tuple;
use margay_tables::flow::{FlowRef, Insert, NewFlow, Stamped};
use margay_wire::transport::{self, IcmpClass};

use super::admit::Places;
use super::{Denial, Way};
use crate::Engine;
use crate::batch::{Fate, Packet};
use crate::conntrack::{self, icmp, tcp};
use crate::decision::{Decision, Verdict};
use crate::path::parse::dropped;
use crate::snapshot::Snapshot;

/// Source ports that are tried before a connection is given up.
const TRIES: u16 = 256;

/// Insertions of one tuple that meet others at work before the next port is tried.
const RETRIES: u8 = 8;

/// Ports that are given up for meeting others at work there. A worker that was interrupted in the
/// midst of an entry is not waited for: each insertion costs a record for a while.
const MEETINGS: u8 = 2;

/// Publishes the flow, on the places that were taken for it.
pub(super) fn compile<'t>(
    engine: &mut Engine<'t>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &Way,
    places: Places<'_>,
) -> ControlFlow<Fate, FlowRef<'t>> {
    let strict = snapshot.settings.tcp_strict;
    if packet.tcp.is_some_and(|facts| !tcp::may_begin(&facts, strict)) {
        return dropped(DropReason::InvalidState);
    }
    let keep_ttl = way.keeps_ttl(packet);
    let read_along = snapshot.reads_along(&packet.tuple);
    let verdict = Verdict::Forward { hop: way.hop, keep_ttl, read_along };
    let decision = Decision { side: packet.side, verdict };
    let stamped = Stamped { generation: snapshot.generation, action: decision.pack() };
    let mut flow = NewFlow {
        decisions: [stamped, Stamped::default()],
        rules: way.rules,
        marks: marks(packet, way),
        ..NewFlow::connection(packet.tuple, way.to.reversed(), engine.now)
    };
    let (mut last, mut met) = (None, 0);
    for attempt in 0..TRIES {
        let to = translated_source(snapshot, packet, way, attempt).unwrap_or(way.to);
        if last.replace(to) == Some(to) {
            // No port to change: the rest would be the same.
            break;
        }
        // A packet that is its own answer would be in its own way, and a port that a process of the
        // node has bound would hear answers that are not for it, or lose its own.
        let masqueraded = to.src != packet.tuple.src;
        if to.reversed() == packet.tuple
            || (masqueraded && snapshot.bound.contains(to.protocol, to.src_port))
        {
            continue;
        }
        flow.reply = Some(to.reversed());
        match enter(engine, &flow) {
            Insert::New(id) => {
                places.occupy(id, packet.hash);
                return engine.flow(id).map_or(dropped(DropReason::FlowTableFull), Continue);
            }
            Insert::Exists(id) => {
                return engine.flow(id).map_or(dropped(DropReason::FlowTableFull), Continue);
            }
            // The tuple is in use, or just being taken: another source port solves it.
            Insert::ReplyTaken => {}
            Insert::Contended if met < MEETINGS => met += 1,
            Insert::Contended | Insert::Full | Insert::Crowded | Insert::DenialsFull => {
                return dropped(DropReason::FlowTableFull);
            }
        }
    }
    dropped(if way.to.reversed() == packet.tuple {
        DropReason::InvalidState
    } else {
        DropReason::SnatExhausted
    })
}

/// What is marked of a connection from its first packet on. Windows are known only to who sees all of
/// its segments, from the first on: the kernel's own pass by while there is no dataplane.
fn marks(packet: &Packet, way: &Way) -> u8 {
    let given = |mark, given| if given { mark } else { 0 };
    let unseen = |facts| way.is_kernels || !tcp::may_begin(facts, true);
    icmp::mark(packet.tuple.protocol, packet.icmp.0)
        | given(tcp::LOOSE, packet.tcp.as_ref().is_some_and(unseen))
        | given(conntrack::HANDED_ON, way.handed_on)
        | given(conntrack::TAKEN_ON, packet.handed_on && way.translated)
}

/// Enters a connection with the tuples that it has. A denial that was remembered for one of them
/// goes, and what another worker is just doing there is waited for: neither is a reason for
/// another port.
fn enter(engine: &mut Engine<'_>, flow: &NewFlow) -> Insert {
    for _ in 0..RETRIES {
        match engine.insert(flow) {
            Insert::Exists(id) => match engine.flow(id).filter(|found| found.is_denial()) {
                Some(denial) => engine.remove(denial),
                None => return Insert::Exists(id),
            },
            // What was denied to the other end as a connection of its own is an answer from now on.
            Insert::ReplyTaken if engine.pardon(flow.reply) => {}
            Insert::Contended => std::hint::spin_loop(),
            other => return other,
        }
    }
    Insert::Contended
}

/// The tuple to leave with at the nth attempt. A source address that is the packet's own keeps its
/// port as long as the tuple is free. It is not where a service's backend is asked directly too,
/// from the same port: the answers could not be told apart, and another port is what the kernel's
/// null binding chooses (`nf_nat_alloc_null_binding`). A masqueraded one has its port out of the range
/// from the start, so that it never meets the host's own; its own port if that is one of the range and
/// ports are to be kept. Protocols without ports have their exact tuple.
fn translated_source(
    snapshot: &Snapshot,
    packet: &Packet,
    way: &Way,
    attempt: u16,
) -> Option<Tuple> {
    let own = way.to.src_port;
    let kept = way.to.src == packet.tuple.src && !way.fresh_port && attempt == 0;
    let query = icmp::is_icmp(way.to.protocol)
        && transport::icmp_class(way.to.protocol, packet.icmp.0) == IcmpClass::Request;
    let src_port = if kept || !(transport::has_ports(way.to.protocol) || query) {
        own
    } else if query {
        // Identifiers share no space with the host's ports: keep it, then look around.
        own.wrapping_add(attempt.wrapping_mul(7919))
    } else {
        let (first, last) = snapshot.settings.snat_ports;
        let keep = snapshot.settings.keep_source_ports && !way.fresh_port && attempt == 0;
        if keep && (first..=last).contains(&own) {
            return Some(way.to);
        }
        let size = u32::from(last.checked_sub(first)?) + 1;
        // A stride that divides no range in use visits distant ports quickly.
        let nth = (((packet.hash >> 32) as u32) % size + u32::from(attempt) * 131) % size;
        u16::try_from(u32::from(first) + nth).ok()?
    };
    Some(Tuple { src_port, ..way.to })
}

/// Remembers a denial for the packet's tuple, and counts the packet there.
pub(crate) fn compile_denial(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &Way,
    denial: Denial,
) {
    let verdict = Verdict::Drop { reason: denial.reason, epoch: snapshot.names_epoch };
    let decision = Decision { side: packet.side, verdict };
    let stamped = Stamped { generation: snapshot.generation, action: decision.pack() };
    let flow = NewFlow {
        marks: icmp::mark(packet.tuple.protocol, packet.icmp.0),
        rules: denial.rules,
        answers: Some(way.to.reversed()),
        ..NewFlow::denial(packet.tuple, engine.now, stamped)
    };
    // Without a record the next packet is judged once more, no worse.
    match engine.insert_denial(&flow) {
        Insert::New(id) | Insert::Exists(id) => {
            if let Some(flow) = engine.flow(id).filter(FlowRef::is_denial) {
                flow.touch(engine.now, packet.ip_len.into());
            }
        }
        _ => engine.counters.unremembered.add(1),
    }
}
