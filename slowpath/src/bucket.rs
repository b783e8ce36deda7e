//! Token buckets: how much each port may cause in a second.

use std::collections::BTreeMap;

use crate::punt::PortId;

/// One token, in the unit buckets count in: so a millisecond at a rate of one a second is one unit.
const TOKEN: u64 = 1000;

/// A bucket for each port, all of the same rate; each holds at most one second's worth.
#[derive(Debug)]
pub struct Buckets {
    rate: u32,
    ports: BTreeMap<PortId, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// In thousandths of a token.
    level: u64,
    /// Milliseconds at which `level` was true.
    at: u64,
}

// === impl Buckets ===

impl Buckets {
    /// Buckets that fill with `rate` tokens a second and start full.
    pub fn new(rate: u32) -> Self {
        Self { rate, ports: BTreeMap::new() }
    }

    /// Changes the rate; levels above the new second's worth are cut at their next use.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// Takes one token from the port's bucket; `false` where there is none.
    pub fn take(&mut self, port: PortId, now_ms: u64) -> bool {
        let rate = u64::from(self.rate);
        let full = rate * TOKEN;
        let bucket = self.ports.entry(port).or_insert(Bucket { level: full, at: now_ms });
        let gained = now_ms.saturating_sub(bucket.at).saturating_mul(rate);
        bucket.level = bucket.level.saturating_add(gained).min(full);
        bucket.at = bucket.at.max(now_ms);
        match bucket.level.checked_sub(TOKEN) {
            Some(rest) => {
                bucket.level = rest;
                true
            }
            None => false,
        }
    }

    /// Forgets a port.
    pub fn forget(&mut self, port: PortId) {
        self.ports.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_asked_once_a_millisecond_gets_its_rate_and_one_burst() {
        let mut buckets = Buckets::new(100);
        let granted = (0..10_000).filter(|now| buckets.take(7, *now)).count();
        assert!((1_098..=1_100).contains(&granted), "{granted}");
    }

    #[test]
    fn ports_do_not_share_and_a_gone_port_starts_anew() {
        let mut buckets = Buckets::new(1);
        assert!(buckets.take(1, 0));
        assert!(!buckets.take(1, 0));
        assert!(buckets.take(2, 0));
        buckets.forget(1);
        assert!(buckets.take(1, 0));
    }

    #[test]
    fn a_rate_of_zero_grants_nothing_and_time_going_back_nothing_more() {
        assert!(!Buckets::new(0).take(1, 5));
        let mut buckets = Buckets::new(1);
        assert!(buckets.take(1, 5_000));
        assert!(!buckets.take(1, 0));
        assert!(!buckets.take(1, 5_999));
        assert!(buckets.take(1, 6_000));
    }
}
