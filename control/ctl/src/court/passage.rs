//! The host endpoints that a flow passes between its ends: by which interfaces of which nodes it goes,
//! as far as the datastore tells.
//!
//! A flow goes from the sender's node by the node whose port it asked for, if it did, to the
//! receiver's. Where the sender is outside it comes in there by the interface that has the address it
//! asked for, or else the node's own; between nodes a pool's encapsulation makes it a tunnel, which
//! only a host endpoint for all interfaces sees.

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{Encap, HostEndpoint};
use margay_tables::classifier::Direction;

use super::flow::Flow;
use super::judge::{early, facts, is_failsafe};
use super::jury::{Passage, Question, Whom};
use super::world::{Guard, Party, World};

/// A host endpoint that a flow passes.
#[derive(Clone, Debug)]
pub(crate) struct Gate<'c> {
    pub(crate) node: &'c Arc<str>,
    pub(crate) host: &'c HostEndpoint,
    pub(crate) direction: Direction,
    /// Whether it is passed in a tunnel.
    pub(crate) tunnel: bool,
    /// The flow as it arrives there, and as it is judged by policy for forwarded traffic.
    pub(crate) flows: [Flow; 2],
    pub(crate) questions: Vec<Question<'c>>,
}

/// The nodes that a flow passes.
struct Course<'c> {
    nodes: Vec<&'c Arc<str>>,
    /// The place of the one that translates the destination.
    translates: usize,
    /// Whether that one takes the source's place for the nodes behind it.
    masquerades: bool,
}

/// How a node is entered or left.
#[derive(Clone, Copy)]
struct Door<'c> {
    guard: Option<Guard<'c>>,
    tunnel: bool,
}

/// The host endpoints whose policies for what passes are to be asked about a flow: `asked` as its
/// sender addressed it, `flow` as a service led it, between these ends.
pub(super) fn gates<'c>(
    world: &mut World<'c>,
    asked: &Flow,
    flow: &Flow,
    src: &Party<'c>,
    dst: &Party<'c>,
) -> Vec<Gate<'c>> {
    if !world.has_doors() {
        return Vec::new();
    }
    let course = course(world, asked, src, dst);
    let mut gates = Vec::new();
    for (at, node) in course.nodes.iter().copied().enumerate() {
        let [arriving, judged] = course.flows(world, at, asked, flow);
        let last = at + 1 == course.nodes.len();
        if at > 0 || src.node.is_none() {
            let before = at.checked_sub(1).and_then(|before| course.nodes.get(before)).copied();
            let door = arrival(world, before, node, &arriving);
            if !(last && dst.guard.is_some() || last && dst.host.is_some() && !dst.is_pod) {
                gates.extend(entering(world, node, door, arriving, judged));
            }
        }
        let next = course.nodes.get(at + 1).copied();
        let leaves = !last || dst.node.is_none();
        let is_own = at == 0 && src.node.is_some() && !src.is_pod;
        if leaves && !is_own {
            gates.extend(leaving(node, exit(world, node, next, judged.dst), judged));
        }
    }
    gates
}

/// The flow as it comes to the receiver's node: services are translated there, or before.
pub(super) fn arriving(
    world: &World<'_>,
    asked: &Flow,
    flow: &Flow,
    src: &Party<'_>,
    dst: &Party<'_>,
) -> Flow {
    let is_there = || {
        let course = course(world, asked, src, dst);
        course.nodes.len() <= course.translates + 1
    };
    if dst.guard.is_some() && is_there() { *asked } else { *flow }
}

/// The host endpoint of the interface by which a node's own packet leaves.
pub(super) fn departure<'c>(
    world: &World<'c>,
    src: &Party<'c>,
    dst: &Party<'c>,
    flow: &Flow,
) -> Option<Guard<'c>> {
    let node = src.node?;
    let tunnel = dst.node.is_some_and(|to| is_tunnel(world, node, to, flow.dst));
    if tunnel { world.doors(node).everywhere } else { src.guard }
}

fn course<'c>(world: &World<'c>, asked: &Flow, src: &Party<'c>, dst: &Party<'c>) -> Course<'c> {
    let entry = world.party(asked.dst);
    let entry = entry.host.filter(|_| !entry.is_pod);
    let mut nodes: Vec<&Arc<str>> = [src.node, entry, dst.node].into_iter().flatten().collect();
    nodes.dedup();
    // Services are translated where they are asked for: by the sender's own node, but for a port of
    // another one.
    let translates = usize::from(src.node.is_some() && entry.is_some() && src.node != entry);
    // Outsiders become the node that sends them on to another one.
    let masquerades = src.node.is_none() || translates > 0;
    Course { nodes, translates, masquerades }
}

/// How a flow that comes from a node, or from outside, enters another one.
fn arrival<'c>(
    world: &World<'c>,
    from: Option<&'c Arc<str>>,
    node: &'c Arc<str>,
    flow: &Flow,
) -> Door<'c> {
    if from.is_some_and(|from| is_tunnel(world, from, node, flow.dst)) {
        return Door { guard: world.doors(node).everywhere, tunnel: true };
    }
    let asked = world.party(flow.dst);
    let own = asked.guard.filter(|_| asked.node == Some(node));
    Door { guard: own.or_else(|| uplink(world, node, flow.dst)), tunnel: false }
}

/// How a flow to an address leaves a node, for another one or for what is outside.
fn exit<'c>(
    world: &World<'c>,
    node: &'c Arc<str>,
    to: Option<&'c Arc<str>>,
    dst: IpAddr,
) -> Door<'c> {
    match to {
        Some(to) if is_tunnel(world, node, to, dst) => {
            Door { guard: world.doors(node).everywhere, tunnel: true }
        }
        _ => Door { guard: uplink(world, node, dst), tunnel: false },
    }
}

/// The host endpoint of the interface that has a node's own address: where nobody knows it, the
/// first for a single interface.
fn uplink<'c>(world: &World<'c>, node: &Arc<str>, family: IpAddr) -> Option<Guard<'c>> {
    let doors = world.doors(node);
    match world.compiler().main_address(node, family.is_ipv4()) {
        Some(address) => world.party(address).guard.or(doors.everywhere),
        None => doors.single.or(doors.everywhere),
    }
}

/// Whether packets to an address on a node travel in a tunnel.
fn is_tunnel(world: &World<'_>, from: &Arc<str>, to: &Arc<str>, dst: IpAddr) -> bool {
    from != to && world.compiler().encap_between(from, to, dst) != Encap::None
}

/// What is asked where a flow comes into a node that is not its end.
fn entering<'c>(
    world: &mut World<'c>,
    node: &'c Arc<str>,
    door: Door<'c>,
    arriving: Flow,
    judged: Flow,
) -> Option<Gate<'c>> {
    let host = door.guard?.host;
    let direction = Direction::Ingress;
    let to_node = world.party(arriving.dst).host == Some(node);
    // Tunnels and forwarded traffic have no failsafe ports; what asks for the node's own has.
    let is_open = to_node && is_failsafe(world, node, true, &arriving);
    let questions = if is_open { Vec::new() } else { early(host, direction, &arriving) };
    gate(node, door, direction, [arriving, judged], questions)
}

/// What is asked where a flow that is not the node's own leaves it.
fn leaving<'c>(node: &'c Arc<str>, door: Door<'c>, flow: Flow) -> Option<Gate<'c>> {
    gate(node, door, Direction::Egress, [flow; 2], Vec::new())
}

/// A gate with policy for forwarded traffic behind what is asked before; `None` without any.
fn gate<'c>(
    node: &'c Arc<str>,
    door: Door<'c>,
    direction: Direction,
    flows: [Flow; 2],
    mut questions: Vec<Question<'c>>,
) -> Option<Gate<'c>> {
    let host = door.guard?.host;
    if Passage::Forward.concerns(host, direction) {
        let whom = Whom::Passage(host, Passage::Forward);
        questions.push(Question { whom, direction, facts: facts(&flows[1]) });
    }
    let gate = Gate { node, host, direction, tunnel: door.tunnel, flows, questions };
    (!gate.questions.is_empty()).then_some(gate)
}

// === impl Course ===

impl Course<'_> {
    /// The flow as it arrives at a node, and as that one's policy for forwarded traffic sees it.
    fn flows(&self, world: &World<'_>, at: usize, asked: &Flow, flow: &Flow) -> [Flow; 2] {
        let translated = asked.dst != flow.dst || asked.dst_port != flow.dst_port;
        let by = self.nodes.get(self.translates).copied().filter(|_| translated);
        let node = by.filter(|_| at > self.translates && self.masquerades);
        let address = node.and_then(|node| world.compiler().main_address(node, flow.src.is_ipv4()));
        let src = address.unwrap_or(flow.src);
        let of = |translated: bool| Flow { src, ..if translated { *flow } else { *asked } };
        [of(at > self.translates), of(at >= self.translates)]
    }
}

// === impl Gate ===

impl Gate<'_> {
    /// The direction from the node's view.
    pub(crate) fn word(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}
