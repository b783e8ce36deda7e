//! Hands each request to its machine and keeps the account.

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::flow::FlowTuple;
use margay_model::node::LocalNode;
use margay_model::reason::{DropReason, PuntReason};

use crate::action::{Action, Injection};
use crate::bucket::Buckets;
use crate::dns::Dns;
use crate::icmp_error::Problem;
use crate::icmp_related::Related;
use crate::neighbours::{Held, Neighbours};
use crate::packet::IpView;
use crate::punt::{Ingress, Past, PortId, Punt, Request};
use crate::reassembly::{Progress, Reassembly};
use crate::reject::Refusal;
use crate::{
    arp, fragment, icmp_error, icmp_related, ndisc, neighbours, packet, reassembly, reject,
};

/// What the slow path is given at start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// This node: source addresses of errors and their rate.
    pub node: Arc<LocalNode>,
    /// Bounds of memory and time.
    pub limits: Limits,
}

/// Bounds of memory and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams in pieces.
    pub reassembly: reassembly::Limits,
    /// Packets that wait for a next hop.
    pub neighbours: neighbours::Limits,
    /// ARP and neighbour discovery answers a second for each port.
    pub answers_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reassembly: reassembly::Limits::default(),
            neighbours: neighbours::Limits::default(),
            answers_per_second: 200,
        }
    }
}

/// The slow path of one node. See [`Action`] for the account it keeps.
#[derive(Debug)]
pub struct SlowPath {
    node: Arc<LocalNode>,
    answers: Buckets,
    errors: Buckets,
    reassembly: Reassembly,
    neighbours: Neighbours,
    dns: Dns,
    /// Identification of the next IPv6 datagram that is cut here.
    next_ident: u32,
}

// === impl SlowPath ===

impl SlowPath {
    /// A slow path that holds nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            answers: Buckets::new(config.limits.answers_per_second),
            errors: Buckets::new(config.node.settings.icmp_errors_per_second),
            reassembly: Reassembly::new(config.limits.reassembly),
            neighbours: Neighbours::new(config.limits.neighbours),
            dns: Dns::new(config.node.settings.dns.max_hold),
            node: config.node,
            next_ident: 1,
        }
    }

    /// Replaces what is known of this node.
    pub fn set_node(&mut self, node: Arc<LocalNode>) {
        self.errors.set_rate(node.settings.icmp_errors_per_second);
        self.dns.set_max_hold(node.settings.dns.max_hold);
        self.node = node;
    }

    /// Forgets a port that is gone; what waits for it or came from it ends as dropped.
    pub fn port_gone(&mut self, port: PortId) -> Vec<Action> {
        self.answers.forget(port);
        self.errors.forget(port);
        let mut out = Vec::new();
        let pieces = self.reassembly.port_gone(port);
        dropped(&mut out, PuntReason::Reassemble, DropReason::PortDown, pieces);
        let waiting = self.neighbours.port_gone(port).len();
        dropped(&mut out, PuntReason::Neighbour, DropReason::PortDown, waiting);
        out
    }

    /// Answers one punt. `now_ms` never goes back. `flows` tells of the tuple that an answer
    /// would arrive with the one it leaves with (the same where nothing is translated), and `None`
    /// where no packet that it would answer has left.
    pub fn handle(
        &mut self,
        now_ms: u64,
        punt: Punt,
        flows: &dyn Fn(&FlowTuple) -> Option<FlowTuple>,
    ) -> Vec<Action> {
        let mut out = Vec::new();
        match punt.request {
            Request::Arp => self.answer(now_ms, &punt, arp::answer(punt.packet()), &mut out),
            Request::Ndisc => {
                let answer = ndisc::answer(punt.packet(), packet::source_mac(&punt.frame));
                self.answer(now_ms, &punt, answer, &mut out);
            }
            Request::TtlExpired => self.error(now_ms, &punt, Problem::TtlExpired, &mut out),
            Request::TooBig { mtu } => self.error(now_ms, &punt, Problem::TooBig(mtu), &mut out),
            Request::Unreachable(why) => {
                self.error(now_ms, &punt, Problem::Unreachable(why), &mut out);
            }
            Request::Reject => self.reject(now_ms, &punt, &mut out),
            Request::ConnectionLimit => refuse_connection(&punt, &mut out),
            Request::Fragment { egress, mtu } => self.fragment(&punt, egress, mtu, &mut out),
            Request::Reassemble => self.reassemble(now_ms, &punt, &mut out),
            Request::Neighbour { egress, hop } => {
                self.hold(now_ms, punt, egress, hop, &mut out);
            }
            Request::IcmpError { tunnel } => {
                let vxlan_port = tunnel.then_some(self.node.settings.vxlan_port);
                let answer = icmp_related::translate(punt.packet(), vxlan_port, flows);
                related(answer, &mut out);
            }
            Request::HostFlow(tuple) => {
                // Steered first: the kernel's answer must not overtake the steering.
                out.push(Action::SteerHostFlow(tuple));
                go_on(punt, &mut out);
            }
            // Pods have static addresses and routes: nobody here answers.
            Request::Dhcp => out.push(Action::Consumed(PuntReason::Dhcp)),
            Request::Dns { .. } => self.dns.read(now_ms, punt, &mut out),
        }
        out
    }

    /// A next hop has an Ethernet address: what waited for it goes on.
    pub fn resolved(&mut self, egress: PortId, hop: IpAddr) -> Vec<Action> {
        let mut out = Vec::new();
        for punt in self.neighbours.release(egress, hop) {
            go_on(punt, &mut out);
        }
        out
    }

    /// A next hop does not answer, as the kernel says: what waited for it is dropped and its
    /// senders are told.
    pub fn unresolvable(&mut self, now_ms: u64, egress: PortId, hop: IpAddr) -> Vec<Action> {
        let held = self.neighbours.release(egress, hop);
        self.give_up(now_ms, held)
    }

    /// What an answer said is in force: the answer goes on.
    pub fn learned(&mut self, ticket: u64) -> Vec<Action> {
        self.dns.learned(ticket)
    }

    /// Ends what has waited too long. To be called several times a second.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Action> {
        let held = self.neighbours.expire(now_ms);
        let mut out = self.give_up(now_ms, held);
        self.give_up_pieces(now_ms, &mut out);
        self.dns.expire(now_ms, &mut out);
        out
    }

    /// How many packets wait: fragments, packets whose next hop is not resolved, answers whose
    /// addresses are not in force.
    pub fn waiting(&self) -> usize {
        self.reassembly.pieces() + self.neighbours.len() + self.dns.held()
    }

    fn answer(&mut self, now_ms: u64, punt: &Punt, answer: Option<Vec<u8>>, out: &mut Vec<Action>) {
        let reason = punt.request.reason();
        let (Some(frame), Some(port)) = (answer, punt.ingress.port()) else {
            return out.push(Action::Consumed(reason));
        };
        if !self.answers.take(port, now_ms) {
            return out.push(Action::Dropped(reason, DropReason::RateLimited));
        }
        out.push(Action::Inject(reason, Injection::Send { port, frame }));
        out.push(Action::Consumed(reason));
    }

    fn error(&mut self, now_ms: u64, punt: &Punt, problem: Problem, out: &mut Vec<Action>) {
        let reason = punt.request.reason();
        match self.build_error(now_ms, punt, problem) {
            Ok(packet) => {
                out.push(Action::Inject(reason, Injection::Own { packet }));
                out.push(Action::Consumed(reason));
            }
            Err(why) => out.push(Action::Dropped(reason, why)),
        }
    }

    /// Tells the sender of a packet that is dropped, where he may be told.
    fn tell(&mut self, now_ms: u64, punt: &Punt, problem: Problem, out: &mut Vec<Action>) {
        if let Ok(packet) = self.build_error(now_ms, punt, problem) {
            out.push(Action::Inject(punt.request.reason(), Injection::Own { packet }));
        }
    }

    /// The error, or why none is sent.
    fn build_error(
        &mut self,
        now_ms: u64,
        punt: &Punt,
        problem: Problem,
    ) -> Result<Vec<u8>, DropReason> {
        let refused = problem.refused();
        // The node's own packets have nobody to tell; the kernel finds out by its own timers.
        let port = punt.ingress.port().ok_or(refused)?;
        let view = IpView::parse(punt.packet()).ok_or(DropReason::Malformed)?;
        if icmp_error::sent_to_many(&punt.frame) || !icmp_error::may_answer(&view, problem) {
            return Err(refused);
        }
        let source = icmp_error::source(&self.node, punt.ingress, view.src).ok_or(refused)?;
        if !self.errors.take(port, now_ms) {
            return Err(DropReason::RateLimited);
        }
        icmp_error::build(problem, source, &view).ok_or(refused)
    }

    fn reject(&mut self, now_ms: u64, punt: &Punt, out: &mut Vec<Action>) {
        let reason = PuntReason::Reject;
        let Some(view) = IpView::parse(punt.packet()) else {
            return out.push(Action::Dropped(reason, DropReason::Malformed));
        };
        let packet = match reject::refuse(&view) {
            Refusal::Silent => return out.push(Action::Consumed(reason)),
            Refusal::Impossible(why) => return out.push(Action::Dropped(reason, why)),
            Refusal::Reset(packet) => packet,
            Refusal::Unreachable(packet) => {
                if !punt.ingress.port().is_none_or(|port| self.errors.take(port, now_ms)) {
                    return out.push(Action::Dropped(reason, DropReason::RateLimited));
                }
                packet
            }
        };
        out.push(Action::Inject(reason, Injection::Own { packet }));
        out.push(Action::Consumed(reason));
    }

    fn fragment(&mut self, punt: &Punt, egress: PortId, mtu: u16, out: &mut Vec<Action>) {
        let reason = PuntReason::Fragment;
        let ident = self.next_ident;
        self.next_ident = ident.wrapping_add(1);
        match fragment::cut(&punt.frame, punt.ip_start, mtu, ident) {
            Ok(frames) => {
                out.extend(
                    frames.into_iter().map(|frame| {
                        Action::Inject(reason, Injection::Send { port: egress, frame })
                    }),
                );
                out.push(Action::Consumed(reason));
            }
            Err(why) => out.push(Action::Dropped(reason, why)),
        }
    }

    fn reassemble(&mut self, now_ms: u64, punt: &Punt, out: &mut Vec<Action>) {
        let reason = PuntReason::Reassemble;
        self.give_up_pieces(now_ms, out);
        let outcome = self.reassembly.add(now_ms, punt);
        match outcome.progress {
            Progress::Waiting => {}
            Progress::Unfit { pointer } => {
                self.tell(now_ms, punt, Problem::Malformed { pointer }, out);
            }
            Progress::Duplicate => out.push(Action::Consumed(reason)),
            Progress::Whole { frame, pieces } => {
                let past = Past { reassembled: true, ..punt.past };
                let again = Injection::Again { ingress: punt.ingress, frame, past };
                out.push(Action::Inject(reason, again));
                out.extend((0..pieces).map(|_| Action::Consumed(reason)));
            }
        }
        dropped(out, reason, DropReason::Fragment, outcome.dropped);
    }

    /// Datagrams of which a piece has not come in time.
    fn give_up_pieces(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let expired = self.reassembly.expire(now_ms);
        for first in expired.first {
            self.tell(now_ms, &first, Problem::Incomplete, out);
        }
        dropped(out, PuntReason::Reassemble, DropReason::Fragment, expired.pieces);
    }

    fn hold(
        &mut self,
        now_ms: u64,
        punt: Punt,
        egress: PortId,
        hop: IpAddr,
        out: &mut Vec<Action>,
    ) {
        let Held { dropped: lost, ask } = self.neighbours.hold(now_ms, egress, hop, punt);
        dropped(out, PuntReason::Neighbour, DropReason::NeighbourUnresolved, lost);
        if ask {
            out.push(Action::ResolveNeighbour { egress, hop });
        }
    }

    fn give_up(&mut self, now_ms: u64, held: Vec<Punt>) -> Vec<Action> {
        let problem = Problem::Unreachable(crate::Unreachable::Host);
        let mut out = Vec::new();
        for punt in held {
            self.tell(now_ms, &punt, problem, &mut out);
            out.push(Action::Dropped(punt.request.reason(), DropReason::NeighbourUnresolved));
        }
        out
    }
}

/// A connection too many is dropped, and its sender told so by a reset.
fn refuse_connection(punt: &Punt, out: &mut Vec<Action>) {
    let reason = PuntReason::ConnectionLimit;
    if let Some(Refusal::Reset(packet)) = IpView::parse(punt.packet()).map(|v| reject::refuse(&v)) {
        out.push(Action::Inject(reason, Injection::Own { packet }));
    }
    out.push(Action::Dropped(reason, DropReason::ConnectionLimit));
}

/// The punted packet returns to the engine as it came.
fn go_on(punt: Punt, out: &mut Vec<Action>) {
    let reason = punt.request.reason();
    let injection = match punt.ingress {
        Ingress::Own => Injection::Own { packet: punt.packet().to_vec() },
        ingress => Injection::Again { ingress, frame: punt.frame, past: punt.past },
    };
    out.push(Action::Inject(reason, injection));
    out.push(Action::Consumed(reason));
}

fn related(answer: Related, out: &mut Vec<Action>) {
    let reason = PuntReason::IcmpError;
    match answer {
        Related::Forward(packet) => {
            out.push(Action::Inject(reason, Injection::Own { packet }));
            out.push(Action::Consumed(reason));
        }
        Related::PathMtu { peer, mtu } => {
            out.push(Action::PathMtu { peer, mtu });
            out.push(Action::Consumed(reason));
        }
        Related::Refused(why) => out.push(Action::Dropped(reason, why)),
    }
}

fn dropped(out: &mut Vec<Action>, reason: PuntReason, why: DropReason, count: usize) {
    out.extend((0..count).map(|_| Action::Dropped(reason, why)));
}
