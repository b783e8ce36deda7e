//! The steps taken: batches through the engine, punts through the slow path, what that injects
//! through the engine again, as the daemon wires them.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use margay_engine::snapshot::HopKey;
use margay_engine::{
    Batch, Counters, Engine, Fate, Frame, Ingress, PortId, Punt, Snapshot, Why, delivered,
};
use margay_model::flow::FlowTuple;
use margay_model::{DropReason, Encap, PuntReason};
use margay_slowpath as slow;
use margay_slowpath::{Action, Config, Injection, Past, SlowPath};
use margay_tables::addr::Tuple;
use margay_tables::flow::{FlowConfig, FlowTable, Journal, Region, Share};

use super::program::{Arrival, Step};
use super::scene::Scene;
use super::watch::{Account, Origin, Watch};
use crate::support::{HEADROOM, HOST, ingress};

const FLOWS: FlowConfig = FlowConfig { v4: 32, v6: 32, participants: 2, denial_share: 8 };

/// How often one packet may go from the slow path through the engine and back.
const ROUNDS: u32 = 4;

/// Ethernet's header.
const ETHERNET: usize = 14;

/// A node in one of its states.
pub(super) struct Node<'t> {
    scene: &'t mut Scene,
    table: &'t Arc<FlowTable>,
    engine: Engine<'t>,
    machines: SlowPath,
    now: u32,
    /// What arrived and was not run yet.
    batch: Vec<Arrival>,
    /// Whether every frame so far was as it should be.
    clean: bool,
    unresolved: Vec<(u32, IpAddr)>,
    tickets: Vec<u64>,
    left: Vec<(PortId, Vec<u8>)>,
    watch: Watch,
    account: Account,
}

/// What a frame of the slow path's is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Received(Past),
    Own,
}

// === impl Kind ===

impl Kind {
    fn past(self) -> Past {
        if let Self::Received(past) = self { past } else { Past::default() }
    }
}

/// Whether what happens is to be told on standard error, for who reads a crash.
static SHOW: LazyLock<bool> = LazyLock::new(|| std::env::var_os("MARGAY_FUZZ_SHOW").is_some());

thread_local! {
    static SCENE: RefCell<(Scene, Arc<Counters>)> = RefCell::new((Scene::new(), Arc::default()));
}

// === impl Node ===

impl Node<'_> {
    /// Gives a node in its first state, with no connections, to a function.
    pub(super) fn with_scene(program: impl FnOnce(Node<'_>)) {
        SCENE.with_borrow_mut(|(scene, counters)| {
            let bytes = FlowTable::required_bytes(&FLOWS).expect("a good configuration");
            let table = FlowTable::create(Region::heap(bytes), &FLOWS, 0x5eed, 1).expect("room");
            let table = Arc::new(table.with_journal(Journal::new(64)));
            let engine = Engine::new(&table, counters.clone()).expect("a seat");
            let node = scene.states[0].clone();
            program(Node {
                scene,
                table: &table,
                engine,
                machines: SlowPath::new(Config { node, ..Config::default() }),
                now: u32::MAX - 200_000,
                batch: Vec::new(),
                clean: true,
                unresolved: Vec::new(),
                tickets: Vec::new(),
                left: Vec::new(),
                watch: Watch::default(),
                account: Account::of(counters),
            });
        });
    }

    /// What left so far, and by which port.
    pub(super) fn left(&self) -> &[(PortId, Vec<u8>)] {
        &self.left
    }

    /// Takes one step.
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Frames { frames, due } => {
                for arrival in frames {
                    self.clean &= arrival.clean;
                    self.batch.push(arrival);
                    if self.batch.len() == margay_engine::BATCH {
                        self.flush();
                    }
                }
                if due {
                    self.flush();
                }
            }
            Step::Wait(millis) => {
                self.flush();
                self.now = self.now.wrapping_add(millis);
                self.watch.passed += u64::from(millis);
                let actions = self.machines.tick(self.watch.passed);
                self.act(actions, 0);
                self.housekeep();
            }
            Step::Edit(number) => self.edit(number % self.scene.snapshots.len()),
            Step::Resolve(found) => self.resolve(found),
            Step::Forget(addr) => {
                self.flush();
                self.engine.forget(addr.into());
            }
        }
    }

    /// Ends the program: nothing waits any more, and the account is even.
    pub(super) fn end(mut self) {
        self.flush();
        // Who is told that a next hop does not answer may be behind one that does not either.
        for _ in 0..2 {
            self.watch.passed += 120_000;
            let actions = self.machines.tick(self.watch.passed);
            self.act(actions, 0);
        }
        assert_eq!(self.machines.waiting(), 0, "nothing waits for ever");
        self.account.is_even(self.engine.counters(), 0);
    }

    fn edit(&mut self, number: usize) {
        self.flush();
        let generation = self.snapshot().generation + 1;
        self.scene.snapshots[number].generation = generation;
        self.watch.edit = number;
        self.machines.set_node(self.scene.states[number].clone());
        self.table.affinities().forget(&self.scene.lost);
    }

    fn resolve(&mut self, found: bool) {
        self.flush();
        for (port, hop) in std::mem::take(&mut self.unresolved) {
            let actions = match found {
                true => self.machines.resolved(port, hop),
                false => self.machines.unresolvable(self.watch.passed, port, hop),
            };
            self.act(actions, 0);
        }
        for ticket in std::mem::take(&mut self.tickets) {
            let actions = self.machines.learned(ticket);
            self.act(actions, 0);
        }
    }

    fn snapshot(&self) -> &Snapshot {
        &self.scene.snapshots[self.watch.edit]
    }

    fn housekeep(&mut self) {
        let timeouts = self.snapshot().settings.timeouts;
        self.engine.housekeep(&timeouts, self.now, Share { index: 0, of: 1 });
    }

    /// Runs what arrived as one batch.
    fn flush(&mut self) {
        let arrivals = std::mem::take(&mut self.batch);
        if arrivals.is_empty() {
            return;
        }
        let mut chunks: Vec<Vec<u8>> =
            arrivals.iter().map(|one| [&[0xaa; HEADROOM][..], &one.frame].concat()).collect();
        let mut batch = Batch::default();
        for (chunk, one) in chunks.iter_mut().zip(&arrivals) {
            let frame = Frame::new(chunk, HEADROOM, one.frame.len(), ingress(one.from));
            batch.frames.push(frame);
        }
        self.engine.run(&self.scene.snapshots[self.watch.edit], self.now, &mut batch);
        assert_eq!(batch.fates.len(), arrivals.len(), "one fate for each frame");
        let outs: Vec<(Fate, Vec<u8>)> = (batch.fates.iter().zip(&batch.frames))
            .map(|(fate, frame)| (*fate, frame.bytes().to_vec()))
            .collect();
        let mut punts = Vec::new();
        for (arrival, (fate, frame)) in arrivals.iter().zip(outs) {
            if *SHOW {
                let head = &arrival.frame[..arrival.frame.len().min(80)];
                eprintln!("state {} {:?} {head:02x?}: {fate:?}", self.watch.edit, arrival.from);
            }
            self.watch.arrives(arrival, &fate);
            match fate {
                Fate::Forward(port) | Fate::Later(port, _) => {
                    self.leave(port, frame, Origin::Direct(arrival), arrival.clean);
                }
                Fate::Drop(why) => self.engine.counters().dropped(why),
                Fate::Punt(punt) => {
                    self.engine.counters().punted(punt.why.reason());
                    punts.push((punt, frame));
                }
            }
        }
        for (punt, frame) in punts {
            self.handle(punt, frame, Kind::Received(Past::default()), 0);
        }
        self.engine.wake();
        self.housekeep();
        self.account.is_even(self.engine.counters(), self.machines.waiting());
    }

    fn leave(&mut self, port: PortId, frame: Vec<u8>, origin: Origin<'_>, clean: bool) {
        self.engine.counters().sent(port, frame.len());
        self.watch.leaves(port, &frame, &origin, clean);
        self.left.push((port, frame));
    }

    /// Has a machine answer a punt.
    fn handle(&mut self, punt: Punt, frame: Vec<u8>, kind: Kind, round: u32) {
        let reason = punt.why.reason();
        if punt.why == Why::Portless && round <= ROUNDS {
            // Its answers come here anyway.
            self.engine.counters().injected(reason);
            self.engine.counters().consumed(reason);
            let port = punt.port;
            let from = if punt.tunneled { Ingress::Tunnel(port) } else { Ingress::Port(port) };
            return self.again(from, frame, kind, round);
        }
        let request = self.request(&punt, &frame).filter(|_| round <= ROUNDS);
        let Some(request) = request else {
            return self.refuse(reason, DropReason::PuntRefused);
        };
        let ingress = match (punt.port, punt.tunneled) {
            _ if kind == Kind::Own => slow::Ingress::Own,
            (port, true) => slow::Ingress::Tunnel(port.0.into(), self.tunnel_kind()),
            (port, false) => slow::Ingress::Port(port.0.into()),
        };
        let ip_start = if let Why::Fragment { ip, .. } = punt.why { ip.into() } else { ETHERNET };
        let table = self.table;
        let flows = |tuple: &FlowTuple| delivered(table, &(*tuple).into()).map(FlowTuple::from);
        let punt = slow::Punt { ingress, past: kind.past(), frame, ip_start, request };
        let actions = self.machines.handle(self.watch.passed, punt, &flows);
        self.act(actions, round);
    }

    /// The engine's words in the slow path's.
    fn request(&self, punt: &Punt, frame: &[u8]) -> Option<slow::Request> {
        use slow::{Request, Unreachable};
        Some(match punt.why {
            Why::Arp => Request::Arp,
            Why::Ndisc => Request::Ndisc,
            Why::TtlExpired => Request::TtlExpired,
            Why::TooBig { mtu } => Request::TooBig { mtu },
            Why::Fragment { egress, mtu, .. } => Request::Fragment { egress: egress.0.into(), mtu },
            Why::Reassemble => Request::Reassemble,
            Why::Unreachable { host: true } => Request::Unreachable(Unreachable::Host),
            Why::Unreachable { host: false } => Request::Unreachable(Unreachable::Net),
            Why::Reject => Request::Reject,
            Why::ConnectionLimit => Request::ConnectionLimit,
            Why::Neighbour(id) => {
                let hop = self.snapshot().adjacency(id)?;
                let addr = match hop.neighbour {
                    Some(addr) => addr.into(),
                    None => match self.answer_to(punt, frame) {
                        Some(answer) => answer.src.into(),
                        None => slow::packet::IpView::parse(frame.get(ETHERNET..)?)?.dst,
                    },
                };
                Request::Neighbour { egress: hop.port.0.into(), hop: addr }
            }
            Why::IcmpError => {
                let quoted = slow::icmp_related::quoted_ends(frame.get(ETHERNET..)?);
                let tunnel = quoted.is_some_and(|(src, dst)| {
                    self.snapshot().hears_of_tunnel(punt, src.into(), dst.into())
                });
                Request::IcmpError { tunnel }
            }
            Why::HostFlow => Request::HostFlow(self.answer_to(punt, frame)?.into()),
            Why::Portless => return None, // see handle()
            Why::Dns => {
                let look = |frame: &mut Frame<'_>| self.engine.conversation(self.snapshot(), frame);
                let (tuple, from_client) = in_frame(punt, frame, look)?;
                Request::Dns { conversation: tuple.into(), from_client }
            }
        })
    }

    fn answer_to(&self, punt: &Punt, frame: &[u8]) -> Option<Tuple> {
        in_frame(punt, frame, |frame| self.engine.answer_to(self.snapshot(), frame))
    }

    fn tunnel_kind(&self) -> Encap {
        let vxlan = |hop: &margay_engine::snapshot::Adjacency| matches!(hop.key, HopKey::Vxlan(..));
        if self.snapshot().adjacencies.iter().any(vxlan) { Encap::Vxlan } else { Encap::Ipip }
    }

    fn act(&mut self, actions: Vec<Action>, round: u32) {
        for action in actions {
            match action {
                Action::Inject(reason, injection) => self.inject(reason, injection, round),
                Action::Consumed(reason) => self.engine.counters().consumed(reason),
                Action::Dropped(reason, why) => self.refuse(reason, why),
                Action::ResolveNeighbour { egress, hop } => self.unresolved.push((egress, hop)),
                Action::Learn { ticket, .. } => self.tickets.push(ticket),
                Action::SteerHostFlow(_) | Action::Read(_) | Action::PathMtu { .. } => {}
            }
        }
    }

    /// A punt ends as a drop: it is consumed, and enters again only to be dropped.
    fn refuse(&self, reason: PuntReason, why: DropReason) {
        self.engine.counters().consumed(reason);
        self.engine.counters().injected(reason);
        self.engine.counters().dropped(why);
    }

    fn inject(&mut self, reason: PuntReason, injection: Injection, round: u32) {
        self.engine.counters().injected(reason);
        let port = |port: u32| PortId(u16::try_from(port).unwrap_or(u16::MAX));
        match injection {
            Injection::Send { port: number, mut frame } => {
                let mac = self.snapshot().port(port(number)).map(|port| port.mac);
                if let (Some(mac), Some(source)) = (mac, frame.get_mut(6..12)) {
                    source.copy_from_slice(&mac);
                }
                self.leave(port(number), frame, Origin::Made, self.clean);
            }
            Injection::Own { packet } => {
                self.again(Ingress::Own, packet, Kind::Own, round);
            }
            Injection::Again { ingress, frame, past } => {
                let from = match ingress {
                    slow::Ingress::Port(id) => Ingress::Port(port(id)),
                    slow::Ingress::Tunnel(id, _) => Ingress::Tunnel(port(id)),
                    slow::Ingress::Own => Ingress::Own,
                };
                let kind = if from == Ingress::Own { Kind::Own } else { Kind::Received(past) };
                self.again(from, frame, kind, round);
            }
        }
    }

    /// Runs one frame through the engine, and does what it says.
    fn again(&mut self, from: Ingress, bytes: Vec<u8>, kind: Kind, round: u32) {
        let own = kind == Kind::Own;
        let room = if own { HEADROOM + ETHERNET } else { HEADROOM };
        let mut chunk = [vec![0; room], bytes].concat();
        let (start, len) = (HEADROOM, chunk.len() - HEADROOM);
        let Past { reassembled, read } = kind.past();
        let mut frame = Frame { chunk: &mut chunk, start, len, ingress: from, reassembled, read };
        let fate = {
            let snapshot = &self.scene.snapshots[self.watch.edit];
            self.engine.run_again(snapshot, self.now, &mut frame)
        };
        let out = frame.bytes().to_vec();
        let origin = match from {
            Ingress::Own => Origin::Made,
            Ingress::Port(port) | Ingress::Tunnel(port) => Origin::Again(port),
            Ingress::Trunk => Origin::Again(HOST),
        };
        match fate {
            Fate::Forward(port) | Fate::Later(port, _) => self.leave(port, out, origin, self.clean),
            Fate::Drop(why) => self.engine.counters().dropped(why),
            Fate::Punt(punt) => {
                self.engine.counters().punted(punt.why.reason());
                self.handle(punt, out, kind, round + 1);
            }
        }
    }
}

/// Has the engine look at a copy of a punted frame.
fn in_frame<T>(punt: &Punt, bytes: &[u8], look: impl FnOnce(&mut Frame<'_>) -> T) -> T {
    let mut chunk = bytes.to_vec();
    let ingress = if punt.tunneled { Ingress::Tunnel(punt.port) } else { Ingress::Port(punt.port) };
    let (start, len) = (0, chunk.len());
    look(&mut Frame::new(&mut chunk, start, len, ingress))
}
