//! Arrives: a packet whose ends are known. Leaves: allowed by the pods at both ends and by the host
//! endpoints between them, with the rules that said so.
//!
//! Drops: policy, policy_missing, endpoint_to_host. A denial is remembered for a moment, so that a
//! denied flood does not walk the whole order for each packet. Packets that met Log rules are noted
//! in the journal.

use std::ops::ControlFlow::{self, Continue};

use arrayvec::ArrayVec;
use margay_model::DropReason;
use margay_model::node::EndpointToHost;
use margay_tables::addr::Tuple;
use margay_tables::classifier::{Decision, Direction, PacketFacts};
use margay_tables::flow::Logged;
use margay_wire::protocol;

use super::{Way, compile_denial, host};
use crate::Engine;
use crate::batch::{Fate, Packet, Side};
use crate::path::parse::dropped;
use crate::snapshot::Snapshot;

/// Why a connection is not allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    /// Why its packets are dropped.
    pub(crate) reason: DropReason,
    /// What decided at the source's and at the destination's pod; the last that is not 0 denied,
    /// unless the reason is the host's.
    pub(crate) rules: [u32; 2],
}

/// Log rules that a packet met, and whether each is for packets to the endpoint: at most four of each
/// of four lists, those of both pods and of two host endpoints.
pub(crate) type Met = ArrayVec<(u32, bool), 16>;

/// Judges the packet at both ends.
pub(crate) fn policy(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &mut Way,
) -> ControlFlow<Fate> {
    let mut met = Met::new();
    let judged = judge(snapshot, packet.side, &way.to, packet.icmp, way, &mut met);
    if !met.is_empty() {
        log(engine, packet, &way.to, &met);
    }
    match judged {
        Ok(rules) => {
            way.rules = rules;
            Continue(())
        }
        Err(denial) => {
            compile_denial(engine, snapshot, packet, way, denial);
            dropped(denial.reason)
        }
    }
}

/// Notes in the journal what Log rules a packet met; `tuple` is what they saw.
#[cold]
pub(crate) fn log(engine: &Engine<'_>, packet: &Packet, tuple: &Tuple, met: &Met) {
    let Some(journal) = engine.journal() else { return };
    for (rule, ingress) in met {
        journal.log(Logged {
            tuple: *tuple,
            icmp: packet.icmp,
            len: packet.ip_len,
            rule: *rule,
            ingress: *ingress,
        });
    }
}

/// The rules by which both ends allow a connection, or why one does not. `tuple` is the first
/// packet's with its destination translated and its source as it was. What Log rules it meets is
/// added to `met`.
pub(crate) fn judge(
    snapshot: &Snapshot,
    side: Side,
    tuple: &Tuple,
    icmp: (u8, u8),
    way: &Way,
    met: &mut Met,
) -> Result<[u32; 2], Denial> {
    let mut rules = [0; 2];
    // What a pod sends to itself is nobody else's business.
    if way.src_pod.is_some() && way.src_pod == way.dst_pod {
        return Ok(rules);
    }
    let facts = PacketFacts { established: way.established, ..facts(tuple, icmp) };
    if let Some(index) = way.src_pod {
        let (rule, verdict) = decide(snapshot, index, Direction::Egress, &facts, met);
        rules[0] = rule;
        verdict.map_err(|reason| Denial { reason, rules })?;
    }
    let [leaving, arriving] = host::judge(snapshot, side, tuple, &facts, way, rules[0], met)?;
    if way.to_host && side == Side::Pod {
        let action = snapshot.settings.endpoint_to_host;
        if action == EndpointToHost::Drop {
            return Err(Denial { reason: DropReason::EndpointToHost, rules });
        }
    }
    // The node reaches its own pods whatever their policies say, as the kubelet needs it.
    let from_own_host = side == Side::Host && snapshot.is_own(tuple.src);
    if let Some(index) = way.dst_pod
        && !from_own_host
    {
        let (rule, verdict) = decide(snapshot, index, Direction::Ingress, &facts, met);
        rules[1] = rule;
        verdict.map_err(|reason| Denial { reason, rules })?;
    }
    // Where a pod is an end, its policy is what is shown.
    let shown = |pod, host| if pod == 0 { host } else { pod };
    Ok([shown(rules[0], leaving), shown(rules[1], arriving)])
}

/// What decides at a pod, and how.
fn decide(
    snapshot: &Snapshot,
    index: u32,
    direction: Direction,
    facts: &PacketFacts,
    met: &mut Met,
) -> (u32, Result<(), DropReason>) {
    let Some(workload) = snapshot.workload(index) else {
        return (0, Err(DropReason::PolicyMissing));
    };
    let decision = snapshot.classifier.decide(&workload.policy, direction, facts);
    note(met, &decision, direction);
    let allowed = decision.allowed();
    (decision.rule_id(), if allowed { Ok(()) } else { Err(decision.drop_reason()) })
}

/// Adds what Log rules a list had to what was met. More than fit are left out.
pub(super) fn note(met: &mut Met, decision: &Decision<'_>, direction: Direction) {
    for rule in &decision.logged {
        let _left_out = met.try_push((*rule, direction == Direction::Ingress));
    }
}

/// What policies look at of a packet.
pub(crate) fn facts(tuple: &Tuple, icmp: (u8, u8)) -> PacketFacts {
    let has_ports = margay_wire::transport::has_ports(tuple.protocol);
    let is_icmp = matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6);
    PacketFacts {
        src: tuple.src,
        dst: tuple.dst,
        src_port: has_ports.then_some(tuple.src_port),
        dst_port: has_ports.then_some(tuple.dst_port),
        protocol: tuple.protocol,
        icmp: is_icmp.then_some((icmp.0, Some(icmp.1))),
        established: false,
    }
}
