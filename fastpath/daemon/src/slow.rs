//! The slow path's task: punts in from the workers, what the machines say out to the workers, the
//! kernel and the engine.
//!
//! It runs an engine of its own on what the slow path sends through the path again; frames that
//! leave it are given to a worker to send. The account is kept with the workers' counters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use margay_engine::batch::is_handed_on;
use margay_engine::counters::Counter;
use margay_engine::snapshot::{ARRIVAL_MAC_PREFIX, DeviceId, HopKey};
use margay_engine::{
    Counters, Engine, Fate, Frame, Ingress as From, PortId, Punt, Snapshot, Why, delivered,
};
use margay_model::flow::FlowTuple;
use margay_model::{DnsReading, DropReason, LocalNode, PuntReason};
use margay_slowpath as slow;
use margay_slowpath::dns::Fact;
use margay_slowpath::{Action, Injection, Past, SlowPath};
use margay_tables::addr::Tuple;
use margay_tables::flow::{Dir, FlowTable};
use margay_worker::{Injected, Link, Punted, Punts, clock};
use margay_xsk::program::{Exchange, HostFlow, HostFlowProgram};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::bell::Bell;

/// Room before a packet that runs through the engine again.
const HEADROOM: usize = 128;
/// How often one punt may come back to the slow path: cut, wait, cut again; more is a loop.
const ROUNDS: u32 = 4;
/// Punts handled before others have their turn.
const BURST: usize = 256;

/// What the control task tells the slow path.
pub(crate) enum Tell {
    /// The node changed.
    Node(Arc<LocalNode>),
    /// A next hop is known now.
    Resolved(PortId, IpAddr),
    /// A next hop does not answer.
    Unresolvable(PortId, IpAddr),
    /// A port is gone.
    PortGone(PortId),
    /// An address is gone: its flows end.
    Forget(IpAddr),
    /// What an answer of a name server said is in force.
    Learned(u64),
}

/// What the slow path asks of the control task.
pub(crate) enum Ask {
    /// Find out a next hop's Ethernet address.
    Neighbour {
        /// The port that it is behind.
        port: PortId,
        /// Its address.
        addr: IpAddr,
    },
    /// A router says that the way to a tunnel's far end takes less.
    PathMtu {
        /// The far end.
        peer: IpAddr,
        /// Bytes of IP packets that it takes.
        mtu: u16,
    },
    /// Put what a name server said in force, and say so.
    Learn {
        /// What to say.
        ticket: u64,
        /// What it said.
        facts: Vec<Fact>,
    },
}

/// The task.
pub(crate) struct Slow {
    pub(crate) machines: SlowPath,
    pub(crate) engine: Engine<'static>,
    pub(crate) table: &'static FlowTable,
    pub(crate) links: Arc<[Link]>,
    pub(crate) punts: Arc<Punts>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) host_flows: Arc<HostFlowProgram>,
    pub(crate) readings: Arc<Readings>,
    pub(crate) tell: mpsc::UnboundedReceiver<Tell>,
    pub(crate) ask: mpsc::UnboundedSender<Ask>,
}

/// What a packet is to the slow path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It was received, and this has become of it since.
    Received(Past),
    /// Of the node's making.
    Own,
}

/// What was found in messages between pods and name servers, by [`DnsReading`].
#[derive(Default)]
pub(crate) struct Readings([Counter; DnsReading::COUNT]);

// === impl Kind ===

impl Kind {
    fn past(self) -> Past {
        if let Self::Received(past) = self { past } else { Past::default() }
    }
}

// === impl Slow ===

impl Slow {
    /// Runs until the control task is gone.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        let bell = Bell::new(&self.punts)?;
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        self.engine.sleep();
        let mut more = false;
        loop {
            // News and time first: a flood of punts must not keep either waiting.
            tokio::select! {
                biased;
                told = self.tell.recv() => match told {
                    Some(told) => self.told(told),
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    let actions = self.machines.tick(now_ms());
                    self.act(actions, 0);
                    more = true;
                }
                _ = seconds.tick() => {
                    self.engine.wake();
                    self.release_exchanges();
                }
                () = tokio::task::yield_now(), if more => more = self.burst(),
                rung = bell.rung(), if !more => {
                    rung?;
                    more = true;
                }
            }
            self.engine.sleep();
        }
    }

    /// Handles waiting punts; whether there may be more.
    fn burst(&mut self) -> bool {
        self.engine.wake();
        for _ in 0..BURST {
            let Some(Punted { punt, bytes }) = self.punts.pop() else { return false };
            self.handle(punt, bytes, Kind::Received(Past::default()), 0);
        }
        true
    }

    fn told(&mut self, told: Tell) {
        let actions = match told {
            Tell::Node(node) => {
                self.machines.set_node(node);
                Vec::new()
            }
            Tell::Resolved(port, addr) => self.machines.resolved(port.0.into(), addr),
            Tell::Unresolvable(port, addr) => {
                self.machines.unresolvable(now_ms(), port.0.into(), addr)
            }
            Tell::Learned(ticket) => self.machines.learned(ticket),
            Tell::PortGone(port) => self.machines.port_gone(port.0.into()),
            Tell::Forget(addr) => {
                let ended = self.engine.forget(addr.into());
                debug!(%addr, ended, "flows ended with their pod");
                Vec::new()
            }
        };
        self.act(actions, 0);
    }

    /// Has a machine answer a punt.
    fn handle(&mut self, punt: Punt, bytes: Vec<u8>, kind: Kind, round: u32) {
        let reason = punt.why.reason();
        if round > ROUNDS {
            return self.end(reason, Some(DropReason::PuntRefused));
        }
        if punt.why == Why::Portless {
            return self.handle_portless(punt, bytes, kind, round);
        }
        let Some(request) = self.request(&punt, &bytes) else {
            return self.end(reason, Some(DropReason::PuntRefused));
        };
        let ingress = match (punt.port, punt.tunneled) {
            _ if kind == Kind::Own => slow::Ingress::Own,
            // Its sender is outside, where nobody knows the tunnel's address.
            (port, true) if is_about_a_client(punt.why) && is_handed_on(&bytes) => {
                slow::Ingress::Port(port.0.into())
            }
            (port, true) => slow::Ingress::Tunnel(port.0.into(), self.tunnel_kind()),
            (port, false) => slow::Ingress::Port(port.0.into()),
        };
        let ip_start = match punt.why {
            Why::Fragment { ip, .. } => ip.into(),
            _ => margay_wire::ethernet::LEN,
        };
        let ours = punt.why == Why::IcmpError && self.for_the_host(&bytes);
        let copy =
            ours.then(|| bytes.get(margay_wire::ethernet::LEN..).unwrap_or_default().to_vec());
        let table = self.table;
        let flows = |tuple: &FlowTuple| delivered(table, &(*tuple).into()).map(FlowTuple::from);
        let punt = slow::Punt { ingress, past: kind.past(), frame: bytes, ip_start, request };
        let mut actions = self.machines.handle(now_ms(), punt, &flows);
        // An error about nothing of ours, addressed to the node, is the node's.
        if let Some(packet) = copy
            && actions == [Action::Dropped(reason, DropReason::InvalidState)]
        {
            actions =
                vec![Action::Inject(reason, Injection::Own { packet }), Action::Consumed(reason)];
        }
        self.act(actions, round);
    }

    /// Has the answers to a packet without ports brought here before it goes on: they must not overtake
    /// that. Where the kernel speaks to that end itself, or too many do, the connection is none.
    fn handle_portless(&mut self, punt: Punt, bytes: Vec<u8>, kind: Kind, round: u32) {
        let reason = punt.why.reason();
        let quiet = u64::from(self.snapshots.borrow().settings.timeouts.generic) * 1_000_000;
        let since = clock::moment().ns.saturating_sub(quiet);
        let exchange = self.answer_to(&punt, &bytes).map(|answer| exchange(&answer.into()));
        let claimed = exchange.map_or(Ok(false), |e| self.host_flows.claim(e, since));
        if !claimed.unwrap_or_else(|error| {
            warn!(%error, "cannot steer answers of a protocol without ports");
            false
        }) {
            let snapshot = self.snapshots.borrow().clone();
            in_frame(&punt, &bytes, |frame| self.engine.take_back(&snapshot, frame));
            return self.end(reason, Some(DropReason::SnatExhausted));
        }
        self.counters().injected(reason);
        self.counters().consumed(reason);
        self.run_again(came_from(&punt), bytes, kind, round);
    }

    /// Leaves to the kernel what is of connections without ports that have ended.
    fn release_exchanges(&self) {
        let lives = |exchange: &Exchange| {
            let answer = Tuple {
                src: exchange.far.into(),
                dst: exchange.near.into(),
                protocol: exchange.protocol,
                ..Tuple::default()
            };
            let flow = self.table.lookup(&answer, self.table.hash(&answer));
            flow.is_some_and(|flow| flow.dir() == Dir::Reply && flow.rewrite().dst != answer.dst)
        };
        if let Err(error) = self.host_flows.release(lives) {
            warn!(%error, "answers of a protocol without ports stay steered");
        }
    }

    /// The engine's words in the slow path's.
    fn request(&self, punt: &Punt, bytes: &[u8]) -> Option<slow::Request> {
        use slow::Request;
        Some(match punt.why {
            Why::Arp => Request::Arp,
            Why::Ndisc => Request::Ndisc,
            Why::TtlExpired => Request::TtlExpired,
            Why::TooBig { mtu } => Request::TooBig { mtu },
            Why::Fragment { egress, mtu, .. } => Request::Fragment { egress: egress.0.into(), mtu },
            Why::Reassemble => Request::Reassemble,
            Why::Unreachable { host: true } => Request::Unreachable(slow::Unreachable::Host),
            Why::Unreachable { host: false } => Request::Unreachable(slow::Unreachable::Net),
            Why::Reject => Request::Reject,
            Why::ConnectionLimit => Request::ConnectionLimit,
            Why::Neighbour(id) => {
                let snapshot = self.snapshots.borrow().clone();
                let hop = snapshot.adjacency(id)?;
                let addr = match hop.neighbour {
                    Some(addr) => addr.into(),
                    // The packet is addressed to its next hop once it is translated.
                    None => match self.answer_to(punt, bytes) {
                        Some(answer) => answer.src.into(),
                        None => slow::packet::IpView::parse(bytes.get(14..)?)?.dst,
                    },
                };
                Request::Neighbour { egress: hop.port.0.into(), hop: addr }
            }
            Why::IcmpError => {
                let quoted = slow::icmp_related::quoted_ends(bytes.get(14..)?);
                let tunnel = quoted.is_some_and(|(src, dst)| {
                    self.snapshots.borrow().hears_of_tunnel(punt, src.into(), dst.into())
                });
                Request::IcmpError { tunnel }
            }
            Why::HostFlow => Request::HostFlow(self.answer_to(punt, bytes)?.into()),
            // Handled before.
            Why::Portless => return None,
            Why::Dns => {
                let snapshot = self.snapshots.borrow();
                let (tuple, from_client) =
                    in_frame(punt, bytes, |frame| self.engine.conversation(&snapshot, frame))?;
                Request::Dns { conversation: tuple.into(), from_client }
            }
        })
    }

    /// The tuple of answers to a frame.
    fn answer_to(&self, punt: &Punt, bytes: &[u8]) -> Option<Tuple> {
        let snapshot = self.snapshots.borrow();
        in_frame(punt, bytes, |frame| self.engine.answer_to(&snapshot, frame))
    }

    /// Errors about packets out of a tunnel carry the tunnel's address: of the encapsulation that
    /// this node has one for.
    fn tunnel_kind(&self) -> margay_model::Encap {
        let snapshot = self.snapshots.borrow();
        let vxlan = |hop: &margay_engine::snapshot::Adjacency| matches!(hop.key, HopKey::Vxlan(..));
        if snapshot.adjacencies.iter().any(vxlan) {
            margay_model::Encap::Vxlan
        } else {
            margay_model::Encap::Ipip
        }
    }

    fn for_the_host(&self, bytes: &[u8]) -> bool {
        let view = bytes.get(14..).and_then(slow::packet::IpView::parse);
        view.is_some_and(|view| self.snapshots.borrow().is_own(view.dst.into()))
    }

    fn act(&mut self, actions: Vec<Action>, round: u32) {
        for action in actions {
            match action {
                Action::Inject(reason, injection) => self.inject(reason, injection, round),
                Action::Consumed(reason) => self.end(reason, None),
                Action::Dropped(reason, why) => self.end(reason, Some(why)),
                Action::ResolveNeighbour { egress, hop } => {
                    let port = PortId(u16::try_from(egress).unwrap_or(u16::MAX));
                    let _ = self.ask.send(Ask::Neighbour { port, addr: hop });
                }
                Action::SteerHostFlow(tuple) => self.steer(&tuple),
                Action::Read(reading) => self.readings.count(reading),
                Action::Learn { ticket, facts } => {
                    let _ = self.ask.send(Ask::Learn { ticket, facts });
                }
                Action::PathMtu { peer, mtu } => {
                    let _ = self.ask.send(Ask::PathMtu { peer, mtu });
                }
            }
        }
    }

    fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    /// Accounts for the end of a punt: it is consumed. One that is refused enters the dataplane
    /// again, only to be dropped there, so that the drop is seen and the account stays even.
    fn end(&self, reason: PuntReason, why: Option<DropReason>) {
        self.counters().consumed(reason);
        if let Some(why) = why {
            self.counters().injected(reason);
            self.counters().dropped(why);
        }
    }

    fn steer(&self, tuple: &FlowTuple) {
        if let Err(error) = self.host_flows.add(host_flow(tuple)) {
            warn!(%error, "cannot steer the answers of a host backend");
        }
    }

    fn inject(&mut self, reason: PuntReason, injection: Injection, round: u32) {
        match injection {
            Injection::Send { port, frame } => {
                self.send(reason, PortId(u16::try_from(port).unwrap_or(u16::MAX)), frame);
            }
            Injection::Own { packet } => {
                self.counters().injected(reason);
                self.run_again(From::Own, packet, Kind::Own, round);
            }
            Injection::Again { ingress, frame, past } => {
                self.counters().injected(reason);
                let port = |port: u32| PortId(u16::try_from(port).unwrap_or(u16::MAX));
                let from = match ingress {
                    slow::Ingress::Port(id) => From::Port(port(id)),
                    slow::Ingress::Tunnel(id, _) => From::Tunnel(port(id)),
                    slow::Ingress::Own => From::Own,
                };
                let kind = if from == From::Own { Kind::Own } else { Kind::Received(past) };
                self.run_again(from, frame, kind, round);
            }
        }
    }

    /// Runs one frame through the engine, and does what it says.
    fn run_again(&mut self, from: From, bytes: Vec<u8>, kind: Kind, round: u32) {
        let snapshot = self.snapshots.borrow().clone();
        let (own, Past { reassembled, read }) = (kind == Kind::Own, kind.past());
        let room = if own { HEADROOM + margay_wire::ethernet::LEN } else { HEADROOM };
        let start = if own { room - margay_wire::ethernet::LEN } else { room };
        let mut chunk = vec![0; room];
        chunk.extend_from_slice(&bytes);
        let len = chunk.len() - start;
        let mut frame = Frame { chunk: &mut chunk, start, len, ingress: from, reassembled, read };
        let now = clock::moment();
        let fate = self.engine.run_again(&snapshot, now, &mut frame);
        let out = frame.bytes().to_vec();
        match fate {
            Fate::Forward(port) => self.give(port, 0, out),
            Fate::Later(port, delay) => self.give(port, now.ns + u64::from(delay), out),
            Fate::Drop(why) => self.counters().dropped(why),
            Fate::Punt(punt) => {
                self.counters().punted(punt.why.reason());
                self.handle(punt, out, kind, round + 1);
            }
        }
    }

    /// Has a finished frame sent when it is due; it was counted as injected already.
    fn give(&self, port: PortId, due: u64, bytes: Vec<u8>) {
        if self.worker_of(port).inject(Injected { port, due, bytes }).is_err() {
            self.counters().dropped(DropReason::HandoffFull);
        }
    }

    /// Has a frame of the slow path's making sent, from the address that its port sends by: on the
    /// trunk that is what names the pod. A piece of what an uplink's host endpoint has let in says
    /// already where it arrives.
    fn send(&self, reason: PuntReason, port: PortId, mut bytes: Vec<u8>) {
        self.counters().injected(reason);
        let mac = self.snapshots.borrow().port(port).map(|port| port.mac);
        if let (Some(mac), Some(source)) = (mac, bytes.get_mut(6..12))
            && !(port == PortId::HOST && source.starts_with(&ARRIVAL_MAC_PREFIX))
        {
            source.copy_from_slice(&mac);
        }
        self.give(port, 0, bytes);
    }

    /// The worker that sends for a port: the first has a queue of every device with more than one.
    fn worker_of(&self, port: PortId) -> &Link {
        let snapshot = self.snapshots.borrow();
        let device = snapshot.port(port).map_or(DeviceId::TRUNK, |port| port.device);
        let number =
            if device == DeviceId::TRUNK { usize::from(port.0) % self.links.len() } else { 0 };
        &self.links[number]
    }
}

/// Whether the answer to a punt is an error for who sent its packet.
fn is_about_a_client(why: Why) -> bool {
    matches!(why, Why::TtlExpired | Why::TooBig { .. } | Why::Unreachable { .. })
}

/// Has the engine look at a copy of a punted frame.
fn in_frame<T>(punt: &Punt, bytes: &[u8], look: impl FnOnce(&mut Frame<'_>) -> T) -> T {
    let mut chunk = bytes.to_vec();
    let (start, len) = (0, chunk.len());
    look(&mut Frame::new(&mut chunk, start, len, came_from(punt)))
}

/// Where the engine had a punted frame from.
fn came_from(punt: &Punt) -> From {
    if punt.tunneled { From::Tunnel(punt.port) } else { From::Port(punt.port) }
}

// === impl Readings ===

impl Readings {
    fn count(&self, reading: DnsReading) {
        if let Some(counter) = self.0.get(reading as usize) {
            counter.add(1);
        }
    }

    /// How many of each were found.
    pub(crate) fn all(&self) -> impl Iterator<Item = (DnsReading, u64)> {
        DnsReading::ALL.iter().zip(&self.0).map(|(reading, counter)| (*reading, counter.get()))
    }
}

/// What answers with this tuple are of.
pub(crate) fn exchange(answer: &FlowTuple) -> Exchange {
    Exchange { protocol: answer.protocol, near: answer.dst, far: answer.src }
}

/// The kernel's packets with this tuple.
pub(crate) fn host_flow(tuple: &FlowTuple) -> HostFlow {
    HostFlow {
        protocol: tuple.protocol,
        source: SocketAddr::new(tuple.src, tuple.src_port),
        destination: SocketAddr::new(tuple.dst, tuple.dst_port),
    }
}

fn now_ms() -> u64 {
    clock::now_ms()
}
