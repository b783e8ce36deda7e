//! A port's share of the slow path.

use margay_engine::PortId;

/// Frames of one port that may be punted at once.
const BURST: u32 = 1024;
/// Frames that may follow every millisecond.
const RATE: u32 = 64;

/// One token bucket for each port that ever punted here, so that a flood of one port leaves the
/// slow path to the others.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    ports: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    spent: u32,
    since: u32,
}

impl Quota {
    /// Whether a frame of the port may be punted at `now` (milliseconds, wrapping).
    pub(crate) fn take(&mut self, port: PortId, now: u32) -> bool {
        let index = usize::from(port.0);
        if self.ports.len() <= index {
            self.ports.resize(index + 1, Bucket { spent: 0, since: now });
        }
        let Some(bucket) = self.ports.get_mut(index) else { return false };
        let earned = now.wrapping_sub(bucket.since).saturating_mul(RATE);
        *bucket = Bucket { spent: bucket.spent.saturating_sub(earned), since: now };
        let allowed = bucket.spent < BURST;
        bucket.spent += u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_leaves_others_alone() {
        let mut quota = Quota::default();
        let (loud, other) = (PortId(7), PortId(2));
        let mut taken = |port, now, tries| (0..tries).filter(|_| quota.take(port, now)).count();
        assert_eq!(taken(loud, u32::MAX, 5000), 1024);
        assert_eq!(taken(other, u32::MAX, 10), 10);
        assert_eq!(taken(loud, 1, 5000), 128, "two milliseconds, over the clock's end");
        assert_eq!(taken(loud, 10_000, 5000), 1024);
    }
}
