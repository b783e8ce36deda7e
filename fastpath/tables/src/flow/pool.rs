//! Which records are free: a stack of used ones and a mark above which none was ever used.
//!
//! The stack's head is one word, a count of pops above a line number, so that a pop that was
//! overtaken fails even if the same record is on top again. Links are in word 7 of the Orig lines.

use super::layout::{Layout, W_FREE, W_FRESH, W_ORPHANS};
use super::record::{FlowId, FlowRef};
use super::region::Line;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};

/// The free records of one family.
#[derive(Clone, Copy)]
pub(super) struct Pool<'t> {
    lines: &'t [Line],
    first_line: u32,
    span: u32,
    capacity: u32,
    v6: bool,
}

impl<'t> Pool<'t> {
    pub(super) fn new(lines: &'t [Line], layout: &Layout, v6: bool) -> Self {
        let (first_line, span, capacity) = layout.records(v6);
        Self { lines, first_line, span, capacity, v6 }
    }

    /// Moves up to `want` free records to `out`.
    pub(super) fn take(&self, want: usize, out: &mut Vec<FlowId>) {
        for _ in 0..want {
            match pop(self.lines, self.head(W_FREE), self.v6) {
                Some(id) => out.push(id),
                None => break,
            }
        }
        if out.is_empty() {
            out.extend(self.take_fresh(want as u32));
        }
    }

    fn take_fresh(&self, want: u32) -> impl Iterator<Item = FlowId> + use<'t> {
        let (first, span, v6) = (self.first_line, self.span, self.v6);
        let mark = self.head(W_FRESH);
        let above = |n: u64| (n + u64::from(want)).min(u64::from(self.capacity));
        let old = mark.fetch_update(Relaxed, Relaxed, |n| Some(above(n))).unwrap_or(0);
        (old as u32..above(old) as u32).map(move |n| FlowId::new(first + n * span, v6))
    }

    /// Takes records back.
    pub(super) fn give(&self, ids: impl Iterator<Item = FlowId>) {
        for id in ids {
            push(self.lines, self.head(W_FREE), id);
        }
    }

    /// Number of records ever used; the others have never been written.
    pub(super) fn fresh(&self) -> u32 {
        (self.head(W_FRESH).load(Relaxed) as u32).min(self.capacity)
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The record with this number, in direction Orig.
    pub(super) fn record(&self, number: u32) -> Option<FlowRef<'t>> {
        let line = self.first_line.checked_add(number.checked_mul(self.span)?)?;
        FlowRef::new(self.lines, FlowId::new(line, self.v6)).filter(|_| number < self.capacity)
    }

    /// Empties the stack; for recovery, which builds it anew.
    pub(super) fn reset(&self, fresh: u32) {
        self.head(W_FREE).store(0, Relaxed);
        self.head(W_ORPHANS).store(0, Relaxed);
        self.head(W_FRESH).store(u64::from(fresh), Relaxed);
    }

    /// Leaves a removed record, with the stamp of its removal, to whoever comes by.
    pub(super) fn orphan(&self, id: FlowId, stamp: u64) {
        if let Some(flow) = FlowRef::new(self.lines, id) {
            flow.reply().set_link(stamp);
            push(self.lines, self.head(W_ORPHANS), id);
        }
    }

    /// Takes over a record that somebody left, with its stamp.
    pub(super) fn adopt(&self) -> Option<(u64, FlowId)> {
        let id = pop(self.lines, self.head(W_ORPHANS), self.v6)?;
        FlowRef::new(self.lines, id).map(|flow| (flow.reply().link(), id))
    }

    fn head(&self, word: usize) -> &'t AtomicU64 {
        &self.lines[1].0[word + usize::from(self.v6)]
    }
}

const LINE_MASK: u64 = u32::MAX as u64;
const POP: u64 = 1 << 32;

fn push(lines: &[Line], head: &AtomicU64, id: FlowId) {
    let Some(flow) = FlowRef::new(lines, id) else { return };
    let mut old = head.load(Relaxed);
    loop {
        flow.orig().set_link(old & LINE_MASK);
        let new = old & !LINE_MASK | u64::from(id.line());
        // Release: the link is there for whoever pops. Acquire keeps the chain of releases whole.
        match head.compare_exchange_weak(old, new, AcqRel, Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

fn pop(lines: &[Line], head: &AtomicU64, v6: bool) -> Option<FlowId> {
    let mut old = head.load(Acquire);
    loop {
        // Line 0 is the header: as a link it says that nothing follows.
        if old & LINE_MASK == 0 {
            return None;
        }
        let id = FlowId::new(old as u32, v6);
        let next = FlowRef::new(lines, id)?.link() & LINE_MASK;
        let new = (old & !LINE_MASK).wrapping_add(POP) | next;
        match head.compare_exchange_weak(old, new, AcqRel, Acquire) {
            Ok(_) => return Some(id),
            Err(now) => old = now,
        }
    }
}
