//! Arrives: a packet whose ends are known. Leaves: allowed by the pods at both ends and by the host
//! endpoints between them, with the rules that said so.
//!
//! Drops: policy, policy_missing, endpoint_to_host. A denial is remembered for a moment, so that a
//! denied flood does not walk the whole order for each packet.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_model::node::EndpointToHost;
use margay_tables::addr::Tuple;
use margay_tables::classifier::{Direction, PacketFacts};
use margay_wire::protocol;

use super::{Way, compile_denial, host};
use crate::Engine;
use crate::batch::{Fate, Packet, Side};
use crate::path::parse::dropped;
use crate::snapshot::Snapshot;

/// Judges the packet at both ends.
pub(crate) fn policy(
    engine: &mut Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &mut Way,
) -> ControlFlow<Fate> {
    match judge(snapshot, packet.side, &way.to, packet.icmp, way) {
        Ok(rules) => {
            way.rules = rules;
            Continue(())
        }
        Err(reason) => {
            compile_denial(engine, snapshot, packet, reason);
            dropped(reason)
        }
    }
}

/// The rules by which both ends allow a connection, or why one does not. `tuple` is the first
/// packet's with its destination translated and its source as it was.
pub(crate) fn judge(
    snapshot: &Snapshot,
    side: Side,
    tuple: &Tuple,
    icmp: (u8, u8),
    way: &Way,
) -> Result<[u32; 2], DropReason> {
    let mut rules = [0; 2];
    // What a pod sends to itself is nobody else's business.
    if way.src_pod.is_some() && way.src_pod == way.dst_pod {
        return Ok(rules);
    }
    let facts = PacketFacts { established: way.established, ..facts(tuple, icmp) };
    if let Some(index) = way.src_pod {
        rules[0] = decide(snapshot, index, Direction::Egress, &facts)?;
    }
    let [leaving, arriving] = host::judge(snapshot, side, tuple, &facts, way)?;
    if way.to_host && side == Side::Pod {
        let action = snapshot.settings.endpoint_to_host;
        if action == EndpointToHost::Drop {
            return Err(DropReason::EndpointToHost);
        }
    }
    // The node reaches its own pods whatever their policies say, as the kubelet needs it.
    let from_own_host = side == Side::Host && snapshot.is_own(tuple.src);
    if let Some(index) = way.dst_pod
        && !from_own_host
    {
        rules[1] = decide(snapshot, index, Direction::Ingress, &facts)?;
    }
    // Where a pod is an end, its policy is what is shown.
    let shown = |pod, host| if pod == 0 { host } else { pod };
    Ok([shown(rules[0], leaving), shown(rules[1], arriving)])
}

fn decide(
    snapshot: &Snapshot,
    index: u32,
    direction: Direction,
    facts: &PacketFacts,
) -> Result<u32, DropReason> {
    let Some(workload) = snapshot.workload(index) else { return Err(DropReason::PolicyMissing) };
    let decision = snapshot.classifier.decide(&workload.policy, direction, facts);
    if decision.allowed() { Ok(decision.rule_id()) } else { Err(decision.drop_reason()) }
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
