//! Ageing, eviction and listing: walks over the records in bounded steps.

use super::layout::WAYS;
use super::record::{FlowId, FlowRef, NewFlow, State};
use super::worker::FlowWorker;
use crate::addr::Addr;

/// Where a worker's walks stand, for IPv4 and IPv6 records.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    sweep: [u32; 2],
    evict: [u32; 2],
    /// Records that evictions have passed since one found something cheaper than an established
    /// connection.
    dear: [u32; 2],
}

/// The records that a worker ages: every `of`-th chunk, beginning with chunk `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// This worker's number, below `of`.
    pub index: u32,
    /// Number of workers that sweep.
    pub of: u32,
}

/// How dear a connection is under pressure; the cheapest goes first. Cached denials are cheaper
/// than any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Closed, or only one end has been heard.
    HalfOpen,
    /// Both ends have been heard.
    Established,
}

/// What an eviction removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Cached denials.
    pub denials: u32,
    /// Half-open connections.
    pub half_open: u32,
    /// Established connections.
    pub established: u32,
}

/// Where a listing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    v6: bool,
    next: u32,
}

/// Consecutive records that one worker ages.
const CHUNK: u32 = 64;
/// Records that one call of [`FlowWorker::evict`] looks at.
const SAMPLE: u32 = 128;
/// Victims of one call, at most.
const VICTIMS: usize = 64;
/// Established connections among them, at most.
const DEAR_VICTIMS: usize = 16;

// === impl FlowWorker ===

impl FlowWorker {
    /// Looks at the next `budget` records of each family in this worker's share and removes those
    /// that have been idle for longer than `timeout` says, in ticks. Returns the number removed.
    ///
    /// `timeout` is given the Orig direction.
    pub fn sweep(
        &mut self,
        now: u32,
        budget: u32,
        share: Share,
        mut timeout: impl FnMut(&FlowRef<'_>) -> u32,
    ) -> u32 {
        self.adopt();
        let table = self.table.clone();
        let mut removed = 0;
        for v6 in [false, true] {
            let pool = table.pool(v6);
            let fresh = pool.fresh();
            for _ in 0..budget.min(fresh) {
                let Some(number) = self.next_of_share(v6, fresh, share) else { break };
                let Some(flow) = pool.record(number) else { continue };
                if flow.state() == State::Live && flow.idle(now) > timeout(&flow) {
                    removed += u32::from(self.remove(flow.id()));
                }
            }
        }
        removed
    }

    fn next_of_share(&mut self, v6: bool, fresh: u32, share: Share) -> Option<u32> {
        let of = share.of.max(1);
        let at = &mut self.cursors.sweep[usize::from(v6)];
        // Two turns at most: over the end, then to the start of the first chunk that is ours.
        for _ in 0..2 {
            let chunk = *at / CHUNK;
            let ahead = (share.index % of + of - chunk % of) % of;
            if ahead != 0 {
                *at = (chunk + ahead).saturating_mul(CHUNK);
            }
            if *at < fresh {
                *at += 1;
                return Some(*at - 1);
            }
            *at = 0;
        }
        None
    }

    /// Whether a family is nearly full (31/32), so that [`FlowWorker::evict`] is due.
    pub fn under_pressure(&self, v6: bool) -> bool {
        let capacity = u64::from(self.table.pool(v6).capacity());
        capacity != 0 && self.table.live(v6) * 32 >= capacity * 31
    }

    /// Removes up to `want` (64 at most) of the next 128 records of a family: cached denials
    /// first, then by `worth`, then the longest idle. Established connections go only when a whole
    /// round over the records has found nothing cheaper, 16 at most: a flood is not to push out
    /// what lies where the flood does not. They are free after the next quiescent points of all
    /// workers.
    pub fn evict(
        &mut self,
        now: u32,
        v6: bool,
        want: usize,
        mut worth: impl FnMut(&FlowRef<'_>) -> Worth,
    ) -> Evicted {
        let table = self.table.clone();
        let pool = table.pool(v6);
        let fresh = pool.fresh();
        let mut victims = Victims::new(want);
        for _ in 0..SAMPLE.min(fresh) {
            let at = &mut self.cursors.evict[usize::from(v6)];
            let number = if *at < fresh { *at } else { 0 };
            *at = number + 1;
            let Some(flow) = pool.record(number) else { continue };
            victims.offer_live(&flow, now, &mut worth);
        }
        let dear = &mut self.cursors.dear[usize::from(v6)];
        if victims.list.iter().any(Victim::is_cheap) {
            *dear = 0;
        } else {
            *dear = dear.saturating_add(SAMPLE);
        }
        if *dear < fresh {
            victims.list.retain(|victim| victim.is_cheap());
        } else {
            let cheap = victims.list.iter().filter(|victim| victim.is_cheap()).count();
            victims.list.truncate(cheap + DEAR_VICTIMS);
        }
        let mut evicted = Evicted::default();
        self.take_out(victims, &mut evicted);
        evicted
    }

    /// Makes room in the index for an insertion that ended in [`super::Insert::Crowded`]: takes
    /// out the cheapest flow of each key's two buckets, if they are full. The places are usable
    /// at once.
    pub fn evict_near(
        &mut self,
        now: u32,
        new: &NewFlow,
        mut worth: impl FnMut(&FlowRef<'_>) -> Worth,
    ) -> Evicted {
        let table = self.table.clone();
        let mut evicted = Evicted::default();
        for tuple in std::iter::once(new.orig).chain(new.reply) {
            let mut victims = Victims::new(1);
            let mut entries = 0;
            for flow in table.index().neighbours(table.hash(&tuple)) {
                entries += 1;
                victims.offer_live(&flow.orig(), now, &mut worth);
            }
            if entries == 2 * WAYS {
                self.take_out(victims, &mut evicted);
            }
        }
        evicted
    }

    fn take_out(&mut self, victims: Victims, evicted: &mut Evicted) {
        for victim in victims.list {
            if self.remove(victim.id) {
                evicted.add(victim.worth);
            }
        }
    }

    /// Shows the live flows, in direction Orig, among the next `budget` records; returns where to
    /// go on, or `None` at the end. Flows that come or go meanwhile may be missed, none is shown
    /// twice.
    ///
    /// Between two calls the thread should [`FlowWorker::quiesce`], or nothing that was removed
    /// can be used again.
    pub fn list(
        &self,
        mut cursor: Cursor,
        budget: u32,
        mut show: impl FnMut(&FlowRef<'_>),
    ) -> Option<Cursor> {
        for _ in 0..budget {
            let pool = self.table.pool(cursor.v6);
            if cursor.next >= pool.fresh() {
                if cursor.v6 {
                    return None;
                }
                cursor = Cursor { v6: true, next: 0 };
                continue;
            }
            if let Some(flow) = pool.record(cursor.next)
                && flow.state() == State::Live
            {
                show(&flow);
            }
            cursor.next += 1;
        }
        Some(cursor)
    }

    /// Removes every flow that has `addr` in one of its keys, in one walk over the table with a
    /// quiescent point every 1,024 records. Not for a worker in the middle of a batch.
    pub fn remove_touching(&mut self, addr: Addr) -> u32 {
        self.remove_where(|flow| flow.touches(addr))
    }

    /// Removes every flow for which `condemned` holds, as [`FlowWorker::remove_touching`] does.
    pub fn remove_where(&mut self, mut condemned: impl FnMut(&FlowRef<'_>) -> bool) -> u32 {
        let mut removed = 0;
        let mut found: Vec<FlowId> = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            cursor = self.list(from, 1024, |flow| {
                if condemned(flow) {
                    found.push(flow.id());
                }
            });
            removed += found.drain(..).map(|id| u32::from(self.remove(id))).sum::<u32>();
            self.quiesce();
        }
        removed
    }
}

// === impl Evicted ===

impl Evicted {
    fn add(&mut self, worth: Option<Worth>) {
        match worth {
            None => self.denials += 1,
            Some(Worth::HalfOpen) => self.half_open += 1,
            Some(Worth::Established) => self.established += 1,
        }
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        self.denials + self.half_open + self.established
    }
}

/// A candidate; the order is that of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Victim {
    worth: Option<Worth>,
    fresh: u32,
    id: FlowId,
}

// === impl Victim ===

impl Victim {
    fn is_cheap(&self) -> bool {
        self.worth != Some(Worth::Established)
    }
}

/// The cheapest few of those offered, cheapest first.
struct Victims {
    list: arrayvec::ArrayVec<Victim, VICTIMS>,
    want: usize,
}

impl Victims {
    fn new(want: usize) -> Self {
        Self { list: arrayvec::ArrayVec::new(), want: want.min(VICTIMS) }
    }

    fn offer_live(
        &mut self,
        flow: &FlowRef<'_>,
        now: u32,
        worth: &mut impl FnMut(&FlowRef<'_>) -> Worth,
    ) {
        if flow.state() == State::Live {
            let worth = if flow.is_denial() { None } else { Some(worth(flow)) };
            self.offer(Victim { worth, fresh: u32::MAX - flow.idle(now), id: flow.id() });
        }
    }

    fn offer(&mut self, victim: Victim) {
        let at = self.list.partition_point(|v| *v < victim);
        if at >= self.want {
            return;
        }
        if self.list.len() == self.want {
            self.list.pop();
        }
        // There is room: fewer than `want`, which is at most the capacity.
        let _ = self.list.try_insert(at, victim);
    }
}
