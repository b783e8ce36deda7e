//! The dataplane's clock: milliseconds since boot, sleep included, so that a restarted process
//! goes on with the times in the flow table.

use margay_engine::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot; wraps after 49 days.
#[inline]
pub fn now() -> u32 {
    now_ms() as u32
}

/// The time since boot.
#[inline]
pub fn moment() -> Moment {
    let ns = now_ns();
    Moment { ms: (ns / 1_000_000) as u32, ns }
}

/// Milliseconds since boot.
#[inline]
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

#[inline]
fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
