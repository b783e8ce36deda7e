//! Throughput: the highest rate at which nothing is lost (RFC 2544 §26.1, RFC 8219 §7.1).

use serde::Serialize;

use crate::benchmark::{
    Procedure,
    bench::{Bench, Load},
    search::Search,
};

/// A throughput.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Throughput {
    /// In each direction that packets are sent in.
    pub(crate) packets_per_second: f64,
    /// Gb/s of frames, checksum included.
    pub(crate) gigabits_per_second: f64,
    /// Whether the highest rate asked for was sent.
    pub(crate) rate_kept: bool,
    pub(crate) trials: u32,
    /// Whether the device lost packets above it. If not, the generator or the highest rate asked for
    /// was the limit, and the device may do more.
    pub(crate) limited_by_device: bool,
}

impl Bench {
    /// Searches, from the highest rate down.
    pub(crate) fn throughput(&mut self, size: usize) -> anyhow::Result<Throughput> {
        let (seconds, _) = self.measure(Procedure::Throughput);
        let (tolerance, resolution) = (self.asked.tolerance, self.asked.resolution);
        let most = self.max_rate(size)?;
        let mut trials = 1;
        let load = Load { rate: most, seconds: Some(seconds), ..Load::default() };
        let first = self.trial(size, load)?;
        // Without a highest rate, the generator's own is one.
        let mut search = Search::new(most.unwrap_or(first.rate), resolution);
        let mut trial = first;
        let mut asked = most.unwrap_or(first.rate);
        loop {
            match (trial.loss() <= tolerance, trial.kept) {
                (true, true) => search.passed(asked),
                (true, false) => search.offered_no_more(trial.rate),
                (false, true) => search.lost(asked),
                (false, false) => search.lost(trial.rate),
            }
            let Some(rate) = search.next().filter(|rate| *rate >= 1.0) else { break };
            asked = rate;
            trials += 1;
            trial = self.trial(size, Load { rate: Some(rate), ..load })?;
        }
        let packets_per_second = search.result();
        Ok(Throughput {
            packets_per_second,
            gigabits_per_second: packets_per_second * size as f64 * 8.0 / 1e9,
            rate_kept: first.kept,
            trials,
            limited_by_device: search.found_loss(),
        })
    }
}
