//! Families of metrics out of numbers.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A counter; its name ends in `_total`.
#[must_use]
pub fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    counters(name, help, [([], value)])
}

/// Counters that differ in labels; each label is a name and a value.
#[must_use]
pub fn counters<'a, const LABELS: usize>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([(&'a str, &'a str); LABELS], f64)>,
) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples, |metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

/// A gauge.
#[must_use]
pub fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    gauges(name, help, [([], value)])
}

/// Gauges that differ in labels; each label is a name and a value.
#[must_use]
pub fn gauges<'a, const LABELS: usize>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([(&'a str, &'a str); LABELS], f64)>,
) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples, |metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

fn family<'a, const LABELS: usize>(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl IntoIterator<Item = ([(&'a str, &'a str); LABELS], f64)>,
    set: impl Fn(&mut Metric, f64),
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(labels, value)| {
        let pairs = labels.map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.into());
        set(&mut metric, value);
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}
