//! Who is asked about a flow, and what it comes to.

use std::net::SocketAddr;
use std::sync::Arc;

use margay_model::{HostEndpoint, TierPolicies};
use margay_resources::conf::HostAction;
use margay_tables::classifier::{Direction, PacketFacts};

use super::flow::Flow;
use super::jury::{Passage, Question, Whom};
use super::passage::{self, Gate};
use super::translate::Translation;
use super::verdict::{Answer, Fate, PassageSide, Side};
use super::world::{Guard, Party, World};

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
    /// The host endpoints that it passes on the way, in order.
    pub(crate) gates: Vec<Gate<'c>>,
}

/// What one end has to say.
#[derive(Debug)]
pub(crate) enum Part<'c> {
    /// No policy is asked.
    Known(Side, Why),
    /// Policies are asked; the first that decide do.
    Asks(Vec<Question<'c>>),
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
    /// It leaves by a tunnel, and no host endpoint is for all interfaces.
    Tunnel,
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
            let refused = Some(Refusal::Service);
            Case { egress, ingress, refused, backend: None, gates: Vec::new() }
        }
        Translation::To(backend) => hear_at(world, flow, backend),
        Translation::Unchanged => both_ends(world, flow, flow, &src, &dst),
    }
}

/// Hears a flow that a service sends to a backend.
pub(crate) fn hear_at<'c>(world: &mut World<'c>, flow: &Flow, backend: SocketAddr) -> Case<'c> {
    let led = flow.to(backend);
    let (src, dst) = (world.party(led.src), world.party(led.dst));
    Case { backend: Some(backend), ..both_ends(world, flow, &led, &src, &dst) }
}

/// `asked` is the flow as its sender addressed it, `flow` what a service made of it.
fn both_ends<'c>(
    world: &mut World<'c>,
    asked: &Flow,
    flow: &Flow,
    src: &Party<'c>,
    dst: &Party<'c>,
) -> Case<'c> {
    let arriving = passage::arriving(world, asked, flow, src, dst);
    Case {
        egress: egress(world, flow, src, dst),
        ingress: ingress(world, &arriving, flow, src, dst),
        refused: (!host_accepts(world, flow, src, dst)).then_some(Refusal::Host),
        backend: None,
        gates: passage::gates(world, asked, flow, src, dst),
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
        (Some(endpoint), None) if src.is_pod => {
            let (whom, direction) = (Whom::End(endpoint), Direction::Egress);
            Part::Asks(vec![Question { whom, direction, facts: facts(flow) }])
        }
        (Some(_), None) => match passage::departure(world, src, dst, flow) {
            Some(guard) => ask_host(world, guard, src, Direction::Egress, flow, flow),
            None => Part::Known(Side::NONE, Why::Tunnel),
        },
    }
}

fn ingress<'c>(
    world: &mut World<'c>,
    arriving: &Flow,
    flow: &Flow,
    src: &Party<'c>,
    dst: &Party<'c>,
) -> Part<'c> {
    match (dst.endpoint, dst.guard, is_private(src, dst)) {
        (.., Some(why)) => Part::Known(Side::NONE, why),
        _ if is_to_own_host(src, dst) => Part::Known(Side::NONE, Why::ToOwnHost),
        (_, Some(guard), None) => ask_host(world, guard, dst, Direction::Ingress, arriving, flow),
        (Some(endpoint), None, None) => {
            let (whom, direction) = (Whom::End(endpoint), Direction::Ingress);
            Part::Asks(vec![Question { whom, direction, facts: facts(flow) }])
        }
        (None, ..) => Part::Known(Side::NONE, Why::NoEndpoint),
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

/// Asks a host endpoint about its node's own connections: untracked and pre-DNAT policies see them
/// as they arrive, and what they leave open is for the others.
fn ask_host<'c>(
    world: &mut World<'c>,
    guard: Guard<'c>,
    party: &Party<'c>,
    direction: Direction,
    arriving: &Flow,
    flow: &Flow,
) -> Part<'c> {
    let is_ingress = direction == Direction::Ingress;
    if party.node.is_some_and(|node| is_failsafe(world, node, is_ingress, arriving)) {
        return Part::Known(Side::without_policy(Fate::Allow), Why::Failsafe);
    }
    let mut questions = early(guard.host, direction, arriving);
    questions.push(Question { whom: Whom::End(guard.endpoint), direction, facts: facts(flow) });
    Part::Asks(questions)
}

/// What is asked before services are translated.
pub(super) fn early<'c>(
    host: &'c HostEndpoint,
    direction: Direction,
    arriving: &Flow,
) -> Vec<Question<'c>> {
    let passages = [Passage::Untracked, Passage::PreDnat].into_iter();
    let passages = passages.filter(|passage| passage.concerns(host, direction));
    let question = |passage| Question {
        whom: Whom::Passage(host, passage),
        direction,
        facts: facts(arriving),
    };
    passages.map(question).collect()
}

/// Whether the flow is one of those that keep a node reachable: no policy for its own connections
/// is asked about them.
pub(super) fn is_failsafe(
    world: &mut World<'_>,
    node: &Arc<str>,
    is_ingress: bool,
    flow: &Flow,
) -> bool {
    let Some(port) = flow.dst_port else { return false };
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

pub(super) fn facts(flow: &Flow) -> PacketFacts {
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
        let gates = self.gates.iter().map(|gate| &gate.questions[..]);
        let parts = [self.egress.questions(), self.ingress.questions()].into_iter().chain(gates);
        parts.flatten().copied()
    }

    /// The tiers that are to be asked, and whether that is about ingress.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (&'c [TierPolicies], bool)> {
        self.questions().map(|q| (q.whom.tiers(), q.direction == Direction::Ingress))
    }

    /// The answer, with what policies said to each of the questions. The host endpoints on the way
    /// are told of if they are `wanted`.
    pub(crate) fn answer(self, said: &mut impl Iterator<Item = Side>, wanted: bool) -> Answer {
        let mut side = |part| match part {
            Part::Known(side, _) => side,
            Part::Asks(questions) => first(&questions, said),
        };
        let (egress, ingress) = (side(self.egress), side(self.ingress));
        let passage = |gate: Gate<'c>| PassageSide {
            node: gate.node.clone(),
            host_endpoint: gate.host.key.clone(),
            direction: gate.word(),
            side: first(&gate.questions, said),
        };
        let passages: Vec<_> = self.gates.into_iter().map(passage).collect();
        let passes = egress.passes()
            && ingress.passes()
            && passages.iter().all(|passage| passage.side.passes())
            && self.refused.is_none();
        let verdict = if passes { Fate::Allow } else { Fate::Deny };
        let passages = wanted.then_some(passages);
        Answer { verdict, egress, ingress, backend: self.backend, passages }
    }
}

/// The first of the answers to questions that decides.
fn first(questions: &[Question<'_>], said: &mut impl Iterator<Item = Side>) -> Side {
    // There is an answer to each question; without one nothing is allowed.
    let mut answers =
        questions.iter().map(|_| said.next().unwrap_or(Side::without_policy(Fate::Deny)));
    let decided = answers.by_ref().find(|side| side.verdict != Fate::None);
    answers.for_each(drop);
    decided.unwrap_or(Side::NONE)
}

// === impl Part ===

impl<'c> Part<'c> {
    fn questions(&self) -> &[Question<'c>] {
        match self {
            Self::Asks(questions) => questions,
            Self::Known(..) => &[],
        }
    }
}
