//! Packets that no flow counts for the rules that decided them: those of untracked policies. Each
//! thread sums its own and hands the sums to whoever keeps accounts, once a batch.

use arrayvec::ArrayVec;
use margay_tables::flow::{Journal, Tally};

/// Rules that are summed apart before the sums are handed on.
const RULES: usize = 8;

/// Sums that were not handed on yet.
#[derive(Debug, Default)]
pub(crate) struct Tallies(ArrayVec<Tally, RULES>);

// === impl Tallies ===

impl Tallies {
    /// Adds packets; those that it has no room for are given back.
    pub(crate) fn add(&mut self, more: Tally, journal: Option<&Journal>) -> Result<(), Tally> {
        let same = |sum: &&mut Tally| {
            (sum.rule, sum.ingress, sum.allowed) == (more.rule, more.ingress, more.allowed)
        };
        if let Some(sum) = self.0.iter_mut().find(same) {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
            return Ok(());
        }
        if self.0.is_full() {
            self.hand_on(journal);
        }
        self.0.try_push(more).map_err(|full| full.element())
    }

    /// Hands the sums on, as many as the journal takes; the others wait.
    #[inline]
    pub(crate) fn hand_on(&mut self, journal: Option<&Journal>) {
        if !self.0.is_empty() {
            self.0.retain(|sum| journal.is_some_and(|journal| !journal.tally(*sum)));
        }
    }
}
