//! When is a removed record nobody's? When every worker has been between two batches since.
//!
//! Quiescence-based reclamation: a participant holds record references only between two of its
//! quiescent points. A removed record gets a stamp, the number of the epoch that its removal
//! began; a participant that passes a quiescent point announces the epoch it read; the record is
//! free once every participant that is awake has announced its stamp or a later one. A sleeping
//! participant holds nothing and blocks nobody.
//!
//! Ordering:
//! 1. A removal is complete (entries cleared) before its stamp is drawn, with AcqRel on `now`.
//!    Who reads `now` ≥ stamp with Acquire therefore sees the entries cleared, and can find the
//!    record no more.
//! 2. Between "asleep" and the first read of the table stands a SeqCst fence, as between the
//!    drawing of a stamp and the look at the others' announcements: either the reclaimer sees the
//!    sleeper awake, or the sleeper sees the entries cleared.

use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicU64, fence};

/// The announcements of all participants.
#[derive(Debug)]
pub(super) struct Epochs {
    now: Padded,
    slots: Box<[Padded]>,
}

/// A participant's seat. What `Epochs` knows of it is its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seat(usize);

/// A word with a pair of cache lines to itself (the prefetcher fetches pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// The seat is free.
const VACANT: u64 = 0;
/// The participant holds nothing.
const ASLEEP: u64 = 1;
/// First epoch.
const FIRST: u64 = 2;

impl Epochs {
    pub(super) fn new(participants: usize) -> Self {
        let slot = |_| Padded(AtomicU64::new(VACANT));
        Self { now: Padded(AtomicU64::new(FIRST)), slots: (0..participants).map(slot).collect() }
    }

    /// Takes a seat, asleep; `None` if all are taken.
    pub(super) fn join(&self) -> Option<Seat> {
        let free =
            |slot: &Padded| slot.0.compare_exchange(VACANT, ASLEEP, Relaxed, Relaxed).is_ok();
        self.slots.iter().position(free).map(Seat)
    }

    /// Gives the seat back.
    pub(super) fn leave(&self, seat: &Seat) {
        self.announce(seat, VACANT);
    }

    /// The participant will hold references from now on.
    pub(super) fn wake(&self, seat: &Seat) {
        self.announce(seat, self.now.0.load(Acquire));
        fence(SeqCst); // Rule 2.
    }

    /// The participant holds no references until it wakes.
    pub(super) fn sleep(&self, seat: &Seat) {
        self.announce(seat, ASLEEP);
    }

    /// The participant, awake, holds no reference right now.
    #[inline]
    pub(super) fn quiesce(&self, seat: &Seat) {
        // Release: all its reads so far come before whatever a reclaimer does after seeing it.
        self.announce(seat, self.now.0.load(Acquire));
    }

    /// The stamp for everything the caller has removed so far.
    pub(super) fn stamp(&self) -> u64 {
        let stamp = self.now.0.fetch_add(1, AcqRel) + 1;
        fence(SeqCst); // Rule 2.
        stamp
    }

    /// Every stamp up to this one is nobody's any more.
    pub(super) fn safe(&self) -> u64 {
        fence(SeqCst); // Rule 2, for stamps that another participant drew.
        let awake = |slot: &Padded| Some(slot.0.load(Acquire)).filter(|epoch| *epoch >= FIRST);
        self.slots.iter().filter_map(awake).min().unwrap_or(u64::MAX)
    }

    fn announce(&self, seat: &Seat, epoch: u64) {
        if let Some(slot) = self.slots.get(seat.0) {
            slot.0.store(epoch, Release);
        }
    }

    /// The seat's number, below the number of participants.
    pub(super) fn number(seat: &Seat) -> usize {
        seat.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_safe_after_everybody_awake_quiesced() {
        let epochs = Epochs::new(3);
        let (a, b) = (epochs.join().unwrap(), epochs.join().unwrap());
        epochs.wake(&a);
        epochs.wake(&b);
        let stamp = epochs.stamp();
        assert!(epochs.safe() < stamp);
        epochs.quiesce(&a);
        assert!(epochs.safe() < stamp);
        epochs.quiesce(&b);
        assert!(epochs.safe() >= stamp);
    }

    #[test]
    fn a_sleeper_blocks_nobody_and_a_seat_can_be_taken_again() {
        let epochs = Epochs::new(1);
        let a = epochs.join().unwrap();
        assert_eq!(epochs.join(), None);
        epochs.wake(&a);
        let stamp = epochs.stamp();
        epochs.sleep(&a);
        assert!(epochs.safe() >= stamp);
        epochs.leave(&a);
        assert!(epochs.join().is_some());
    }
}
