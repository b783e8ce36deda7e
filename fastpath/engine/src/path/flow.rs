//! Arrives: a parsed packet. Leaves: its flow and the decision in force.
//!
//! A *hit* finds both in one line of memory, of IPv6 in two. A decision of an older generation, or one made for
//! packets from another side, is made anew from what the flow remembers: its translation stays,
//! its route and verdict are judged again. So is a denial when domain names were learned since.
//! A packet without flow goes through the miss walk.
//!
//! Drops: not_ready, invalid_state; drops and punts of the miss walk.

use std::net::IpAddr;
use std::ops::ControlFlow::{self, Continue};

use ipnet::IpNet;
use margay_model::DropReason;
use margay_tables::addr::{Addr, Tuple};
use margay_tables::classifier::Direction;
use margay_tables::flow::{Dir, FlowId, FlowRef, Stamped};
use margay_wire::protocol;

use super::miss::{self, Denial, Met, Way};
use crate::Engine;
use crate::batch::{Fate, Packet, Side};
use crate::conntrack::{self, icmp, tcp};
use crate::decision::{Decision, Verdict};
use crate::snapshot::{Place, Snapshot};

/// Finds or makes the flow that has the decision in force. Only its name is handed on: a flow is
/// wide enough to go through memory, and its parts would be waited for.
#[inline]
pub(crate) fn decide(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
) -> ControlFlow<Fate, FlowId> {
    let Some(flow) = engine.lookup(&packet.tuple, packet.hash) else {
        return anew(engine, snapshot, packet, None);
    };
    let Stamped { generation, action } = flow.decision();
    if generation == snapshot.generation
        && Decision::side(action) == Some(packet.side)
        && !Decision::may_be_pardoned(action, snapshot.names_epoch)
        && !reopens(packet, flow)
        && !begins_elsewhere(packet, flow)
        && is_its_own(packet, flow)
    {
        return Continue(flow.id());
    }
    anew(engine, snapshot, packet, Some(flow.id()))
}

/// Whether the packet opens a new connection where an old one with the same tuple has ended.
#[inline]
fn reopens(packet: &Packet, flow: FlowRef<'_>) -> bool {
    packet.tcp.is_some_and(|facts| {
        facts.flags & margay_wire::transport::tcp_flags::SYN != 0 && {
            tcp::reopens(&facts, state(flow))
        }
    })
}

/// Whether the packet is a SYN of a flow whose answers are not heard here: it may be of another
/// connection, the first having ended by a reset.
#[inline]
fn begins_elsewhere(packet: &Packet, flow: FlowRef<'_>) -> bool {
    packet.tcp.is_some_and(|facts| tcp::opens(&facts)) && flow.marks() & conntrack::HANDED_ON != 0
}

/// Whether the packet is of the flow that has its tuple. Of ICMP another query may have the same
/// identifier, and policies tell them apart.
#[inline]
fn is_its_own(packet: &Packet, flow: FlowRef<'_>) -> bool {
    let ip_protocol = packet.tuple.protocol;
    !icmp::is_icmp(ip_protocol)
        || icmp::is_same_exchange(flow.marks(), icmp::mark(ip_protocol, packet.icmp.0))
}

/// The connection's state.
pub(crate) fn state(flow: FlowRef<'_>) -> conntrack::State {
    if flow.is_denial() {
        return conntrack::State::Denied;
    }
    let (own, peer) = (flow.conntrack(), flow.peer().conntrack());
    let (protocol, marks) = (flow.tuple().protocol, flow.marks());
    match flow.dir() {
        Dir::Orig => conntrack::state(protocol, marks, own, peer),
        Dir::Reply => conntrack::state(protocol, marks, peer, own),
    }
}

/// The tuple that the packet leaves with.
#[inline(always)]
pub(crate) fn rewritten(flow: FlowRef<'_>, tuple: &Tuple) -> Tuple {
    let new = flow.rewrite();
    Tuple { src: new.src, dst: new.dst, src_port: new.src_port, dst_port: new.dst_port, ..*tuple }
}

/// Has a decision made: for the flow, or for one that is not there yet.
#[cold]
#[inline(never)]
fn anew(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    flow: Option<FlowId>,
) -> ControlFlow<Fate, FlowId> {
    let began = engine.stopwatch.begin_miss();
    let decided = match flow {
        None => make(engine, snapshot, packet),
        Some(id) => again(engine, snapshot, packet, id),
    };
    engine.stopwatch.end_miss(&engine.counters.meters, began);
    decided
}

fn make(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
) -> ControlFlow<Fate, FlowId> {
    miss::miss(engine, snapshot, packet).map_continue(|flow| flow.id())
}

/// Decides anew for a flow that is there.
fn again(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    id: FlowId,
) -> ControlFlow<Fate, FlowId> {
    if !snapshot.ready {
        // The first snapshot is empty: by it no flow that was taken over could stay.
        return super::parse::dropped(DropReason::NotReady);
    }
    let Some(flow) = engine.flow(id) else {
        return super::parse::dropped(DropReason::FlowTableFull);
    };
    if flow.is_denial() || reopens(packet, flow) || lost_backend(snapshot, packet, flow) {
        engine.remove(flow);
        return make(engine, snapshot, packet);
    }
    if !is_its_own(packet, flow) {
        return super::parse::dropped(DropReason::InvalidState);
    }
    engine.counters.stale.add(1);
    let mut way = Way::of(flow, packet);
    way.src_pod = miss::source_pod(snapshot, packet)?;
    miss::route(snapshot, packet, &mut way)?;
    let judged = judged(snapshot, packet, flow, &way);
    note_change(engine, snapshot, flow, &judged);
    let verdict = match judged {
        Judged::Denied(denial) if snapshot.settings.cut_flows_on_policy_change => {
            Verdict::Drop { reason: denial.reason, epoch: snapshot.names_epoch }
        }
        Judged::As(Verdict::Drop { reason, .. }) => {
            Verdict::Drop { reason, epoch: snapshot.names_epoch }
        }
        _ => {
            let asked = match flow.dir() {
                Dir::Orig => packet.tuple,
                Dir::Reply => flow.peer().tuple(),
            };
            let read_along = snapshot.reads_along(&asked);
            Verdict::Forward { hop: way.hop, keep_ttl: way.keeps_ttl(packet), read_along }
        }
    };
    let decision = Decision { side: packet.side, verdict };
    flow.set_decision(Stamped { generation: snapshot.generation, action: decision.pack() });
    Continue(id)
}

/// What is known of a connection that was judged again.
enum Judged {
    /// The other direction was judged by this very generation.
    As(Verdict),
    /// These rules allow it.
    Allowed([u32; 2]),
    /// It is not allowed any more.
    Denied(Denial),
}

/// Has the packets up to now accounted to the rules that stood for them, if others stand for those
/// to come. The rule of the other direction is in that direction's line, and a packet counted there
/// at this very moment may be counted by half: once in a change of policy.
fn note_change(engine: &Engine<'_>, snapshot: &Snapshot, flow: FlowRef<'_>, judged: &Judged) {
    let (rules, denied) = match judged {
        Judged::As(_) => return,
        Judged::Allowed(rules) => (*rules, false),
        Judged::Denied(denial) if snapshot.settings.cut_flows_on_policy_change => {
            (denial.rules, true)
        }
        Judged::Denied(_) => return,
    };
    let lines = [flow, flow.peer()].map(|line| (line, line.dir() as usize));
    let was_denied = lines.iter().any(|(line, _)| is_cut(*line));
    let same = lines.iter().all(|(line, at)| rules.get(*at) == Some(&line.rule()));
    if same && denied == was_denied {
        return;
    }
    if let Some(journal) = engine.journal() {
        journal.changing(&flow);
    }
    for (line, at) in lines {
        line.set_rule(rules.get(at).copied().unwrap_or_default());
    }
}

fn is_cut(flow: FlowRef<'_>) -> bool {
    let decision = Decision::unpack(flow.decision().action);
    decision.is_some_and(|decision| matches!(decision.verdict, Verdict::Drop { .. }))
}

/// Whether the connection is allowed: as the other direction was told by this very generation, or
/// judged now. `at_hand` is the way of the packet at hand.
fn judged(snapshot: &Snapshot, packet: &Packet, flow: FlowRef<'_>, at_hand: &Way) -> Judged {
    let Stamped { generation, action } = flow.peer().decision();
    // The other direction knew the first one's pod by its address only.
    let sender = at_hand.src_pod;
    let lent = flow.dir() == Dir::Orig && sender != owner(snapshot, packet.tuple.src);
    // What the kernel forwards comes by twice, and each time another host endpoint is asked.
    let own = flow.decision();
    let moved =
        own.generation == snapshot.generation && Decision::side(own.action) != Some(packet.side);
    if generation == snapshot.generation
        && !lent
        && !moved
        && let Some(decision) = Decision::unpack(action)
    {
        // What names resolve to has changed since: it may be allowed now.
        let outdated = matches!(decision.verdict, Verdict::Drop { epoch, .. } if epoch != snapshot.names_epoch);
        if !outdated {
            return Judged::As(decision.verdict);
        }
    }
    match judge(snapshot, packet, flow, at_hand) {
        Ok(rules) => Judged::Allowed(rules),
        Err(denial) => Judged::Denied(denial),
    }
}

/// Judges the connection as its first packet was: its source as it came, its destination
/// translated, whichever direction the packet at hand has.
fn judge(
    snapshot: &Snapshot,
    packet: &Packet,
    flow: FlowRef<'_>,
    at_hand: &Way,
) -> Result<[u32; 2], Denial> {
    let (orig, reply) = match flow.dir() {
        Dir::Orig => (packet.tuple, flow.peer().tuple()),
        Dir::Reply => (flow.peer().tuple(), packet.tuple),
    };
    let tuple = Tuple { dst: reply.src, dst_port: reply.src_port, ..orig };
    let icmp = if flow.dir() == Dir::Orig { packet.icmp } else { (icmp::kind(flow.marks()), 0) };
    let (here, there) = (miss::arrival(snapshot, packet), miss::departure(snapshot, at_hand.hop));
    let (arrives, leaves) = match flow.dir() {
        Dir::Orig => (here, there),
        Dir::Reply => (there, here),
    };
    let established = true;
    let mut way = Way { to: tuple, asked: orig, arrives, leaves, established, ..Way::new(packet) };
    way.accepted = match flow.dir() {
        Dir::Orig => packet.accepted,
        Dir::Reply => {
            let rule = miss::untracked(
                snapshot,
                arrives,
                Direction::Ingress,
                &orig,
                icmp,
                &mut Met::new(),
            );
            matches!(rule, Ok(Some(_)))
        }
    };
    way.src_pod = match flow.dir() {
        Dir::Orig => at_hand.src_pod,
        Dir::Reply => owner(snapshot, orig.src).or_else(|| borrower(snapshot, orig.src)),
    };
    let side = match way.src_pod {
        Some(_) => Side::Pod,
        None if miss::is_nodes(snapshot, &orig) => Side::Host,
        None => Side::Wire,
    };
    match snapshot.place(tuple.dst) {
        Some(Place::Pod(index)) => way.dst_pod = Some(*index),
        Some(Place::Host) => way.to_host = true,
        // What the kernel takes without being addressed: a group's packets, say.
        _ => way.to_host = flow.dir() == Dir::Orig && at_hand.to_host,
    }
    // A connection is logged once: when it begins.
    way.accepted |= miss::judge_pre_dnat(snapshot, icmp, &way, &mut Met::new())?;
    miss::judge(snapshot, side, &tuple, icmp, &way, &mut Met::new())
}

/// The pod of this node that has an address.
pub(crate) fn owner(snapshot: &Snapshot, addr: Addr) -> Option<u32> {
    match snapshot.place(addr) {
        Some(Place::Pod(index)) => Some(*index),
        _ => None,
    }
}

/// The first pod of this node that may send from an address that is nobody's here.
fn borrower(snapshot: &Snapshot, addr: Addr) -> Option<u32> {
    let addr = IpAddr::from(addr);
    let lent = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&addr));
    let at = snapshot.endpoints.iter().position(|pod| lent(&pod.endpoint.allowed_sources));
    at.and_then(|index| u32::try_from(index).ok())
}

/// Whether a flow was translated to a backend that its service does not have any more, or began
/// before there was the service, and would go nowhere for ever: of UDP, as nothing ends it, and of TCP
/// what begins anew without that being known.
fn lost_backend(snapshot: &Snapshot, packet: &Packet, flow: FlowRef<'_>) -> bool {
    let moves = packet.tuple.protocol == protocol::UDP || begins_elsewhere(packet, flow);
    if !moves || flow.dir() == Dir::Reply {
        return false;
    }
    let new = flow.rewrite();
    let translated = (new.dst, new.dst_port) != (packet.tuple.dst, packet.tuple.dst_port);
    (translated || miss::is_service(snapshot, packet))
        && !snapshot.still_serves(&packet.tuple, new.dst, new.dst_port)
}
