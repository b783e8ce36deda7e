//! Frame loss rate: at the highest rate and each tenth below, until two in a row lose nothing
//! (RFC 2544 §26.3).

use serde::Serialize;

use crate::benchmark::{
    Procedure,
    bench::{Bench, Load},
};

/// What is lost at a rate.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Loss {
    /// Of the highest rate.
    pub(crate) percent: u32,
    /// Packets a second that were sent.
    pub(crate) rate: f64,
    /// Whether that is what was asked for.
    pub(crate) rate_kept: bool,
    /// Share that was lost.
    pub(crate) lost: f64,
}

impl Bench {
    pub(crate) fn loss(&mut self, size: usize) -> anyhow::Result<Vec<Loss>> {
        let (seconds, _) = self.measure(Procedure::Loss);
        let mut most = self.max_rate(size)?;
        let (mut points, mut lossless) = (Vec::new(), 0);
        for percent in (1..=10).rev().map(|tenth| tenth * 10) {
            let rate = most.map(|most| most * f64::from(percent) / 100.0);
            let trial =
                self.trial(size, Load { rate, seconds: Some(seconds), ..Load::default() })?;
            // Without a highest rate that can be kept, the generator's own is one.
            if percent == 100 && !trial.kept {
                most = None;
            }
            most = most.or(Some(trial.rate));
            let (rate, rate_kept) = (trial.rate, trial.kept);
            points.push(Loss { percent, rate, rate_kept, lost: trial.loss() });
            lossless = if trial.loss() == 0.0 { lossless + 1 } else { 0 };
            if lossless == 2 {
                break;
            }
        }
        Ok(points)
    }
}
