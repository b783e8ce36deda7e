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
pub(crate) struct Case<'c> {
    /// What the source's end has to say.
    pub(crate) egress: Part<'c>,
    /// What the destination's end has to say.
    pub(crate) ingress: Part<'c>,
    /// Why it is denied whatever policies say.
    pub(crate) refused: Option<Refusal>,
    /// Where a service leads.
    pub(crate) backend: Option<SocketAddr>,
}

/// What one end has to say.
#[derive(Debug)]
pub(crate) enum Part<'c> {
    /// No policy is asked.
    Known(Side, Why),
    /// An endpoint's policies are asked.
    Asks(Question<'c>),
}

/// Why no policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The address belongs to no endpoint.
    NoEndpoint,
    /// A pod talks to itself.
    SamePod,
    /// A node talks to a pod that runs on it.
    FromOwnHost,
    /// A pod talks to the node that it runs on.
    ToOwnHost,
    /// One of the ports that keep a host reachable.
    Failsafe,
    /// The service leads nowhere.
    Nowhere,
}

/// Why a flow is denied whatever policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing answers at the service's address.
    Service,
    /// The pod's own host does not want it: `defaultEndpointToHostAction`.
    Host,
}

/// Hears a flow: services come first, then the source's egress policy and the destination's
/// ingress policy are to be asked about what came of it, both in any case.
pub(crate) fn hear<'c>(world: &mut World<'c>, flow: &Flow) -> Case<'c> {
    let src = world.party(flow.src);
    let dst = world.party(flow.dst);
    match world.services.translate(flow, &src, &dst) {
        Translation::Refused => {
            let egress = egress(world, flow, &src, &dst);
            let ingress = Part::Known(Side::NONE, Why::Nowhere);
            Case { egress, ingress, refused: Some(Refusal::Service), backend: None }
        }
        Translation::To(backend) => hear_at(world, flow, backend),
        Translation::Unchanged => both_ends(world, flow, &src, &dst, None),
    }
}

/// Hears a flow that a service sends to a backend.
pub(crate) fn hear_at<'c>(world: &mut World<'c>, flow: &Flow, backend: SocketAddr) -> Case<'c> {
    let flow = flow.to(backend);
    let (src, dst) = (world.party(flow.src), world.party(flow.dst));
    both_ends(world, &flow, &src, &dst, Some(backend))
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
        refused: (!host_accepts(world, flow, src, dst)).then_some(Refusal::Host),
        backend,
    }
}

/// What a pod sends to itself, and a node to its own pods, is nobody's business.
fn is_private(src: &Party<'_>, dst: &Party<'_>) -> Option<Why> {
    let same_pod =
        src.is_pod && dst.is_pod && src.endpoint.map(|e| &e.key) == dst.endpoint.map(|e| &e.key);
    let from_own_host = dst.is_pod && src.host.is_some() && src.host == dst.node;
    same_pod.then_some(Why::SamePod).or(from_own_host.then_some(Why::FromOwnHost))
}

/// Whether a pod talks to the node it is on.
fn is_to_own_host(src: &Party<'_>, dst: &Party<'_>) -> bool {
    src.is_pod && !dst.is_pod && dst.host.is_some() && dst.host == src.node
}

fn egress<'c>(world: &mut World<'c>, flow: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Part<'c> {
    match (src.endpoint, is_private(src, dst)) {
        (None, _) => Part::Known(Side::NONE, Why::NoEndpoint),
        (_, Some(why)) => Part::Known(Side::NONE, why),
        (Some(endpoint), None) => ask(world, endpoint, src, Direction::Egress, flow),
    }
}

fn ingress<'c>(world: &mut World<'c>, flow: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Part<'c> {
    match (dst.endpoint, is_private(src, dst)) {
        (_, Some(why)) => Part::Known(Side::NONE, why),
        _ if is_to_own_host(src, dst) => Part::Known(Side::NONE, Why::ToOwnHost),
        (None, _) => Part::Known(Side::NONE, Why::NoEndpoint),
        (Some(endpoint), None) => ask(world, endpoint, dst, Direction::Ingress, flow),
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
        return Part::Known(Side::without_policy(Fate::Allow), Why::Failsafe);
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
        established: false,
    }
}

// === impl Case ===

impl<'c> Case<'c> {
    /// What policies are to be asked.
    pub(crate) fn questions(&self) -> impl Iterator<Item = Question<'c>> {
        [&self.egress, &self.ingress].into_iter().filter_map(|part| match part {
            Part::Asks(question) => Some(*question),
            Part::Known(..) => None,
        })
    }

    /// The endpoints whose policies are to be asked, and whether that is about ingress.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (&'c Endpoint, bool)> {
        self.questions().map(|q| (q.endpoint, q.direction == Direction::Ingress))
    }

    /// The answer, with what policies said to each of the questions.
    pub(crate) fn answer(self, said: &mut impl Iterator<Item = Side>) -> Answer {
        let mut side = |part| match part {
            Part::Known(side, _) => side,
            // There is an answer to each question; without one nothing is allowed.
            Part::Asks(_) => said.next().unwrap_or(Side::without_policy(Fate::Deny)),
        };
        let (egress, ingress) = (side(self.egress), side(self.ingress));
        let passes = egress.passes() && ingress.passes() && self.refused.is_none();
        let verdict = if passes { Fate::Allow } else { Fate::Deny };
        Answer { verdict, egress, ingress, backend: self.backend }
    }
}
