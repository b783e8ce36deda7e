//! Host endpoints: policy for interfaces of the node.
//!
//! A connection meets at most two of them, where it came into the node and where it leaves it. What
//! is asked there depends on whether the node itself is an end of the connection:
//!
//! | connection           | where it arrives                 | where it leaves  |
//! |----------------------|----------------------------------|------------------|
//! | wire to node         | pre-DNAT, else own ingress       |                  |
//! | wire to elsewhere    | pre-DNAT, else forward ingress   | forward egress   |
//! | pod to the wire      |                                  | forward egress   |
//! | node to the wire     |                                  | own egress       |
//! | node and its own pod | nothing                          | nothing          |
//!
//! What pre-DNAT policy allows is not shown to the other lists of that host endpoint. Failsafe ports
//! of the node are open in every list but the forward ones. Tunnels have the host endpoint for all
//! interfaces: what is in them is not of the uplink that carries them.
//!
//! Arrives (at [`pre_dnat`]): a packet as its sender addressed it. Leaves: with the host endpoint
//! that it came in by. Drops: policy, policy_missing.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_tables::addr::{Addr, Tuple};
use margay_tables::classifier::{Cause, Decision, Direction, EndpointPolicy, PacketFacts};

use super::policy::{Met, facts, log, note};
use super::{Denial, Way, compile_denial};
use crate::Engine;
use crate::batch::{Fate, Packet, Side};
use crate::path::parse::{dropped, is_martian};
use crate::snapshot::{AdjacencyId, Guard, HopKey, Place, Snapshot, is_failsafe};

/// Why a packet is not allowed, and the number of what decided.
pub(crate) type Refusal = (DropReason, u32);

/// Asks pre-DNAT policy about the packet at hand.
pub(super) fn pre_dnat(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &mut Way,
) -> ControlFlow<Fate> {
    way.arrives = arrival(snapshot, packet);
    way.accepted = packet.accepted;
    let mut met = Met::new();
    let judged = judge_pre_dnat(snapshot, packet.icmp, way, &mut met);
    if !met.is_empty() {
        log(engine, packet, &way.asked, &met);
    }
    match judged {
        Ok(accepted) => way.accepted |= accepted,
        Err(denial) => {
            compile_denial(engine, snapshot, packet, way, denial);
            return dropped(denial.reason);
        }
    }
    Continue(())
}

/// The host endpoint that a packet came in by.
pub(crate) fn arrival(snapshot: &Snapshot, packet: &Packet) -> Option<u32> {
    match packet.side {
        Side::Wire if packet.tunneled => snapshot.everywhere,
        Side::Wire => snapshot.port(packet.port)?.guard,
        Side::Pod | Side::Host => None,
    }
}

/// The host endpoint that packets leave by on this way.
pub(crate) fn departure(snapshot: &Snapshot, hop: AdjacencyId) -> Option<u32> {
    match snapshot.adjacency(hop)?.key {
        HopKey::Neighbour(port, _) | HopKey::Link(port) | HopKey::Departure(port) => {
            snapshot.port(port)?.guard
        }
        HopKey::Ipip(_) | HopKey::Vxlan(..) | HopKey::Direct(..) => snapshot.everywhere,
        HopKey::Host | HopKey::Pod(_) | HopKey::Arrival(_) => None,
    }
}

/// The rule by which an untracked policy of a host endpoint allows a packet; `None` where none
/// decides. What Log rules it meets is added to `met`.
pub(crate) fn untracked(
    snapshot: &Snapshot,
    index: Option<u32>,
    direction: Direction,
    tuple: &Tuple,
    icmp: (u8, u8),
    met: &mut Met,
) -> Result<Option<u32>, Refusal> {
    let Some(guard) = guard(snapshot, index).filter(|guard| guard.is_untracked()) else {
        return Ok(None);
    };
    let open = match direction {
        Direction::Ingress => is_inbound_failsafe(snapshot, tuple),
        Direction::Egress => is_outbound_failsafe(snapshot, tuple),
    };
    if open {
        return Ok(None);
    }
    ask(snapshot, &guard.lists.untracked, direction, &facts(tuple, icmp), met)
}

/// What pre-DNAT policy says of a connection as its sender addressed it: whether nothing else is to
/// be asked where it came in.
pub(crate) fn judge_pre_dnat(
    snapshot: &Snapshot,
    icmp: (u8, u8),
    way: &Way,
    met: &mut Met,
) -> Result<bool, Denial> {
    if way.accepted {
        return Ok(false);
    }
    let rule = ask_pre_dnat(snapshot, way.arrives, &way.asked, icmp, met);
    rule.map(|rule| rule.is_some()).map_err(|(reason, id)| Denial { reason, rules: [0, id] })
}

/// The rule by which pre-DNAT policy allows a connection; `None` where none decides.
fn ask_pre_dnat(
    snapshot: &Snapshot,
    arrives: Option<u32>,
    asked: &Tuple,
    icmp: (u8, u8),
    met: &mut Met,
) -> Result<Option<u32>, Refusal> {
    match guard(snapshot, arrives) {
        Some(guard)
            if !guard.endpoint.pre_dnat.is_empty() && !is_inbound_failsafe(snapshot, asked) =>
        {
            let policy = &guard.lists.pre_dnat;
            ask(snapshot, policy, Direction::Ingress, &facts(asked, icmp), met)
        }
        _ => Ok(None),
    }
}

/// What host endpoints say of a connection whose way is known: the rules that allowed it where it
/// leaves and where it came in. `side` is the first packet's, `tuple` has its destination
/// translated; `source` is the rule by which the source's pod allowed it. What Log rules it meets is
/// added to `met`.
pub(super) fn judge(
    snapshot: &Snapshot,
    side: Side,
    tuple: &Tuple,
    facts: &PacketFacts,
    way: &Way,
    source: u32,
    met: &mut Met,
) -> Result<[u32; 2], Denial> {
    let mut rules = [0; 2];
    if let Some(guard) = guard(snapshot, way.arrives).filter(|_| !way.accepted) {
        let denied = |(reason, id)| Denial { reason, rules: [source, id] };
        if !way.to_host {
            let forward = &guard.lists.forward;
            ask(snapshot, forward, Direction::Ingress, facts, met).map_err(denied)?;
        } else if !is_inbound_failsafe(snapshot, &way.asked) {
            let own = ask_all(snapshot, &guard.lists.own, Direction::Ingress, facts, met);
            rules[1] = own.map_err(denied)?;
        }
    }
    if let Some(guard) = guard(snapshot, way.leaves) {
        let denied = |(reason, id)| Denial { reason, rules: [id, 0] };
        if side != Side::Host || !is_nodes(snapshot, tuple) {
            let forward = &guard.lists.forward;
            ask(snapshot, forward, Direction::Egress, facts, met).map_err(denied)?;
        } else if !is_outbound_failsafe(snapshot, tuple) {
            let own = ask_all(snapshot, &guard.lists.own, Direction::Egress, facts, met);
            rules[0] = own.map_err(denied)?;
        }
    }
    Ok(rules)
}

/// The rules by which host endpoints let an allowed connection pass, where it leaves and where it came
/// in, of those that its flow does not name: pre-DNAT and forward ones. As they are now, for who keeps
/// accounts: no packet waits for it. `hops` are the next hops of both directions, as far as they were
/// decided, and `tuple` has its destination translated.
pub(crate) fn passed(
    snapshot: &Snapshot,
    asked: &Tuple,
    tuple: &Tuple,
    icmp: (u8, u8),
    hops: [Option<AdjacencyId>; 2],
) -> [Option<u32>; 2] {
    if snapshot.guards.is_empty() {
        return [None; 2];
    }
    let nobody = &mut Met::new();
    let facts = PacketFacts { established: true, ..facts(tuple, icmp) };
    let [there, back] = hops;
    let is_pods = |addr| matches!(snapshot.place(addr), Some(Place::Pod(_)));
    let leaves = there.and_then(|hop| departure(snapshot, hop));
    let leaving =
        guard(snapshot, leaves).filter(|_| is_pods(asked.src) || !is_nodes(snapshot, tuple));
    let egress = leaving.and_then(|guard| {
        ask(snapshot, &guard.lists.forward, Direction::Egress, &facts, nobody).ok().flatten()
    });
    // Where answers leave by, the first packet came in; before there is one, the route tells.
    let from_outside = !is_pods(asked.src) && !is_nodes(snapshot, asked);
    let back = back.or_else(|| first_hop(snapshot, asked.src)).filter(|_| from_outside);
    let arrives = back.and_then(|hop| departure(snapshot, hop));
    let ingress = guard(snapshot, arrives).and_then(|guard| {
        // What untracked policy allows is counted by itself.
        match untracked(snapshot, arrives, Direction::Ingress, asked, icmp, nobody) {
            Ok(None) => {}
            _ => return None,
        }
        let early = ask_pre_dnat(snapshot, arrives, asked, icmp, nobody).ok()?;
        if early.is_some() || matches!(snapshot.place(tuple.dst), Some(Place::Host)) {
            return early;
        }
        ask(snapshot, &guard.lists.forward, Direction::Ingress, &facts, nobody).ok().flatten()
    });
    [egress, ingress]
}

fn first_hop(snapshot: &Snapshot, addr: Addr) -> Option<AdjacencyId> {
    match snapshot.place(addr) {
        Some(Place::Hops { hops, .. }) => hops.first().copied(),
        _ => None,
    }
}

/// Whether a packet of the host's is the node's own; the kernel may have forwarded it.
pub(crate) fn is_nodes(snapshot: &Snapshot, tuple: &Tuple) -> bool {
    snapshot.is_own(tuple.src) || is_martian(tuple.src)
}

/// Whether a packet is addressed to a port of the node that no policy can close.
fn is_inbound_failsafe(snapshot: &Snapshot, asked: &Tuple) -> bool {
    let open = &snapshot.settings.failsafe_inbound;
    is_failsafe(open, asked.protocol, asked.dst_port, asked.src.into())
        && snapshot.is_own(asked.dst)
}

/// Whether a packet of the node is for a port elsewhere that no policy can close.
fn is_outbound_failsafe(snapshot: &Snapshot, tuple: &Tuple) -> bool {
    let open = &snapshot.settings.failsafe_outbound;
    is_failsafe(open, tuple.protocol, tuple.dst_port, tuple.dst.into())
}

fn guard(snapshot: &Snapshot, index: Option<u32>) -> Option<&Guard> {
    snapshot.guard(index?)
}

/// Asks a list whose end allows: the rule that did, if one did.
fn ask(
    snapshot: &Snapshot,
    policy: &EndpointPolicy,
    direction: Direction,
    facts: &PacketFacts,
    met: &mut Met,
) -> Result<Option<u32>, Refusal> {
    let decision = snapshot.classifier.decide(policy, direction, facts);
    note(met, &decision, direction);
    if decision.cause == Cause::NoProfile { Ok(None) } else { said(&decision).map(Some) }
}

/// Asks a list with profiles, whose end denies.
fn ask_all(
    snapshot: &Snapshot,
    policy: &EndpointPolicy,
    direction: Direction,
    facts: &PacketFacts,
    met: &mut Met,
) -> Result<u32, Refusal> {
    let decision = snapshot.classifier.decide(policy, direction, facts);
    note(met, &decision, direction);
    said(&decision)
}

fn said(decision: &Decision<'_>) -> Result<u32, Refusal> {
    let id = decision.rule_id();
    if decision.allowed() { Ok(id) } else { Err((decision.drop_reason(), id)) }
}
