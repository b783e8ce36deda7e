//! What one thread may do to the table: insert, remove, and say when it holds nothing.

use std::sync::Arc;

use super::epoch::{Epochs, Seat};
use super::hold::Hold;
use super::index::Linked;
use super::key::Key;
use super::record::{Dir, FlowId, FlowRef, NewFlow, State};
use super::sweep::Cursors;
use super::table::FlowTable;
use crate::addr::Tuple;
use crate::sync::Ordering::Relaxed;

/// A thread's hold on the table: its seat among the participants, its cache of free records and
/// the records it removed that somebody may still look at.
///
/// A worker calls [`FlowWorker::quiesce`] once a batch. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct FlowWorker {
    pub(super) table: Arc<FlowTable>,
    seat: Seat,
    awake: bool,
    hold: Hold,
    pub(super) cursors: Cursors,
}

/// How an insertion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// The connection is in; this is its Orig.
    New(FlowId),
    /// Somebody else entered it first: the packet belongs to this flow and direction. It may be a
    /// cached denial; to put a connection in its place, remove it first.
    Exists(FlowId),
    /// Another connection has this reply tuple: choose another port.
    ReplyTaken,
    /// Somebody is just entering the same; try again.
    Contended,
    /// No free record: evict, and try again after the next quiescent point.
    Full,
    /// Records may be free, but both buckets of a key are full: [`FlowWorker::evict_near`] helps
    /// at once. About one insertion in a million, in a table that is full otherwise.
    Crowded,
    /// Cached denials have reached their share. The packet needs no record to be dropped.
    DenialsFull,
}

// === impl FlowWorker ===

impl FlowWorker {
    /// Takes a seat, awake; `None` when [`super::FlowConfig::participants`] are there already.
    pub fn new(table: Arc<FlowTable>) -> Option<Self> {
        let seat = table.epochs.join()?;
        table.epochs.wake(&seat);
        let (hold, cursors) = (Hold::new(), Cursors::default());
        Some(Self { table, seat, awake: true, hold, cursors })
    }

    /// The table.
    pub fn table(&self) -> &Arc<FlowTable> {
        &self.table
    }

    /// Number of this participant, below [`super::FlowConfig::participants`].
    pub fn number(&self) -> usize {
        Epochs::number(&self.seat)
    }

    /// Says that this thread holds no [`FlowRef`] and no [`FlowId`] right now. Once a batch; what
    /// was removed long enough ago becomes free.
    #[inline]
    pub fn quiesce(&mut self) {
        self.hold.stamp(&self.table);
        if self.awake {
            self.table.epochs.quiesce(&self.seat);
        } else {
            self.table.epochs.wake(&self.seat);
            self.awake = true;
        }
        self.hold.reclaim(&self.table);
    }

    /// Says that this thread will not touch the table until its next [`FlowWorker::quiesce`], so
    /// that nobody waits for it. What it removed is left to the others.
    pub fn sleep(&mut self) {
        self.hold.abandon(&self.table);
        self.table.epochs.sleep(&self.seat);
        self.awake = false;
    }

    /// Enters a connection or a cached denial.
    ///
    /// The reply key comes first, because its being unique is what makes a NAT binding safe; then
    /// the orig key; only then does either become visible to lookups.
    pub fn insert(&mut self, new: &NewFlow) -> Insert {
        let denial = new.reply.is_none();
        if denial && !self.table.admit_denial() {
            return Insert::DenialsFull;
        }
        let result = try_insert(&self.table, &mut self.hold, new);
        match result {
            Insert::New(id) => self.table.count(self.number(), id.is_v6(), 1),
            _ if denial => drop(self.table.denials.fetch_sub(1, Relaxed)),
            _ => {}
        }
        result
    }

    /// Takes a connection or cached denial out; `false` if somebody else did.
    pub fn remove(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.table.flow(id) else { return false };
        if !flow.kill() {
            return false;
        }
        let orig = flow.orig();
        if let Some(journal) = self.table.journal() {
            journal.ended(&orig);
        }
        unlink(&self.table, &orig);
        if orig.is_denial() {
            self.table.denials.fetch_sub(1, Relaxed);
        } else {
            unlink(&self.table, &flow.reply());
        }
        self.hold.retire(id);
        self.table.count(self.number(), id.is_v6(), -1);
        true
    }

    /// Takes over records that others left; part of the sweep, so that no packet pays for it.
    pub(super) fn adopt(&mut self) {
        self.hold.adopt(&self.table);
    }
}

impl Drop for FlowWorker {
    fn drop(&mut self) {
        self.hold.abandon(&self.table);
        self.table.epochs.leave(&self.seat);
    }
}

fn try_insert(table: &FlowTable, hold: &mut Hold, new: &NewFlow) -> Insert {
    let Some(id) = hold.allocate(table, new.is_v6()) else { return Insert::Full };
    let Some(flow) = table.flow(id) else { return Insert::Full };
    flow.fill(new);
    if let Some(reply) = &new.reply {
        let linked = link(table, reply, id.with_dir(Dir::Reply));
        if linked != Linked::Placed {
            // Nobody has seen the record: it is free at once.
            hold.release(table, id);
            return refused_reply(table, linked, new);
        }
    }
    let linked = link(table, &new.orig, id);
    if linked == Linked::Placed {
        flow.publish();
        return Insert::New(id);
    }
    if new.reply.is_some() {
        // The entry has been seen, perhaps; the record waits like a removed one.
        unlink(table, &flow.reply());
        flow.set_states(State::Dying);
        hold.retire(id);
    } else {
        hold.release(table, id);
    }
    refused_orig(table, linked)
}

fn link(table: &FlowTable, tuple: &Tuple, id: FlowId) -> Linked {
    table.index().link(&Key::new(tuple), table.hash(tuple), id)
}

fn unlink(table: &FlowTable, flow: &FlowRef<'_>) {
    table.index().unlink(table.hash(&flow.tuple()), flow.id());
}

/// The reply key was refused. If it is taken by the very connection we wanted to enter, another
/// worker was faster; otherwise the binding has to change.
fn refused_reply(table: &FlowTable, linked: Linked, new: &NewFlow) -> Insert {
    match linked {
        Linked::Contended => Insert::Contended,
        Linked::Placed | Linked::Full => Insert::Crowded,
        Linked::Taken(id) => match table.flow(id).map(|other| other.orig()) {
            Some(orig) if orig.tuple() == new.orig => live_or_contended(orig),
            Some(_) => Insert::ReplyTaken,
            None => Insert::Contended,
        },
    }
}

fn refused_orig(table: &FlowTable, linked: Linked) -> Insert {
    match linked {
        Linked::Contended => Insert::Contended,
        Linked::Placed | Linked::Full => Insert::Crowded,
        Linked::Taken(id) => table.flow(id).map_or(Insert::Contended, live_or_contended),
    }
}

fn live_or_contended(flow: FlowRef<'_>) -> Insert {
    if flow.state() == State::Live { Insert::Exists(flow.id()) } else { Insert::Contended }
}
