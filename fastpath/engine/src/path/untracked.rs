//! Arrives: a parsed packet, where some host endpoint has untracked policies. Leaves: the same for
//! the flow stage; or, allowed by such a policy, the packet on its way between the kernel and its
//! uplink, without flow and without any other policy.
//!
//! Packets are judged one by one, answers too. What an untracked policy allows and the dataplane
//! itself forwards or translates keeps its flow, and is shown to no other list of the host endpoint
//! that it came in by. Each packet is counted for the rule that decided.
//!
//! Drops: policy, policy_missing, no_headroom.

use std::ops::ControlFlow::{self, Break, Continue};

use margay_model::DropReason;
use margay_tables::classifier::Direction;
use margay_tables::flow::Tally;

use super::miss::{self, Met, Refusal, Way};
use super::parse::dropped;
use super::{finish, flow, fragment, limit, tracked};
use crate::Engine;
use crate::batch::{Fate, Frame, Packet};
use crate::snapshot::{AdjacencyId, PortId, Snapshot};

/// Takes one parsed packet to its fate.
#[cold]
#[inline(never)]
pub(super) fn untracked(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
) -> ControlFlow<Fate, PortId> {
    if !snapshot.ready {
        return tracked(engine, snapshot, frame, packet);
    }
    match judge(engine, snapshot, packet) {
        Err((reason, _)) => return dropped(reason),
        Ok(None) => return tracked(engine, snapshot, frame, packet),
        Ok(Some(_)) => {}
    }
    match kernels_way(engine, snapshot, packet) {
        Some(hop) => direct(snapshot, frame, packet, hop),
        None => tracked(engine, snapshot, frame, &Packet { accepted: true, ..*packet }),
    }
}

/// The rule by which an untracked policy allows the packet; `None` where none decides. No flow counts
/// the packet for the rule, and none keeps it from being logged.
fn judge(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
) -> Result<Option<u32>, Refusal> {
    let (index, direction) = match packet.departs {
        Some(port) => (snapshot.port(port).and_then(|port| port.guard), Direction::Egress),
        None => (miss::arrival(snapshot, packet), Direction::Ingress),
    };
    let mut met = Met::new();
    let judged = miss::untracked(snapshot, index, direction, &packet.tuple, packet.icmp, &mut met);
    if !met.is_empty() {
        miss::log(engine, packet, &packet.tuple, &met);
    }
    let decided = match judged {
        Ok(allowed) => allowed.map(|rule| (rule, true)),
        Err((_, rule)) => Some((rule, false)),
    };
    if let Some((rule, allowed)) = decided {
        let ingress = direction == Direction::Ingress;
        let bytes = packet.ip_len.into();
        engine.tally(Tally { rule, ingress, allowed, packets: 1, bytes });
    }
    judged
}

/// The way of a packet between the kernel and its uplink; `None` for one that is translated, or goes
/// elsewhere.
fn kernels_way(engine: &Engine<'_>, snapshot: &Snapshot, packet: &Packet) -> Option<AdjacencyId> {
    let known = engine.lookup(&packet.tuple, packet.hash).filter(|flow| !flow.is_denial());
    if known.is_some_and(|flow| flow::rewritten(flow, &packet.tuple) != packet.tuple) {
        return None;
    }
    let mut way = Way::new(packet);
    match miss::find(snapshot, packet, &mut way) {
        Continue(()) if way.is_kernels && !miss::is_service(snapshot, packet) => Some(way.hop),
        _ => None,
    }
}

/// Sends the packet on as it is, but for a mark.
fn direct(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
    hop: AdjacencyId,
) -> ControlFlow<Fate, PortId> {
    let hop = super::hop_for(snapshot, hop, packet)?;
    if snapshot.limited() {
        limit::mark(snapshot, frame, packet, (packet.tuple.src, packet.tuple.dst), hop);
    }
    if finish::finish(frame, hop, packet.tuple.is_v4(), packet.hash).is_none() {
        return dropped(DropReason::NoHeadroom);
    }
    if packet.ip_len > hop.mtu { Break(fragment(hop, frame, packet)) } else { Continue(hop.port) }
}
