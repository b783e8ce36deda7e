//! Metrics and health of a process over HTTP: `/metrics`, `/liveness`, `/readiness`.
//!
//! A process implements [`Health`]; nothing is counted here, a scrape asks it. [`family`] makes what
//! it answers. The form is Prometheus' text exposition format 0.0.4.

mod family;
mod serve;

pub use family::{counter, counters, gauge, gauges};
pub use prometheus::proto::MetricFamily;
pub use serve::{Health, serve, text};
