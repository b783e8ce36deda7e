//! News of flows, for those who watch.

use margay_engine::Snapshot;
use margay_model::flow::{FlowCount, FlowReport, Judgement};
use margay_protocol::proto;
use margay_tables::flow::FlowCopy;
use margay_worker::clock;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Said;
use super::names::Names;

/// Batches that may wait for a watcher that is slow to read.
const WAITING: usize = 64;
/// Reports of one turn, for the others are lost.
const BATCH: usize = 4096;

/// The reports of one turn.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The reports.
    pub reports: Vec<proto::FlowReport>,
    /// Reports that there was no room for, so far.
    pub lost: u64,
}

/// Those who watch.
#[derive(Default)]
pub(super) struct Watchers(Vec<Watcher>);

struct Watcher {
    out: mpsc::Sender<Batch>,
    /// Reports that it missed.
    missed: u64,
    /// Flows that had ended unseen when it came.
    unseen: Option<u64>,
}

// === impl Watchers ===

impl Watchers {
    /// Another one.
    pub(super) fn add(&mut self) -> mpsc::Receiver<Batch> {
        let (out, batches) = mpsc::channel(WAITING);
        self.0.push(Watcher { out, missed: 0, unseen: None });
        batches
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A batch to be filled, if anybody wants it.
    pub(super) fn batch(&mut self) -> Option<Batch> {
        self.0.retain(|watcher| !watcher.out.is_closed());
        (!self.0.is_empty()).then(Batch::default)
    }

    /// Hands a batch to everybody. `unseen` is how many flows have ended unseen.
    pub(super) fn send(&mut self, batch: Option<Batch>, unseen: u64) {
        let Some(batch) = batch.filter(|batch| !batch.reports.is_empty() || batch.lost > 0) else {
            return;
        };
        for watcher in &mut self.0 {
            let unseen = unseen - *watcher.unseen.get_or_insert(unseen);
            let (reports, news) = (batch.reports.clone(), batch.reports.len() as u64);
            watcher.missed += batch.lost;
            let lost = watcher.missed + unseen;
            if let Err(TrySendError::Full(_)) = watcher.out.try_send(Batch { reports, lost }) {
                watcher.missed += news;
            }
        }
    }
}

// === impl Batch ===

impl Batch {
    /// Adds a report, if there is room.
    pub(super) fn push(&mut self, report: &FlowReport) {
        if self.reports.len() < BATCH {
            self.reports.push(report.into());
        } else {
            self.lost += 1;
        }
    }
}

impl From<Batch> for proto::FlowReports {
    fn from(Batch { reports, lost }: Batch) -> Self {
        Self { reports, lost }
    }
}

/// What is to be said of a flow.
pub(super) fn report(
    snapshot: &Snapshot,
    names: &mut Names,
    flow: &FlowCopy,
    said: [Said; 2],
    more: [FlowCount; 2],
    begun: bool,
    ended: bool,
) -> FlowReport {
    let view = margay_engine::view_of(snapshot, flow, clock::now());
    let [orig, reply] = flow.keys;
    // The source as it came, the destination as it answers.
    let endpoints = [orig.src, reply.src].map(|addr| names.endpoint(snapshot, addr));
    let enforced = said.map(|said| {
        let (rule, allowed) = said?;
        Some(judgement(snapshot, names, rule, allowed))
    });
    let pending = margay_engine::pending(snapshot, flow).map(|said| {
        let (rule, allowed) = said?;
        Some(judgement(snapshot, names, rule, allowed))
    });
    FlowReport { flow: view, more, begun, ended, endpoints, enforced, pending }
}

/// The words for the number of what decided.
fn judgement(snapshot: &Snapshot, names: &mut Names, id: u32, allowed: bool) -> Judgement {
    let nothing = Judgement { allowed, policy: None, tier: None, rule: 0 };
    let Some((policy, rule)) = names.rule(snapshot, id) else { return nothing };
    match policy.strip_prefix("Tier//") {
        Some(tier) => Judgement { tier: Some(tier.into()), ..nothing },
        None => {
            Judgement { tier: names.tier(snapshot, &policy), policy: Some(policy), rule, allowed }
        }
    }
}
