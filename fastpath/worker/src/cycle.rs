//! One turn of a worker's loop, and the loop.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use arrayvec::ArrayVec;
use core_affinity::CoreId;
use margay_engine::meter::Stage;
use margay_engine::snapshot::DeviceId;
use margay_engine::trace::Seen;
use margay_engine::{
    BATCH, Batch, Engine, Fate, Frame as Work, Ingress, Moment, PortId, Punt, Snapshot,
};
use margay_model::DropReason;
use margay_tables::flow::{FlowTable, Share};
use margay_xsk::{Frame, Pool, Region};
use tracing::{debug, warn};

use crate::clock;
use crate::desk::{Desk, work};
use crate::device::{Device, Health};
use crate::held::Held;
use crate::link::{Command, Link, Mentions, Polling, Punted, Punts, Returned};
use crate::quota::Quota;
use crate::rest::Rest;
use crate::tap::{Sighting, Tap};

/// Free chunks that a worker keeps to itself at most.
const POOL: usize = 4096;
/// Cycles between two looks at cool devices, while others are hot.
const LOOK_EVERY: u32 = 64;
/// Cycles without work before an adaptive worker sleeps: a few microseconds each.
const SPIN: u32 = 200;
/// Longest sleep: the flow table is to be aged.
const SLEEP: Duration = Duration::from_millis(50);
/// The same while a card has not taken all frames: nothing wakes a worker when it has room again.
const NAP: Duration = Duration::from_millis(1);
/// Of all frames, the part that may wait for a limit at one worker.
const HELD_SHARE: u32 = 8;

/// Where frames come from that no snapshot knows a port for yet: they wait for the one that does.
const NOBODYS: Ingress = Ingress::Port(PortId(u16::MAX));

/// Of the frames of a batch: where each begins, how long it is, and its fate.
pub(crate) type Outcome = ArrayVec<(usize, usize, Fate), BATCH>;

/// What a worker is made of.
#[derive(Clone)]
pub struct Setup {
    /// Its number.
    pub number: usize,
    /// The core it is pinned to.
    pub core: Option<CoreId>,
    /// The queues of all workers; its own is at its number.
    pub links: Arc<[Link]>,
    /// The way to the slow path.
    pub punts: Arc<Punts>,
    /// Where busy connections are mentioned, if anybody wants to hear of them.
    pub mentions: Option<Arc<Mentions>>,
    /// The flow table.
    pub table: &'static Arc<FlowTable>,
    /// Packet memory.
    pub region: &'static Region,
    /// What it forwards by at first.
    pub snapshot: Arc<Snapshot>,
    /// How it waits.
    pub polling: Polling,
}

/// A worker on its thread.
pub struct Worker {
    number: usize,
    links: Arc<[Link]>,
    punts: Arc<Punts>,
    mentions: Option<Arc<Mentions>>,
    engine: Engine<'static>,
    pool: Pool,
    devices: Vec<Device>,
    /// Where in `devices` each device is that this worker has: index by device.
    places: Vec<Option<usize>>,
    /// Which worker sends for a device: index by device.
    routes: Vec<Option<usize>>,
    snapshot: Arc<Snapshot>,
    quota: Quota,
    held: Held,
    desk: Desk,
    taps: Arc<[Arc<Tap>]>,
    rest: Rest,
    polling: Polling,
    now: u32,
    /// The same time in nanoseconds, not wrapping.
    fine: u64,
    aged: u32,
    /// Frames given to devices in this turn.
    given: usize,
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// More workers than the flow table was made for.
    #[error("the flow table has no seat for another worker")]
    NoSeat,
    /// Its number names no link.
    #[error("there is no link for worker {0}")]
    NoLink(usize),
    /// No epoll descriptor.
    #[error("cannot make an epoll descriptor")]
    Epoll(#[source] rustix::io::Errno),
}

// === impl Worker ===

impl Worker {
    /// A worker, to be run on a thread of its own.
    pub fn new(setup: Setup) -> Result<Self, StartError> {
        if let Some(core) = setup.core
            && !core_affinity::set_for_current(core)
        {
            warn!(worker = setup.number, core = core.id, "cannot pin the worker to its core");
        }
        let link = setup.links.get(setup.number).ok_or(StartError::NoLink(setup.number))?;
        let engine = Engine::new(setup.table, link.counters.clone());
        let mut engine = engine.ok_or(StartError::NoSeat)?;
        engine.measure_by(margay_tables::ticks);
        let rest = Rest::new(link).map_err(StartError::Epoll)?;
        Ok(Self {
            number: setup.number,
            links: setup.links,
            punts: setup.punts,
            mentions: setup.mentions,
            engine,
            pool: Pool::new(setup.region, POOL),
            devices: Vec::new(),
            places: Vec::new(),
            routes: Vec::new(),
            snapshot: setup.snapshot,
            quota: Quota::default(),
            held: Held::new((setup.region.chunks() / HELD_SHARE) as usize),
            desk: Desk::default(),
            taps: Arc::default(),
            rest,
            polling: setup.polling,
            now: clock::now(),
            fine: 0,
            aged: clock::now(),
            given: 0,
        })
    }

    /// Turns until it is told to stop.
    pub fn run(mut self) {
        let mut idle = 0u32;
        let mut turn = 0u32;
        while self.obey() {
            self.look_at_the_clock();
            let busy = self.turn();
            idle = if busy { 0 } else { idle.saturating_add(1) };
            turn = turn.wrapping_add(1);
            self.age();
            self.cool();
            if self.polling == Polling::Adaptive && idle > SPIN {
                self.sleep();
                idle = SPIN / 2;
            } else if turn.is_multiple_of(LOOK_EVERY) {
                self.look();
            }
            self.engine.end_turn(busy);
        }
        while let Some((_, frame)) = self.held.pop(u64::MAX) {
            self.drop_frame(frame, DropReason::PortDown);
        }
        for device in std::mem::take(&mut self.devices) {
            self.give_back(device);
        }
    }

    fn look_at_the_clock(&mut self) {
        Moment { ms: self.now, ns: self.fine } = clock::moment();
    }

    /// One turn: receive, decide, send. Whether there was anything to do.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        // What is due goes before what comes now, lest it be overtaken.
        let others = self.release() + self.inject() + self.take_over();
        if others > 0 {
            self.engine.lap(Stage::Inject, others);
            busy = true;
        }
        for index in 0..self.devices.len() {
            busy |= self.serve(index);
        }
        self.send_all();
        busy
    }

    /// Takes one batch from a device through the engine.
    fn serve(&mut self, index: usize) -> bool {
        let served = |device: &&mut Device| device.hot && device.ingress != NOBODYS;
        let Some(device) = self.devices.get_mut(index).filter(served) else { return false };
        let mut frames = ArrayVec::<Frame, BATCH>::new();
        device.receive(&mut self.pool, &mut frames, self.now);
        if frames.is_empty() {
            return false;
        }
        device.used(frames.len(), self.now, &self.rest);
        // Another core wrote them: ask for all, then read the first.
        frames.iter().for_each(Frame::prefetch);
        let received = frames.len();
        self.engine.lap(Stage::Receive, received);
        let ingress = device.ingress;
        let mut outcome = Outcome::new();
        if self.taps.is_empty() {
            self.decide(&mut frames, ingress, &mut outcome);
            self.mention();
        } else {
            self.decide_watched(&mut frames, ingress, &mut outcome);
        }
        for (mut frame, (start, len, fate)) in frames.into_iter().zip(outcome) {
            match frame.set_range(start, len) {
                Ok(()) => self.settle(frame, fate),
                Err(_) => self.drop_frame(frame, DropReason::Malformed),
            }
        }
        self.engine.lap(Stage::Forward, received);
        true
    }

    /// Hands on the connections that may take the shortcut.
    fn mention(&mut self) {
        if let Some(mentions) = &self.mentions {
            for tuple in self.engine.mentions() {
                let _ = mentions.push(tuple);
            }
        }
    }

    /// Runs one batch through the engine.
    fn decide(&mut self, frames: &mut [Frame], ingress: Ingress, outcome: &mut Outcome) {
        let now = self.moment();
        self.decide_by(frames, ingress, outcome, |engine, snapshot, batch| {
            engine.run(snapshot, now, batch);
        });
    }

    #[inline]
    fn decide_by<T>(
        &mut self,
        frames: &mut [Frame],
        ingress: Ingress,
        outcome: &mut Outcome,
        run: impl FnOnce(&mut Engine<'static>, &Snapshot, &mut Batch<'_>) -> T,
    ) -> T {
        let mut rooms = self.desk.rooms(frames);
        let mut batch = Batch::default();
        batch.frames.extend(frames.iter_mut().map(|frame| work(frame, ingress, &mut rooms)));
        let result = run(&mut self.engine, &self.snapshot, &mut batch);
        outcome.extend(done(&batch));
        drop(batch);
        self.desk.clear(frames, outcome, &mut self.pool);
        result
    }

    /// The same while somebody wants to see packets: those that may be wanted run by themselves.
    fn decide_watched(&mut self, frames: &mut [Frame], ingress: Ingress, outcome: &mut Outcome) {
        let (mut scratch, mut begin) = (Vec::new(), 0);
        for index in 0..frames.len() {
            let one = &mut frames[index..=index];
            let mut rooms = self.desk.rooms(one);
            let frame = work(&mut one[0], ingress, &mut rooms);
            let seen = self.engine.look(&self.snapshot, &frame, &mut scratch);
            let leaving = self.engine.leaving(&seen);
            if !self.taps.iter().any(|tap| tap.may_want(&seen, leaving.as_ref())) {
                continue;
            }
            self.decide(&mut frames[begin..index], ingress, outcome);
            self.watch(&mut frames[index..=index], ingress, seen, outcome);
            begin = index + 1;
        }
        self.decide(&mut frames[begin..], ingress, outcome);
        // Nothing takes the shortcut meanwhile: what it moves nobody sees.
        self.engine.mentions().for_each(drop);
    }

    /// Runs one frame through the engine and shows it to those who want it.
    fn watch(&mut self, one: &mut [Frame], ingress: Ingress, seen: Seen, outcome: &mut Outcome) {
        let before = one.first().map(whole).unwrap_or_default();
        let now = self.moment();
        let (traced, after) = self.decide_by(one, ingress, outcome, |engine, snapshot, batch| {
            let traced = engine.watch(snapshot, now, seen, batch);
            (traced, batch.frames.first().map(Work::bytes).unwrap_or_default().to_vec())
        });
        for tap in self.taps.iter() {
            let sighting = || Sighting {
                at: SystemTime::now(),
                worker: self.number,
                before: before.clone(),
                after: after.clone(),
                traced: traced.clone(),
                snapshot: self.snapshot.clone(),
            };
            tap.offer(&traced, sighting);
        }
    }

    /// Does with a frame what the engine decided.
    fn settle(&mut self, frame: Frame, fate: Fate) {
        match fate {
            Fate::Forward(port) => self.forward(port, frame),
            Fate::Later(port, delay) => self.hold(self.fine + u64::from(delay), port, frame),
            Fate::Drop(reason) => self.drop_frame(frame, reason),
            Fate::Punt(punt) => self.punt(punt, frame),
        }
    }

    fn moment(&self) -> Moment {
        Moment { ms: self.now, ns: self.fine }
    }

    /// Keeps a frame until it is due.
    fn hold(&mut self, due: u64, port: PortId, frame: Frame) {
        if let Err(frame) = self.held.push(due, port, frame) {
            self.drop_frame(frame, DropReason::Bandwidth);
        }
    }

    /// Sends what is due.
    fn release(&mut self) -> usize {
        let mut count = 0;
        while let Some((port, frame)) = self.held.pop(self.fine) {
            count += 1;
            self.forward(port, frame);
        }
        count
    }

    /// Hands a frame to the device of its port: this worker's, or the one that has it.
    fn forward(&mut self, port: PortId, frame: Frame) {
        let Some(id) = self.snapshot.port(port).map(|port| port.device) else {
            return self.drop_frame(frame, DropReason::PortDown);
        };
        if let Some(device) = self.place(id).and_then(|index| self.devices.get_mut(index)) {
            self.given += 1;
            return device.send(port, frame, &mut self.pool, self.engine.counters());
        }
        let owner = self.routes.get(usize::from(id.0)).copied().flatten();
        let Some(link) = owner.and_then(|owner| self.links.get(owner)) else {
            return self.drop_frame(frame, DropReason::PortDown);
        };
        match link.hand_over(port, id, frame) {
            Ok(()) => link.wake(),
            Err(frame) => self.drop_frame(frame, DropReason::HandoffFull),
        }
    }

    fn punt(&mut self, punt: Punt, mut frame: Frame) {
        let punted = self.quota.take(punt.port, self.now)
            && self.punts.push(Punted { punt, bytes: whole(&frame) }).is_ok();
        if punted {
            self.engine.counters().punted(punt.why.reason());
            return self.pool.put(frame);
        }
        if punt.why.is_vital() {
            let port = punt.port;
            let from = if punt.tunneled { Ingress::Tunnel(port) } else { Ingress::Port(port) };
            let mut rooms = self.desk.rooms(std::slice::from_ref(&frame));
            let mut work = work(&mut frame, from, &mut rooms);
            self.engine.take_back(&self.snapshot, &mut work);
        }
        self.drop_frame(frame, DropReason::PuntFull);
    }

    fn drop_frame(&mut self, frame: Frame, reason: DropReason) {
        self.engine.counters().dropped(reason);
        self.pool.put(frame);
    }

    /// Sends what the slow path made; how many frames there were.
    fn inject(&mut self) -> usize {
        let mut any = 0;
        for _ in 0..BATCH {
            let Some(injected) = self.link().next_injected() else { break };
            any += 1;
            match self.pool.packet(&injected.bytes) {
                Some(frame) if injected.due > self.fine => {
                    self.hold(injected.due, injected.port, frame);
                }
                Some(frame) => self.forward(injected.port, frame),
                None => self.engine.counters().dropped(DropReason::TxFull),
            }
        }
        any
    }

    /// Sends what other workers handed over; how many frames there were.
    fn take_over(&mut self) -> usize {
        let mut any = 0;
        for _ in 0..BATCH {
            let Some((port, id, frame)) = self.link().next_handed_over() else { break };
            any += 1;
            match self.place(id).and_then(|index| self.devices.get_mut(index)) {
                Some(device) => {
                    self.given += 1;
                    device.send(port, frame, &mut self.pool, self.engine.counters());
                }
                None => self.drop_frame(frame, DropReason::PortDown),
            }
        }
        any
    }

    fn send_all(&mut self) {
        let mut gone = None;
        for device in &mut self.devices {
            device.used(device.waiting(), self.now, &self.rest);
            device.flush(&mut self.pool, self.engine.counters());
            if device.kick(&mut self.pool) == Health::Gone {
                gone = Some(device.id);
            }
        }
        if let Some(id) = gone {
            debug!(worker = self.number, device = id.0, "the interface is gone");
            self.detach(id);
        }
        let given = std::mem::take(&mut self.given);
        if given > 0 {
            self.engine.lap(Stage::Transmit, given);
        }
    }

    /// Takes commands; `false` when told to stop.
    fn obey(&mut self) -> bool {
        while let Some(command) = self.link().next_command() {
            match command {
                Command::Snapshot(snapshot) => self.adopt(snapshot),
                Command::Attach(id, socket) => self.attach(id, socket),
                Command::Detach(id) => self.detach(id),
                Command::Taps(taps) => self.taps = taps,
                Command::Route(id, owner) => self.route(id, owner),
                Command::Stop => return false,
            }
        }
        true
    }

    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        self.find_ingress();
        let link = self.link();
        link.returned.push(Returned::Snapshot(old));
        link.generation.store(generation, SeqCst);
        link.adopted.fetch_add(1, SeqCst);
    }

    fn attach(&mut self, id: DeviceId, socket: Box<margay_xsk::Socket>) {
        let device = Device::new(id, socket, self.now);
        self.devices.push(device);
        self.find_places();
        self.find_ingress();
        self.route(id, Some(self.number));
    }

    /// Notes where each device's frames come from.
    fn find_ingress(&mut self) {
        let mut ports = vec![PortId(u16::MAX); self.places.len()];
        for port in self.snapshot.ports.iter().flatten() {
            if let Some(slot) = ports.get_mut(usize::from(port.device.0)) {
                *slot = port.id;
            }
        }
        for device in &mut self.devices {
            device.ingress = match ports.get(usize::from(device.id.0)) {
                _ if device.id == DeviceId::TRUNK => Ingress::Trunk,
                Some(port) => Ingress::Port(*port),
                None => NOBODYS,
            };
        }
    }

    /// Notes where each device is, the first of its sockets.
    fn find_places(&mut self) {
        self.places.clear();
        for (index, device) in self.devices.iter().enumerate() {
            let id = usize::from(device.id.0);
            if self.places.len() <= id {
                self.places.resize(id + 1, None);
            }
            if let Some(place) = self.places.get_mut(id) {
                place.get_or_insert(index);
            }
        }
    }

    fn place(&self, id: DeviceId) -> Option<usize> {
        self.places.get(usize::from(id.0)).copied().flatten()
    }

    fn detach(&mut self, id: DeviceId) {
        while let Some(index) = self.devices.iter().position(|device| device.id == id) {
            let device = self.devices.swap_remove(index);
            self.give_back(device);
        }
        self.find_places();
    }

    fn give_back(&mut self, mut device: Device) {
        let id = device.id;
        device.unwatch(&self.rest);
        let socket = device.close(&mut self.pool, self.engine.counters());
        self.link().returned.push(Returned::Socket(id, socket));
    }

    fn route(&mut self, id: DeviceId, owner: Option<usize>) {
        let index = usize::from(id.0);
        if self.routes.len() <= index {
            self.routes.resize(index + 1, None);
        }
        if let Some(slot) = self.routes.get_mut(index) {
            *slot = owner;
        }
    }

    fn age(&mut self) {
        if self.now == self.aged {
            return;
        }
        let second = self.now / 1000 != self.aged / 1000;
        self.aged = self.now;
        let share = Share { index: self.number as u32, of: self.links.len() as u32 };
        self.engine.housekeep(&self.snapshot.settings.timeouts, self.now, share);
        // A quiet device that met empty packet memory would never hear of anything again.
        for device in self.devices.iter_mut().filter(|device| !device.hot) {
            device.refill(&mut self.pool);
        }
        if second {
            let counters = self.engine.counters();
            for device in &mut self.devices {
                device.count_lost(counters);
                device.socket.look_for_napi();
            }
        }
    }

    /// Hands devices without traffic over to epoll.
    fn cool(&mut self) {
        for device in &mut self.devices {
            if device.hot && device.is_quiet(self.now) {
                device.watch(&self.rest);
            }
        }
    }

    fn look(&mut self) {
        let Self { rest, links, devices, number, now, .. } = self;
        if let Some(link) = links.get(*number)
            && devices.iter().any(|device| !device.hot)
        {
            rest.look(link, |token| warm(devices, token, *now));
        }
    }

    /// Sleeps until something comes, or a frame is due.
    fn sleep(&mut self) {
        for device in &mut self.devices {
            if device.hot {
                device.watch(&self.rest);
            }
        }
        self.engine.sleep();
        let Self { rest, links, devices, number, now, fine, held, .. } = self;
        let longest = if devices.iter().any(Device::has_unsent) { NAP } else { SLEEP };
        let wait = held.next().map(|due| Duration::from_nanos(due.saturating_sub(*fine)));
        let wait = wait.unwrap_or(longest).min(longest);
        if let Some(link) = links.get(*number) {
            rest.sleep(link, wait, |token| warm(devices, token, *now));
        }
        self.engine.wake();
    }

    fn link(&self) -> &Link {
        &self.links[self.number]
    }
}

/// A copy of the whole packet.
fn whole(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.packet_len());
    frame.parts().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Where the frames of a batch that has run begin, how long they are, and their fates.
fn done<'b>(batch: &'b Batch<'_>) -> impl Iterator<Item = (usize, usize, Fate)> + 'b {
    let done = batch.frames.iter().zip(&batch.fates);
    done.map(|(frame, fate)| (frame.start, frame.len, *fate))
}

fn warm(devices: &mut [Device], token: u64, now: u32) {
    if let Some(device) = devices.iter_mut().find(|device| device.token() == token) {
        device.warm(now);
    }
}
