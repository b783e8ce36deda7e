//! Time under way: its histogram, and how it varies (RFC 5481).

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time under way that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// Times under way, in nanoseconds, to three digits.
#[derive(Debug)]
pub(crate) struct Delays {
    way: Histogram<u64>,
    /// Difference to the packet before, its sign left out, and that packet's.
    variation: Option<(Histogram<u64>, Option<u64>)>,
}

/// Time under way in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Delay {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// How the time under way varies, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Variation {
    /// Packet delay variation (RFC 5481 §4.2): the 99.9th percentile of the delay less its minimum.
    pub(crate) pdv: f64,
    /// Inter-packet delay variation (RFC 5481 §4.1), its sign left out: median.
    pub(crate) ipdv_p50: f64,
    /// 99.9th percentile.
    pub(crate) ipdv_p999: f64,
    /// The greatest.
    pub(crate) ipdv_max: f64,
}

// === impl Delays ===

impl Delays {
    /// Nothing seen yet; differences between packets are kept only if asked for.
    pub(crate) fn new(variation: bool) -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3);
        let variation =
            variation.then(histogram).transpose()?.map(|differences| (differences, None));
        Ok(Self { way: histogram()?, variation })
    }

    /// Notes one packet's nanoseconds.
    pub(crate) fn note(&mut self, delay: u64) {
        self.way.saturating_record(delay.max(1));
        if let Some((differences, before)) = &mut self.variation
            && let Some(before) = before.replace(delay)
        {
            differences.saturating_record(delay.abs_diff(before).max(1));
        }
    }

    pub(crate) fn delay(&self) -> Delay {
        let quantile = |quantile| microseconds(self.way.value_at_quantile(quantile));
        Delay {
            min: microseconds(self.way.min()),
            mean: self.way.mean() / 1000.0,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: microseconds(self.way.max()),
        }
    }

    /// None if differences were not kept.
    pub(crate) fn variation(&self) -> Option<Variation> {
        let (differences, _) = self.variation.as_ref()?;
        let delay = self.delay();
        Some(Variation {
            pdv: delay.p999 - delay.min,
            ipdv_p50: microseconds(differences.value_at_quantile(0.5)),
            ipdv_p999: microseconds(differences.value_at_quantile(0.999)),
            ipdv_max: microseconds(differences.max()),
        })
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_variation_are_those_of_what_was_noted() {
        let mut delays = Delays::new(true).unwrap();
        for number in 0..1000 {
            delays.note(if number == 500 { 90_000 } else { 10_000 + number % 2 * 2000 });
        }
        let (delay, variation) = (delays.delay(), delays.variation().unwrap());
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 100.0;
        assert!(
            near(delay.min, 10.0) && near(delay.p99, 12.0) && near(delay.max, 90.0),
            "{delay:?}"
        );
        assert!(near(delay.p999, 12.0) && near(variation.pdv, 2.0), "{delay:?} {variation:?}");
        assert!(near(variation.ipdv_p50, 2.0) && near(variation.ipdv_max, 78.0), "{variation:?}");
    }

    #[test]
    fn nothing_seen_is_no_delay() {
        let delays = Delays::new(false).unwrap();
        assert_eq!((delays.delay().max, delays.variation().is_none()), (0.0, true));
    }
}
