//! A point in time.

/// A point in time, by a clock that goes on over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds: what flows are aged by. Wraps.
    pub ms: u32,
    /// Nanoseconds of the same clock: what packets are paced by.
    pub ns: u64,
}

impl From<u32> for Moment {
    /// Of a clock that knows milliseconds only.
    fn from(ms: u32) -> Self {
        Self { ms, ns: u64::from(ms) * 1_000_000 }
    }
}
