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
use margay_tables::addr::Tuple;
use margay_tables::classifier::{Cause, Decision, Direction, EndpointPolicy, PacketFacts};

use super::policy::facts;
use super::{Denial, Way, compile_denial};
use crate::Engine;
use crate::batch::{Fate, Packet, Side};
use crate::path::parse::{dropped, is_martian};
use crate::snapshot::{AdjacencyId, Guard, HopKey, Snapshot, is_failsafe};

/// Why a packet is not allowed, and the number of what decided.
type Refusal = (DropReason, u32);

/// Asks pre-DNAT policy about the packet at hand.
pub(super) fn pre_dnat(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &mut Way,
) -> ControlFlow<Fate> {
    way.arrives = arrival(snapshot, packet);
    way.accepted = packet.accepted;
    match judge_pre_dnat(snapshot, packet.icmp, way) {
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
        HopKey::Ipip(_) | HopKey::Vxlan(..) => snapshot.everywhere,
        HopKey::Host | HopKey::Pod(_) | HopKey::Arrival(_) => None,
    }
}

/// Whether an untracked policy of a host endpoint allows a packet; `false` where none decides.
pub(crate) fn is_untracked(
    snapshot: &Snapshot,
    index: Option<u32>,
    direction: Direction,
    tuple: &Tuple,
    icmp: (u8, u8),
) -> Result<bool, DropReason> {
    let Some(guard) = guard(snapshot, index).filter(|guard| guard.is_untracked()) else {
        return Ok(false);
    };
    let open = match direction {
        Direction::Ingress => is_inbound_failsafe(snapshot, tuple),
        Direction::Egress => is_outbound_failsafe(snapshot, tuple),
    };
    if open {
        return Ok(false);
    }
    let facts = facts(tuple, icmp);
    let rule = ask(snapshot, &guard.lists.untracked, direction, &facts);
    rule.map(|rule| rule.is_some()).map_err(|(reason, _)| reason)
}

/// What pre-DNAT policy says of a connection as its sender addressed it: whether nothing else is to
/// be asked where it came in.
pub(crate) fn judge_pre_dnat(
    snapshot: &Snapshot,
    icmp: (u8, u8),
    way: &Way,
) -> Result<bool, Denial> {
    let Some(guard) = guard(snapshot, way.arrives).filter(|_| !way.accepted) else {
        return Ok(false);
    };
    if guard.endpoint.pre_dnat.is_empty() || is_inbound_failsafe(snapshot, &way.asked) {
        return Ok(false);
    }
    let facts = facts(&way.asked, icmp);
    let policy = &guard.lists.pre_dnat;
    let rule = ask(snapshot, policy, Direction::Ingress, &facts);
    rule.map(|rule| rule.is_some()).map_err(|(reason, id)| Denial { reason, rules: [0, id] })
}

/// What host endpoints say of a connection whose way is known: the rules that allowed it where it
/// leaves and where it came in. `side` is the first packet's, `tuple` has its destination
/// translated; `source` is the rule by which the source's pod allowed it.
pub(super) fn judge(
    snapshot: &Snapshot,
    side: Side,
    tuple: &Tuple,
    facts: &PacketFacts,
    way: &Way,
    source: u32,
) -> Result<[u32; 2], Denial> {
    let mut rules = [0; 2];
    if let Some(guard) = guard(snapshot, way.arrives).filter(|_| !way.accepted) {
        let denied = |(reason, id)| Denial { reason, rules: [source, id] };
        if !way.to_host {
            ask(snapshot, &guard.lists.forward, Direction::Ingress, facts).map_err(denied)?;
        } else if !is_inbound_failsafe(snapshot, &way.asked) {
            let own = ask_all(snapshot, &guard.lists.own, Direction::Ingress, facts);
            rules[1] = own.map_err(denied)?;
        }
    }
    if let Some(guard) = guard(snapshot, way.leaves) {
        let denied = |(reason, id)| Denial { reason, rules: [id, 0] };
        if side != Side::Host || !is_nodes(snapshot, tuple) {
            ask(snapshot, &guard.lists.forward, Direction::Egress, facts).map_err(denied)?;
        } else if !is_outbound_failsafe(snapshot, tuple) {
            let own = ask_all(snapshot, &guard.lists.own, Direction::Egress, facts);
            rules[0] = own.map_err(denied)?;
        }
    }
    Ok(rules)
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
) -> Result<Option<u32>, Refusal> {
    let decision = snapshot.classifier.decide(policy, direction, facts);
    if decision.cause == Cause::NoProfile { Ok(None) } else { said(&decision).map(Some) }
}

/// Asks a list with profiles, whose end denies.
fn ask_all(
    snapshot: &Snapshot,
    policy: &EndpointPolicy,
    direction: Direction,
    facts: &PacketFacts,
) -> Result<u32, Refusal> {
    said(&snapshot.classifier.decide(policy, direction, facts))
}

fn said(decision: &Decision<'_>) -> Result<u32, Refusal> {
    let id = decision.rule_id();
    if decision.allowed() { Ok(id) } else { Err((decision.drop_reason(), id)) }
}
