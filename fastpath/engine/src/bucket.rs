//! A token bucket in one word, which all workers share.
//!
//! The word is the time until which everything that was let through is paid for, at the bucket's
//! rate (the virtual scheduling of GCRA, ITU-T I.371, and of earliest departure times). The bucket
//! is full when that time is past; it is empty when it lies ahead by the bucket's depth, and what
//! comes then is due when enough has been paid.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECOND: u64 = 1_000_000_000;

/// No bucket is deeper, in nanoseconds, so that sums of times have room.
const DEEPEST: u64 = 1 << 62;

/// How long the kernel's `tbf` lets a packet wait, as Calico and CNI's bandwidth plugin set it up, in
/// nanoseconds.
const LATENCY: u64 = 25_000_000;

/// At a rate that is slow for that, so many full packets may wait, in bits: TCP needs some under way.
const SLOW: u64 = 4 * 1514 * 8;

/// Nothing waits longer, in nanoseconds.
const LONGEST: u64 = SECOND;

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// See the module; nanoseconds.
    paid: AtomicU64,
    /// Units a second.
    rate: u64,
    /// The time that a full bucket is worth.
    depth: u64,
    /// How long something may wait.
    patience: u64,
}

// === impl Bucket ===

impl Bucket {
    /// A full bucket of `burst` units for what does not wait.
    pub(crate) fn policing(rate: u64, burst: u64) -> Self {
        let depth = u128::from(burst) * u128::from(SECOND) / u128::from(rate.max(1));
        let depth = u64::try_from(depth).map_or(DEEPEST, |depth| depth.min(DEEPEST));
        Self { paid: AtomicU64::new(0), rate, depth, patience: 0 }
    }

    /// A full bucket of `burst` bits for what waits a little where it comes too early.
    pub(crate) fn shaping(rate: u64, burst: u64) -> Self {
        let slow = (SLOW * SECOND).checked_div(rate).unwrap_or_default();
        Self { patience: slow.clamp(LATENCY, LONGEST), ..Self::policing(rate, burst) }
    }

    /// Takes `amount` units at `now` (nanoseconds); when they are due, now or later. `None`, and nothing
    /// is taken, where that is too late. What is larger than the bucket needs a full one.
    pub(crate) fn take(&self, now: u64, amount: u64) -> Option<u64> {
        let cost = self.cost(amount)?;
        let depth = self.depth.max(cost);
        let mut due = now;
        let take = |paid: u64| {
            let paid = paid.max(now).saturating_add(cost);
            due = paid.saturating_sub(depth).max(now);
            (due - now <= self.patience).then_some(paid)
        };
        self.paid.fetch_update(Relaxed, Relaxed, take).ok()?;
        Some(due)
    }

    /// Puts back what was taken and is not used.
    pub(crate) fn put_back(&self, amount: u64) {
        self.paid.fetch_sub(self.cost(amount).unwrap_or_default(), Relaxed);
    }

    /// The time that so many units take; `None` for ever.
    fn cost(&self, amount: u64) -> Option<u64> {
        amount.saturating_mul(SECOND).checked_div(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 7 * SECOND;
    const MS: u64 = 1_000_000;

    #[test]
    fn a_full_bucket_lets_its_burst_through_and_then_the_rate() {
        let bucket = Bucket::policing(1000, 5);
        let taken = |now| (0..100).filter(|_| bucket.take(now, 1) == Some(now)).count();
        assert_eq!(taken(NOW), 5);
        assert_eq!(taken(NOW), 0);
        assert_eq!(taken(NOW + 3 * MS), 3, "a thousand a second");
        assert_eq!(taken(NOW + SECOND), 5, "no more than the burst after a pause");
    }

    #[test]
    fn what_waits_is_due_at_the_rate_and_in_its_order() {
        // A packet of 1250 bytes a millisecond.
        let bucket = Bucket::shaping(10_000_000, 20_000);
        let due: Vec<_> = (0..5).map(|_| bucket.take(NOW, 10_000).unwrap() - NOW).collect();
        assert_eq!(due, [0, 0, MS, 2 * MS, 3 * MS]);
        assert_eq!(bucket.take(NOW + MS / 2, 10_000), Some(NOW + 4 * MS));
    }

    #[test]
    fn what_would_wait_too_long_is_refused_and_takes_nothing() {
        let bucket = Bucket::shaping(10_000_000, 10_000);
        let waiting = (0..1000).map_while(|_| bucket.take(NOW, 10_000)).count();
        assert_eq!(waiting, 26, "one at once, 25 ms of others");
        assert_eq!(bucket.take(NOW + MS, 10_000), Some(NOW + 26 * MS), "refusals were free");
    }

    #[test]
    fn a_slow_rate_lets_some_full_packets_wait() {
        let bucket = Bucket::shaping(100_000, 1000);
        let full = 1514 * 8;
        let waiting = (0..1000).map_while(|_| bucket.take(NOW, full)).count();
        assert_eq!(waiting, 5, "larger than the bucket, the first goes at once");
        let crawling = Bucket::shaping(1000, 1000);
        assert_eq!(crawling.take(NOW, full), Some(NOW));
        assert_eq!(crawling.take(NOW, full), None, "it would be due in twelve seconds");
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let bucket = Bucket::policing(10, 1);
        assert!(bucket.take(NOW, 1).is_some());
        bucket.put_back(1);
        assert!(bucket.take(NOW, 1).is_some());
        assert!(bucket.take(NOW, 1).is_none());
    }

    #[test]
    fn no_rate_is_no_packet_and_the_largest_numbers_are_no_accident() {
        assert_eq!(Bucket::shaping(0, 0).take(NOW, 1), None);
        let bucket = Bucket::shaping(u64::MAX, u64::MAX);
        assert_eq!(bucket.take(NOW, u64::MAX), Some(NOW));
        let bucket = Bucket::shaping(1, u64::MAX);
        assert!((0..10).all(|_| bucket.take(NOW, 500_000) == Some(NOW)));
    }
}
