//! Latency and its variation at the throughput's rate (RFC 2544 §26.2; RFC 8219 §7.2 and §7.3).
//!
//! The RFCs tag one frame, or 500, of a trial; here all frames of it count. A percentile is the
//! median of those of the repeated trials.

use serde::Serialize;

use crate::{
    benchmark::{
        Procedure,
        bench::{Bench, Load, Trial},
        result::Row,
    },
    delay::{Delay, Variation},
};

/// Time under way in microseconds, store and forward, from user space to user space.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    /// Packets a second.
    pub(crate) rate: f64,
    /// Whether that rate was kept in every trial.
    pub(crate) rate_kept: bool,
    pub(crate) repeats: u32,
    /// RFC 2544's value is the `mean`, RFC 8219's typical latency `p50` and worst case `p99.9`.
    #[serde(flatten)]
    pub(crate) delay: Delay,
    /// Share lost meanwhile.
    pub(crate) loss: f64,
}

/// How it varies.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct DelayVariation {
    pub(crate) rate: f64,
    pub(crate) rate_kept: bool,
    pub(crate) repeats: u32,
    #[serde(flatten)]
    pub(crate) variation: Variation,
}

impl Bench {
    pub(crate) fn latency(&mut self, size: usize, row: &Row) -> anyhow::Result<Latency> {
        let (rate, trials) = self.at_throughput(Procedure::Latency, size, row)?;
        let of = |value: fn(&Delay) -> f64| median(trials.iter().map(|trial| value(&trial.delay)));
        let (sent, received) = trials
            .iter()
            .fold((0, 0), |(sent, received), trial| (sent + trial.sent, received + trial.received));
        Ok(Latency {
            rate,
            rate_kept: trials.iter().all(|trial| trial.kept),
            repeats: trials.len() as u32,
            delay: Delay {
                min: of(|delay| delay.min),
                mean: trials.iter().map(|trial| trial.delay.mean).sum::<f64>()
                    / trials.len() as f64,
                p50: of(|delay| delay.p50),
                p99: of(|delay| delay.p99),
                p999: of(|delay| delay.p999),
                max: trials.iter().map(|trial| trial.delay.max).fold(0.0, f64::max),
            },
            loss: sent.saturating_sub(received) as f64 / sent.max(1) as f64,
        })
    }

    pub(crate) fn variation(&mut self, size: usize, row: &Row) -> anyhow::Result<DelayVariation> {
        let (rate, trials) = self.at_throughput(Procedure::DelayVariation, size, row)?;
        let of = |value: fn(&Variation) -> f64| {
            median(trials.iter().filter_map(|trial| trial.variation.as_ref().map(value)))
        };
        Ok(DelayVariation {
            rate,
            rate_kept: trials.iter().all(|trial| trial.kept),
            repeats: trials.len() as u32,
            variation: Variation {
                pdv: of(|variation| variation.pdv),
                ipdv_p50: of(|variation| variation.ipdv_p50),
                ipdv_p999: of(|variation| variation.ipdv_p999),
                ipdv_max: of(|variation| variation.ipdv_max),
            },
        })
    }

    /// Repeated trials at the throughput's rate, or what could be sent of it.
    fn at_throughput(
        &mut self,
        procedure: Procedure,
        size: usize,
        row: &Row,
    ) -> anyhow::Result<(f64, Vec<Trial>)> {
        let rate = self.rate_for(size, row)?;
        anyhow::ensure!(rate >= 1.0, "frames of {size} bytes: no rate without loss to measure at");
        let (seconds, repeats) = self.measure(procedure);
        let load = Load {
            rate: Some(rate),
            seconds: Some(seconds),
            packets: None,
            variation: procedure == Procedure::DelayVariation,
        };
        let trials =
            (0..repeats).map(|_| self.trial(size, load)).collect::<anyhow::Result<Vec<_>>>()?;
        let kept = trials.iter().all(|trial| trial.kept);
        Ok((if kept { rate } else { median(trials.iter().map(|trial| trial.rate)) }, trials))
    }
}

/// The median; 0 of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
