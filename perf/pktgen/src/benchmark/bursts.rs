//! Back-to-back frames: the longest burst of which nothing is lost (RFC 2544 §26.4, RFC 9004).

use serde::Serialize;

use crate::benchmark::{
    Procedure,
    bench::{Bench, Load},
    search::Search,
};

/// Bursts that pass.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct BackToBack {
    /// Frames, in the mean of the repeated searches.
    pub(crate) frames: f64,
    /// Seconds that such a burst takes.
    pub(crate) seconds: f64,
    /// Packets a second in a burst: the highest rate.
    pub(crate) rate: f64,
    /// Whether that is what was asked for.
    pub(crate) rate_kept: bool,
    pub(crate) repeats: u32,
    /// Whether longer bursts were lost in part; if not, the length of a trial was the limit.
    pub(crate) limited_by_device: bool,
}

impl Bench {
    pub(crate) fn bursts(&mut self, size: usize) -> anyhow::Result<BackToBack> {
        let (seconds, repeats) = self.measure(Procedure::BackToBack);
        let mut load =
            Load { rate: self.max_rate(size)?, seconds: Some(seconds), ..Load::default() };
        let first = self.trial(size, load)?;
        load.seconds = None;
        let (mut sum, mut lost) = (0.0, false);
        for _ in 0..repeats {
            let mut search = Search::new(first.rate * seconds, self.asked.resolution);
            while let Some(frames) = search.next().filter(|frames| *frames >= 1.0) {
                let load = Load { packets: Some(frames as u64), ..load };
                match self.trial(size, load)?.loss() <= self.asked.tolerance {
                    true => search.passed(frames),
                    false => search.lost(frames),
                }
            }
            sum += search.result();
            lost |= search.found_loss();
        }
        let frames = sum / f64::from(repeats);
        Ok(BackToBack {
            frames,
            seconds: frames / first.rate.max(1.0),
            rate: first.rate,
            rate_kept: first.kept,
            repeats,
            limited_by_device: lost,
        })
    }
}
