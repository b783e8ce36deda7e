//! Binary search for the highest load without loss.

/// What is known: a load that passed (0 at first), and one that did not or cannot be offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Search {
    passed: f64,
    failed: f64,
    resolution: f64,
    /// Whether the load above which nothing is known was lost, not just never offered.
    lost: bool,
}

// === impl Search ===

impl Search {
    /// Between nothing and `most`, to that share of the result.
    pub(crate) fn new(most: f64, resolution: f64) -> Self {
        Self { passed: 0.0, failed: most, resolution, lost: false }
    }

    /// The load to try next, or none once it is known well enough. The first one is `most` itself.
    pub(crate) fn next(&self) -> Option<f64> {
        if !self.lost && self.passed == 0.0 {
            return Some(self.failed);
        }
        let known = self.failed - self.passed <= self.failed * self.resolution;
        (!known).then_some((self.passed + self.failed) / 2.0)
    }

    /// That load was lost in part.
    pub(crate) fn lost(&mut self, load: f64) {
        self.failed = self.failed.min(load);
        self.lost = true;
    }

    /// That load passed whole.
    pub(crate) fn passed(&mut self, load: f64) {
        self.passed = self.passed.max(load);
        self.failed = self.failed.max(load);
    }

    /// Asked for more, no more than this could be offered, which passed.
    pub(crate) fn offered_no_more(&mut self, load: f64) {
        self.passed = self.passed.max(load);
        self.failed = self.passed;
    }

    /// The highest load that passed.
    pub(crate) fn result(&self) -> f64 {
        self.passed
    }

    /// Whether a loss, not the end of what can be offered, was the limit.
    pub(crate) fn found_loss(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches a device that loses above `limit`; the result and the number of trials.
    fn search(most: f64, limit: f64, resolution: f64) -> (f64, u32) {
        let mut search = Search::new(most, resolution);
        let mut trials = 0;
        while let Some(load) = search.next() {
            trials += 1;
            if load <= limit {
                search.passed(load)
            } else {
                search.lost(load)
            }
            assert!(trials < 100, "no end");
            if search.failed < 1.0 {
                break;
            }
        }
        (search.result(), trials)
    }

    #[test]
    fn a_device_that_loses_nothing_takes_one_trial() {
        assert_eq!(search(1e6, 2e6, 0.01), (1e6, 1));
    }

    #[test]
    fn a_generator_that_cannot_offer_more_ends_the_search() {
        let mut search = Search::new(10.0, 0.01);
        search.lost(10.0);
        assert_eq!(search.next(), Some(5.0));
        search.offered_no_more(4.5);
        assert_eq!((search.next(), search.result()), (None, 4.5));
    }

    proptest! {
        #[test]
        fn the_limit_of_a_device_is_found_within_the_resolution(limit in 1e3..1e7_f64, over in 1.0..50.0_f64) {
            let (found, trials) = search(limit * over, limit, 0.01);
            prop_assert!(found <= limit && found >= limit * 0.98, "{found} of {limit}");
            prop_assert!(trials <= 16);
        }
    }
}
