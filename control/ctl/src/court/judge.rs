//! Who is asked about a flow, and what it comes to.

use std::net::SocketAddr;

use margay_model::Endpoint;
use margay_resources::conf::HostAction;
use margay_tables::classifier::{Direction, PacketFacts};

use super::flow::Flow;
use super::jury::Question;
use super::translate::Translation;
use super::verdict::{Answer, Fate, Side};
use super::world::{Party, World};

const ICMPV6: u8 = 58;

/// What is known of a flow before policies are asked.
#[derive(Debug)]
pub(super) struct Case<'c> {
    egress: Part<'c>,
    ingress: Part<'c>,
    /// Nothing answers there, or the pod's own host does not want it.
    refused: bool,
    backend: Option<SocketAddr>,
}

/// What one end has to say.
#[derive(Debug)]
enum Part<'c> {
    Known(Side),
    Asks(Question<'c>),
}

/// Hears a flow: services come first, then the source's egress policy and the destination's
/// ingress policy are to be asked about what came of it, both in any case.
pub(super) fn hear<'c>(world: &mut World<'c>, flow: &Flow) -> Case<'c> {
    let src = world.party(flow.src);
    let dst = world.party(flow.dst);
    match world.services.translate(flow, &src, &dst) {
        Translation::Refused => {
            let egress = egress(world, flow, &src, &dst);
            Case { egress, ingress: Part::Known(Side::NONE), refused: true, backend: None }
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
) -> Case<'c> {
    Case {
        egress: egress(world, flow, src, dst),
        ingress: ingress(world, flow, src, dst),
        refused: !host_accepts(world, flow, src, dst),
        backend,
    }
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

fn egress<'c>(world: &mut World<'c>, flow: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Part<'c> {
    match src.endpoint {
        Some(endpoint) if !is_private(src, dst) => {
            ask(world, endpoint, src, Direction::Egress, flow)
        }
        _ => Part::Known(Side::NONE),
    }
}

fn ingress<'c>(world: &mut World<'c>, flow: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Part<'c> {
    match dst.endpoint {
        Some(endpoint) if !is_private(src, dst) && !is_to_own_host(src, dst) => {
            ask(world, endpoint, dst, Direction::Ingress, flow)
        }
        _ => Part::Known(Side::NONE),
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

fn ask<'c>(
    world: &mut World<'c>,
    endpoint: &'c Endpoint,
    party: &Party<'c>,
    direction: Direction,
    flow: &Flow,
) -> Part<'c> {
    let is_ingress = direction == Direction::Ingress;
    if !party.is_pod && is_failsafe(world, party, is_ingress, flow) {
        return Part::Known(Side::without_policy(Fate::Allow));
    }
    Part::Asks(Question { endpoint, direction, facts: facts(flow) })
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

// === impl Case ===

impl<'c> Case<'c> {
    /// What policies are to be asked.
    pub(super) fn questions(&self) -> impl Iterator<Item = Question<'c>> {
        [&self.egress, &self.ingress].into_iter().filter_map(|part| match part {
            Part::Asks(question) => Some(*question),
            Part::Known(_) => None,
        })
    }

    /// The answer, with what policies said to each of the questions.
    pub(super) fn answer(self, said: &mut impl Iterator<Item = Side>) -> Answer {
        let mut side = |part| match part {
            Part::Known(side) => side,
            // There is an answer to each question; without one nothing is allowed.
            Part::Asks(_) => said.next().unwrap_or(Side::without_policy(Fate::Deny)),
        };
        let (egress, ingress) = (side(self.egress), side(self.ingress));
        let passes = egress.passes() && ingress.passes() && !self.refused;
        let verdict = if passes { Fate::Allow } else { Fate::Deny };
        Answer { verdict, egress, ingress, backend: self.backend }
    }
}
