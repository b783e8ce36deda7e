//! What both ends of a flow say.

use std::net::SocketAddr;

use margay_model::Endpoint;
use margay_resources::conf::HostAction;
use margay_tables::classifier::{Direction, PacketFacts, Verdict};

use super::flow::Flow;
use super::translate::Translation;
use super::verdict::{Answer, Fate, Side};
use super::world::{Party, World};

const ICMPV6: u8 = 58;

/// Judges a flow: services first, then the source's egress policy and the destination's ingress
/// policy on what came of it, both in any case.
pub(crate) fn judge<'c>(world: &mut World<'c>, flow: &Flow) -> Answer {
    let src = world.party(flow.src);
    let dst = world.party(flow.dst);
    match world.services.translate(flow, &src, &dst) {
        Translation::Refused => {
            let egress = egress(world, flow, &src, &dst);
            Answer { verdict: Fate::Deny, egress, ingress: Side::NONE, backend: None }
        }
        Translation::To(backend) => {
            let flow = Flow { dst: backend.ip(), dst_port: Some(backend.port()), ..*flow };
            let dst = world.party(flow.dst);
            both_ends(world, &flow, &src, &dst, Some(backend))
        }
        Translation::Unchanged => both_ends(world, flow, &src, &dst, None),
    }
}

fn both_ends<'c>(
    world: &mut World<'c>,
    flow: &Flow,
    src: &Party<'c>,
    dst: &Party<'c>,
    backend: Option<SocketAddr>,
) -> Answer {
    let egress = egress(world, flow, src, dst);
    let ingress = ingress(world, flow, src, dst);
    let passes = egress.passes() && ingress.passes() && host_accepts(world, flow, src, dst);
    let verdict = if passes { Fate::Allow } else { Fate::Deny };
    Answer { verdict, egress, ingress, backend }
}

/// What a pod sends to itself, and a node to its own pods, is nobody's business.
fn is_private(src: &Party<'_>, dst: &Party<'_>) -> bool {
    let same_pod =
        src.is_pod && dst.is_pod && src.endpoint.map(|e| &e.key) == dst.endpoint.map(|e| &e.key);
    same_pod || dst.is_pod && src.host.is_some() && src.host == dst.node
}

/// Whether a pod talks to the node it is on.
fn is_to_own_host(src: &Party<'_>, dst: &Party<'_>) -> bool {
    src.is_pod && !dst.is_pod && dst.host.is_some() && dst.host == src.node
}

fn egress<'c>(world: &mut World<'c>, flow: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Side {
    match src.endpoint {
        Some(endpoint) if !is_private(src, dst) => {
            decide(world, endpoint, src, Direction::Egress, flow)
        }
        _ => Side::NONE,
    }
}

fn ingress<'c>(world: &mut World<'c>, flow: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Side {
    match dst.endpoint {
        Some(endpoint) if !is_private(src, dst) && !is_to_own_host(src, dst) => {
            decide(world, endpoint, dst, Direction::Ingress, flow)
        }
        _ => Side::NONE,
    }
}

/// What its own host makes of a pod's packet after the pod's policy allowed it.
fn host_accepts(world: &mut World<'_>, flow: &Flow, src: &Party<'_>, dst: &Party<'_>) -> bool {
    let Some(node) = dst.host.filter(|_| is_to_own_host(src, dst)) else { return true };
    // Multicast listeners and neighbour discovery work in any case.
    let is_discovery = flow.protocol == ICMPV6
        && flow.icmp.is_some_and(|(kind, _)| matches!(kind, 130..=133 | 135 | 136));
    is_discovery || world.settings(node).default_endpoint_to_host_action != HostAction::Drop
}

fn decide<'c>(
    world: &mut World<'c>,
    endpoint: &'c Endpoint,
    party: &Party<'c>,
    direction: Direction,
    flow: &Flow,
) -> Side {
    let is_ingress = direction == Direction::Ingress;
    if !party.is_pod && is_failsafe(world, party, is_ingress, flow) {
        return Side::without_policy(Fate::Allow);
    }
    let compiler = world.compiler;
    let decision = world.decide(endpoint, direction, &facts(flow));
    let by_rule = decision.policy.zip(decision.rule);
    Side {
        verdict: match decision.verdict {
            Verdict::Allow => Fate::Allow,
            Verdict::Deny => Fate::Deny,
        },
        tier: decision.tier.cloned(),
        policy: by_rule.map(|(key, _)| key.clone()),
        rule: by_rule.map(|(key, rule)| compiler.rule_number(key, is_ingress, rule)),
    }
}

/// Whether the flow is one of those that keep a host reachable: no policy of a host endpoint is
/// asked about them.
fn is_failsafe(world: &mut World<'_>, party: &Party<'_>, is_ingress: bool, flow: &Flow) -> bool {
    let (Some(node), Some(port)) = (party.node, flow.dst_port) else { return false };
    let settings = world.settings(node);
    let (ports, far) = if is_ingress {
        (&settings.failsafe_inbound_host_ports, flow.src)
    } else {
        (&settings.failsafe_outbound_host_ports, flow.dst)
    };
    ports.iter().any(|open| {
        open.protocol.number() == flow.protocol
            && open.port == port
            && open.net.is_none_or(|net| net.contains(&far))
    })
}

fn facts(flow: &Flow) -> PacketFacts {
    PacketFacts {
        src: flow.src.into(),
        dst: flow.dst.into(),
        src_port: flow.src_port,
        dst_port: flow.dst_port,
        protocol: flow.protocol,
        icmp: flow.icmp,
    }
}
