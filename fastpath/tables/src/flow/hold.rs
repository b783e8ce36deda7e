//! The records that one worker has in its hands: free ones, and removed ones that wait.

use std::collections::VecDeque;

use super::record::{Dir, FlowId, State};
use super::table::FlowTable;

/// A worker's cache of free records and its limbo.
#[derive(Debug)]
pub(super) struct Hold {
    /// Free records at hand, IPv4 and IPv6.
    free: [Vec<FlowId>; 2],
    /// Removed since the last stamp.
    removed: Vec<FlowId>,
    /// Removed before, each with its stamp. Those of others may stand out of order, which frees
    /// some a little late, never too early.
    limbo: VecDeque<(u64, FlowId)>,
}

/// Free records that a worker fetches and returns at a time.
const FETCH: usize = if cfg!(loom) { 1 } else { 32 };
/// Free records that a worker keeps at most.
const KEEP: usize = 2 * FETCH;
/// Removed records of others that a worker takes over at a time.
const ADOPT: usize = 64;

impl Hold {
    pub(super) fn new() -> Self {
        Self {
            free: [Vec::with_capacity(KEEP), Vec::with_capacity(KEEP)],
            removed: Vec::with_capacity(1024),
            limbo: VecDeque::with_capacity(4096),
        }
    }

    /// A free record, in direction Orig.
    pub(super) fn allocate(&mut self, table: &FlowTable, v6: bool) -> Option<FlowId> {
        if self.free[usize::from(v6)].is_empty() {
            table.pool(v6).take(FETCH, &mut self.free[usize::from(v6)]);
        }
        let id = self.free[usize::from(v6)].pop();
        if id.is_none() {
            self.adopt(table);
        }
        id
    }

    /// A record that nobody can hold becomes free.
    pub(super) fn release(&mut self, table: &FlowTable, id: FlowId) {
        let id = id.with_dir(Dir::Orig);
        if let Some(flow) = table.flow(id) {
            flow.set_states(State::Free);
        }
        let free = &mut self.free[usize::from(id.is_v6())];
        free.push(id);
        if free.len() >= KEEP {
            table.pool(id.is_v6()).give(free.drain(FETCH..));
        }
    }

    /// A record whose entries are cleared, but which somebody may still look at.
    pub(super) fn retire(&mut self, id: FlowId) {
        self.removed.push(id.with_dir(Dir::Orig));
    }

    /// Stamps what was removed since the last call.
    #[inline]
    pub(super) fn stamp(&mut self, table: &FlowTable) {
        if !self.removed.is_empty() {
            let stamp = table.epochs.stamp();
            self.limbo.extend(self.removed.drain(..).map(|id| (stamp, id)));
        }
    }

    /// Frees what has become nobody's.
    #[inline]
    pub(super) fn reclaim(&mut self, table: &FlowTable) {
        if self.limbo.is_empty() {
            return;
        }
        let safe = table.epochs.safe();
        while let Some((stamp, id)) = self.limbo.front().copied()
            && stamp <= safe
        {
            self.limbo.pop_front();
            self.release(table, id);
        }
    }

    /// Leaves everything to the others.
    pub(super) fn abandon(&mut self, table: &FlowTable) {
        self.stamp(table);
        for (stamp, id) in self.limbo.drain(..) {
            table.pool(id.is_v6()).orphan(id, stamp);
        }
        for (v6, free) in [false, true].into_iter().zip(&mut self.free) {
            table.pool(v6).give(free.drain(..));
        }
    }

    /// Takes over some of what others left.
    pub(super) fn adopt(&mut self, table: &FlowTable) {
        for v6 in [false, true] {
            let pool = table.pool(v6);
            self.limbo.extend(std::iter::from_fn(|| pool.adopt()).take(ADOPT));
        }
    }
}
