//! The packet path, pure: a batch of frames in, a fate for each out.
//!
//! No socket, clock, thread or kernel is known here; time and memory are arguments. What a packet
//! meets stands in [`path`](crate::Engine::run) in its order; the words it uses:
//! - [`batch`]: frames, what parse learned of them, their fates;
//! - [`snapshot`]: the immutable state that packets are decided by, assembled from the control
//!   plane's state and the kernel's view;
//! - `bucket`, `roster`: what limits are kept by; [`census`]: what is counted of connections;
//! - [`decision`]: what is cached in a flow; [`conntrack`]: what a connection's state is;
//! - [`delivered`]: which connection an ICMP error is about;
//! - [`shortcut`]: which connections need no worker any more;
//! - `tally`: what no flow counts; [`counters`]: what a worker counts; [`meter`]: what it does with its
//!   time; [`trace`]: one packet's way, watched.

pub mod batch;
mod moment;

mod bucket;
mod roster;
pub mod snapshot;

pub mod decision;
pub mod conntrack;
mod path;
mod related;

pub mod census;
pub mod shortcut;
pub mod counters;
pub mod meter;
mod listing;
mod tally;
pub mod trace;

pub use batch::{BATCH, Batch, Fate, Frame, Ingress, Punt, Side, Why};
pub use counters::Counters;
pub use listing::{denied, passed, pending, rules, view, view_of};
pub use moment::Moment;
pub use related::delivered;
pub use snapshot::{Assembler, PortId, Snapshot, Underlay};

use std::sync::Arc;

use arrayvec::ArrayVec;
use batch::Packet;
use margay_model::node::Timeouts;
use margay_tables::addr::Tuple;
use margay_tables::flow::{
    Affinities, Dir, FlowId, FlowKey, FlowRef, FlowTable, FlowWorker, Insert, Journal, NewFlow,
    Share, Tally, Words, Worth,
};
use meter::{Stage, Stopwatch, Ticks};
use path::Read;
use tally::Tallies;

/// Records that one step of housekeeping looks at.
const SWEEP: u32 = 64;

/// Flows of a family that one step evicts under pressure: as many as came since the last step,
/// between these bounds.
const EVICT: std::ops::RangeInclusive<u32> = 16..=1024;

/// Victims of one look at 128 records.
const VICTIMS: u32 = 64;

/// One thread's packet path: a worker's, or the slow path's for what it sends again.
pub struct Engine<'t> {
    table: &'t FlowTable,
    flows: FlowWorker,
    counters: Arc<Counters>,
    stopwatch: Stopwatch,
    now: u32,
    /// The same time in nanoseconds, not wrapping.
    fine: u64,
    /// Connections that came since the last step of housekeeping, in or not: IPv4 and IPv6.
    came: [u32; 2],
    /// Connections that may need no worker, of the last batch.
    mentions: ArrayVec<Tuple, { shortcut::MENTIONS }>,
    /// Packets that no flow counts.
    tallies: Tallies,
    /// What the stages of one batch tell each other. Kept, since making it anew costs a small
    /// batch more than its packets do.
    read: Box<[Read]>,
}

// === impl Engine ===

impl<'t> Engine<'t> {
    /// An engine on a table; `None` when the table has no seat left.
    pub fn new(table: &'t Arc<FlowTable>, counters: Arc<Counters>) -> Option<Self> {
        let read = vec![Read::default(); BATCH].into();
        let flows = FlowWorker::new(table.clone())?;
        Some(Self {
            table,
            flows,
            counters,
            stopwatch: Stopwatch::new(|| 0),
            now: 0,
            fine: 0,
            came: [0; 2],
            mentions: ArrayVec::new(),
            tallies: Tallies::default(),
            read,
        })
    }

    /// Measures its stages by a clock from now on.
    pub fn measure_by(&mut self, ticks: Ticks) {
        self.stopwatch = Stopwatch::new(ticks);
    }

    /// Ends a stage of whoever runs the engine; it began when the last one ended.
    #[inline]
    pub fn lap(&mut self, stage: Stage, packets: usize) {
        self.stopwatch.lap(&self.counters.meters, stage, packets);
    }

    /// Ends a turn of whoever runs the engine; `busy` if there was anything to do.
    #[inline]
    pub fn end_turn(&mut self, busy: bool) {
        self.stopwatch.turn(&self.counters.meters, busy);
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Gives every frame of the batch a fate.
    pub fn run(&mut self, snapshot: &Snapshot, now: impl Into<Moment>, batch: &mut Batch<'_>) {
        self.set_time(now.into());
        path::run(self, snapshot, batch);
        self.tallies.hand_on(self.table.journal());
        self.flows.quiesce();
    }

    /// Gives frames of the slow path's making their fates; they are not counted as received.
    pub fn run_again(
        &mut self,
        snapshot: &Snapshot,
        now: impl Into<Moment>,
        frame: &mut Frame<'_>,
    ) -> Fate {
        self.set_time(now.into());
        self.flows.quiesce();
        let fate = path::run_again(self, snapshot, frame);
        self.tallies.hand_on(self.table.journal());
        fate
    }

    fn set_time(&mut self, now: Moment) {
        (self.now, self.fine) = (now.ms, now.ns);
    }

    /// The connections that the last batch mentioned, each by the tuple of one of its directions; see
    /// [`shortcut`].
    pub fn mentions(&mut self) -> impl Iterator<Item = Tuple> {
        self.mentions.drain(..)
    }

    /// Says that this engine, or its thread, is about to look at flows.
    pub fn wake(&mut self) {
        self.flows.quiesce();
    }

    /// A step of ageing and, under pressure, of eviction: bounded work between two batches.
    pub fn housekeep(&mut self, timeouts: &Timeouts, now: u32, share: Share) {
        self.flows.quiesce();
        let expired = self.flows.sweep(now, SWEEP, share, |flow| {
            conntrack::timeout(timeouts, flow.tuple().protocol, path::state(*flow))
        });
        self.counters.expired.add(expired.into());
        for (v6, came) in [false, true].into_iter().zip(std::mem::take(&mut self.came)) {
            if self.flows.under_pressure(v6) {
                self.relieve(now, v6, came);
            }
        }
    }

    /// Makes room for as many connections of a family as came lately: the next flood of one pod is
    /// about as large, and what the others begin is to find a place in it.
    fn relieve(&mut self, now: u32, v6: bool, came: u32) {
        let mut wanted = came.clamp(*EVICT.start(), *EVICT.end());
        // Twice the looks that would do, and no more: where little is to be found, the next batch
        // waits for no long search.
        for _ in 0..2 * wanted.div_ceil(VICTIMS) {
            let want = wanted.min(VICTIMS);
            let evicted = self.flows.evict(now, v6, want as usize, |flow| worth(*flow));
            self.counters.evicted.add((evicted.half_open + evicted.established).into());
            wanted = wanted.saturating_sub(evicted.total());
            // Established connections make room slowly: what is cheaper may come meanwhile.
            if wanted == 0 || evicted.established > 0 {
                break;
            }
        }
    }

    /// Says that this engine will rest until its next batch or step.
    pub fn sleep(&mut self) {
        self.flows.sleep();
    }

    /// The tuple that answers to a frame arrive with, if it is of a connection. For
    /// [`Why::HostFlow`], [`Why::Portless`] and [`Why::Neighbour`]; to be asked while awake.
    pub fn answer_to(&self, snapshot: &Snapshot, frame: &mut Frame<'_>) -> Option<Tuple> {
        let tuple = path::look(snapshot, frame).packet?.tuple;
        let flow = self.lookup(&tuple, self.hash(&tuple)).filter(|flow| !flow.is_denial())?;
        Some(flow.peer().tuple())
    }

    /// Ends the connection that a frame, as it came, is the first of: it is to begin anew. To be called
    /// while awake.
    pub fn take_back(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>) {
        let Some(Packet { tuple, .. }) = path::look(snapshot, frame).packet else { return };
        if let Some(flow) = self.lookup(&tuple, self.hash(&tuple)) {
            self.remove(flow);
        }
    }

    /// The conversation that a frame belongs to, by the tuple that its first packet arrived with,
    /// and whether the frame is of that packet's direction. For [`Why::Dns`]; to be asked while
    /// awake.
    pub fn conversation(
        &self,
        snapshot: &Snapshot,
        frame: &mut Frame<'_>,
    ) -> Option<(Tuple, bool)> {
        let tuple = path::look(snapshot, frame).packet?.tuple;
        let flow = self.lookup(&tuple, self.hash(&tuple)).filter(|flow| !flow.is_denial())?;
        Some(match flow.dir() {
            Dir::Orig => (tuple, true),
            Dir::Reply => (flow.peer().tuple(), false),
        })
    }

    /// Ends every flow of an address: its pod is gone.
    pub fn forget(&mut self, addr: margay_tables::addr::Addr) -> u32 {
        self.flows.quiesce();
        let removed = self.flows.remove_touching(addr);
        self.flows.quiesce();
        removed
    }

    #[inline]
    fn hash(&self, tuple: &Tuple) -> u64 {
        self.table.hash(tuple)
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    #[inline]
    fn prefetch_record(&self, hash: u64) -> Option<FlowId> {
        self.table.prefetch_record(hash)
    }

    #[inline]
    fn lookup(&self, tuple: &Tuple, hash: u64) -> Option<FlowRef<'t>> {
        self.table.lookup(tuple, hash)
    }

    #[inline]
    fn flow(&self, id: FlowId) -> Option<FlowRef<'t>> {
        self.table.flow(id)
    }

    /// The flow with this id, if it still is the connection whose packets have this key.
    #[inline]
    fn expected(&self, id: FlowId, key: &FlowKey<impl Words>) -> Option<FlowRef<'t>> {
        self.table.flow_of(id, key)
    }

    fn affinities(&self) -> Affinities<'t> {
        self.table.affinities()
    }

    fn insert(&mut self, new: &NewFlow) -> Insert {
        let result = self.flows.insert(new);
        if matches!(result, Insert::New(_) | Insert::Full) {
            let came = &mut self.came[usize::from(!new.orig.is_v4())];
            *came = came.saturating_add(1);
        }
        if result != Insert::Crowded {
            return result;
        }
        // A full bucket can be relieved at once; a full table only between two batches.
        let evicted = self.flows.evict_near(self.now, new, |flow| worth(*flow));
        self.counters.evicted.add((evicted.half_open + evicted.established).into());
        self.flows.insert(new)
    }

    fn insert_denial(&mut self, denial: &NewFlow) -> Insert {
        self.flows.insert(denial)
    }

    fn journal(&self) -> Option<&'t Journal> {
        self.table.journal()
    }

    /// Counts packets that no flow counts.
    fn tally(&mut self, more: Tally) {
        let journal = self.table.journal();
        if let Err(lost) = self.tallies.add(more, journal) {
            self.counters.unremembered.add(lost.packets);
        }
    }

    /// Forgets a denial of the tuple; whether there was one.
    fn pardon(&mut self, tuple: Option<Tuple>) -> bool {
        let flow = tuple.and_then(|tuple| self.lookup(&tuple, self.hash(&tuple)));
        flow.is_some_and(|flow| flow.is_denial() && self.flows.remove(flow.id()))
    }

    fn remove(&mut self, flow: FlowRef<'_>) {
        self.flows.remove(flow.id());
    }
}

fn worth(flow: FlowRef<'_>) -> Worth {
    if path::state(flow).is_half_open() { Worth::HalfOpen } else { Worth::Established }
}
