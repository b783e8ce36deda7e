//! The accounts of connections: what rules have decided, and reports of flows for who wants them.
//!
//! Flows count their own packets. The accountant walks the table all the time, a piece at a time,
//! and reads the journal, in which flows stand that ended or were decided differently; the
//! difference to what it saw last goes to the rules that stand for the flow, and into a report. So
//! no packet writes anything that two threads share, and no number is missed unless the journal
//! overflows, which is counted. Packets of untracked policies have no flow: workers sum them by rule
//! and put the sums into the journal.
//!
//! - [`tracked`]: what was seen of each flow last; [`counts`]: what rules have decided;
//!   [`names`]: rules and endpoints that are gone, for the flows that outlive them;
//! - [`reports`]: news for those who watch; [`log`]: packets that met Log rules.

mod tracked;
pub(crate) mod counts;
mod names;
mod reports;
mod log;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use margay_engine::Snapshot;
use margay_model::DropReason;
use margay_model::flow::FlowCount;
use margay_tables::flow::{Cursor, Entry, FlowCopy, FlowTable, FlowWorker, Tally};
use margay_worker::clock;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use counts::Counts;
use log::Log;
use names::Names;
use reports::{Batch, Watchers};
use tracked::Tracked;

/// Between two turns.
const TURN: Duration = Duration::from_millis(50);
/// Records that one turn walks over: the default table in two seconds.
const WALK: u32 = 8192;
/// Entries of the journal that one turn reads.
const READ: usize = 1 << 15;

/// What others may see of the accounts.
pub(crate) struct Accounts {
    counts: Mutex<Counts>,
    watchers: Mutex<Watchers>,
    held_back: AtomicU64,
    table: &'static Arc<FlowTable>,
}

/// The one who keeps them.
pub(crate) struct Accountant {
    shared: Arc<Accounts>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    snapshot: Arc<Snapshot>,
    /// A guest at the table, so that what is looked at is not used again meanwhile.
    guest: FlowWorker,
    cursor: Cursor,
    tracked: Tracked,
    names: Names,
    log: Log,
}

/// Why a flow is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Living,
    Changing,
    Ended,
}

/// What an end of a flow said: the number of what decided, and whether it allowed.
type Said = Option<(u32, bool)>;

// === impl Accounts ===

impl Accounts {
    /// Nothing was decided yet. `series` is how many rules are told apart in metrics.
    pub(crate) fn new(table: &'static Arc<FlowTable>, series: usize) -> Self {
        let (counts, watchers) = (Mutex::new(Counts::new(series)), Mutex::default());
        Self { counts, watchers, held_back: AtomicU64::new(0), table }
    }

    /// What rules have decided.
    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports from now on.
    pub(crate) fn watch(&self) -> mpsc::Receiver<Batch> {
        self.watchers().add()
    }

    /// Flows that ended unseen, and packets that were to be logged and were not.
    pub(crate) fn lost(&self) -> (u64, u64) {
        self.table.journal().map_or((0, 0), |journal| (journal.lost(), journal.unlogged()))
    }

    /// Packets that met a Log rule beyond its limit.
    pub(crate) fn held_back(&self) -> u64 {
        self.held_back.load(Relaxed)
    }

    /// How many watch.
    pub(crate) fn watched(&self) -> usize {
        self.watchers().len()
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Accountant ===

impl Accountant {
    /// Begins with the flows that are there: what they carried before is nobody's.
    pub(crate) fn new(
        shared: Arc<Accounts>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        mut guest: FlowWorker,
    ) -> Self {
        let mut tracked = Tracked::default();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            cursor = guest.list(from, WALK, |flow| {
                let copy = FlowCopy::new(flow);
                tracked.note(&copy, [None; 4]);
            });
            guest.quiesce();
        }
        let snapshot = snapshots.borrow().clone();
        let cursor = Cursor::default();
        let (names, log) = (Names::default(), Log::default());
        Self { shared, snapshots, snapshot, guest, cursor, tracked, names, log }
    }

    /// Runs until the control task is gone.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TURN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.guest.sleep();
        while self.snapshots.has_changed().is_ok() {
            ticks.tick().await;
            self.look_up();
            self.guest.quiesce();
            let mut batch = self.shared.watchers().batch();
            self.read(&mut batch);
            self.walk(&mut batch);
            self.guest.sleep();
            self.shared.held_back.store(self.log.held_back(), Relaxed);
            let (lost, _) = self.shared.lost();
            self.shared.watchers().send(batch, lost);
        }
    }

    /// Takes the snapshot in force.
    fn look_up(&mut self) {
        let now = self.snapshots.borrow_and_update().clone();
        if !Arc::ptr_eq(&now, &self.snapshot) {
            self.names.moved_on(&self.snapshot, &now, clock::now());
            self.snapshot = now;
        }
    }

    fn read(&mut self, batch: &mut Option<Batch>) {
        let table = self.guest.table().clone();
        let Some(journal) = table.journal() else { return };
        for _ in 0..READ {
            match journal.take() {
                Some(Entry::Ended(flow)) => self.account(&flow, Moment::Ended, batch),
                Some(Entry::Changing(flow)) => self.account(&flow, Moment::Changing, batch),
                Some(Entry::Tally(packets)) => self.account_packets(&packets),
                Some(Entry::Logged(packet)) => {
                    self.log.packet(&self.snapshot, &mut self.names, &packet, clock::now());
                }
                None => return,
            }
        }
    }

    /// Brings packets without a flow to the account of their rule.
    fn account_packets(&mut self, sum: &Tally) {
        let Tally { rule, ingress, allowed, packets, bytes } = *sum;
        let name = self.names.rule(&self.snapshot, rule);
        let more = [FlowCount { packets, bytes }, FlowCount::default()];
        self.shared.counts().add(name, ingress, allowed, 0, &more);
    }

    fn walk(&mut self, batch: &mut Option<Batch>) {
        let mut busy = Vec::new();
        let tracked = &mut self.tracked;
        let next = self.guest.list(self.cursor, WALK, |flow| {
            if !tracked.is_idle(flow) {
                busy.push(FlowCopy::new(flow));
            }
        });
        for flow in busy {
            self.account(&flow, Moment::Living, batch);
        }
        self.cursor = next.unwrap_or_else(|| {
            self.tracked.end_round();
            Cursor::default()
        });
    }

    /// Brings a flow's packets to the account of the rules that stand for it.
    fn account(&mut self, flow: &FlowCopy, moment: Moment, batch: &mut Option<Batch>) {
        let known = self.tracked.get(flow);
        if known.is_none() && moment != Moment::Ended && self.tracked.is_full() {
            // It is accounted at its end.
            return;
        }
        let base = known.unwrap_or_default();
        let said = said(&self.snapshot, flow, base.said);
        let more = [0, 1].map(|dir: usize| match (flow.denial, dir) {
            (true, 1) => FlowCount::default(),
            _ => base.more(flow, dir),
        });
        for ((ingress, said), before) in [false, true].into_iter().cycle().zip(said).zip(base.said)
        {
            if let Some((rule, allowed)) = said {
                let name = self.names.rule(&self.snapshot, rule);
                let connections = u64::from(known.is_none() || before != said);
                self.shared.counts().add(name, ingress, allowed, connections, &more);
            }
        }
        if let Some(batch) = batch {
            let (begun, ended) = (known.is_none(), moment == Moment::Ended);
            if begun || ended || more != [FlowCount::default(); 2] {
                let (snapshot, names) = (&self.snapshot, &mut self.names);
                let [egress, ingress, ..] = said;
                let ends = [egress, ingress];
                batch.push(&reports::report(snapshot, names, flow, ends, more, begun, ended));
            }
        }
        match moment {
            Moment::Ended => self.tracked.forget(flow),
            Moment::Living | Moment::Changing => self.tracked.note(flow, said),
        }
    }
}

/// What the source's and the destination's endpoint said, and by which rules host endpoints let the
/// flow leave the node and come in. Those are asked now: a flow that an older snapshot decided last
/// keeps what it had.
fn said(snapshot: &Snapshot, flow: &FlowCopy, before: [Said; 4]) -> [Said; 4] {
    let [egress, ingress] = margay_engine::rules(snapshot, flow);
    let denied = margay_engine::denied(flow);
    // The source's word comes first: where the destination was asked, the source had allowed it.
    let source_denied =
        denied.is_some_and(|reason| ingress == 0 && reason != DropReason::EndpointToHost);
    let is_current = flow.decisions.iter().any(|d| d.generation == snapshot.generation);
    let [_, _, left, entered] = before;
    let [left, entered] = match is_current || left.or(entered).is_none() {
        true => margay_engine::passed(snapshot, flow).map(|rule| Some((rule?, true))),
        false => [left, entered],
    };
    [
        (egress != 0).then_some((egress, !source_denied)),
        (ingress != 0).then_some((ingress, denied.is_none())),
        left,
        entered,
    ]
}
