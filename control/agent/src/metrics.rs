//! What the agent counts, in Prometheus' form, and its health.
//!
//! Nothing is counted here: a scrape reads what the pipeline and the publisher know.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::http::Health;
use crate::node::Addresses;
use crate::pipeline::Progress;
use crate::publisher::View;

/// What is read at a scrape.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) addresses: watch::Receiver<Addresses>,
}

/// The agent's metrics and health.
pub(crate) struct Metrics {
    registry: Registry,
    sources: Sources,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new(sources: Sources) -> Arc<Self> {
        let mut registry = Registry::default();
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        // The suffix `_info` is the encoder's.
        registry.register("margay_build", "Release of this program", build);
        registry.register_collector(Box::new(sources.clone()));
        Arc::new(Self { registry, sources })
    }
}

impl Health for Metrics {
    fn metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn liveness(&self) -> Result<(), String> {
        // The senders live as long as the loops.
        for (name, runs) in [
            ("the compiler", self.sources.progress.has_changed().is_ok()),
            ("the publisher", self.sources.view.has_changed().is_ok()),
        ] {
            if !runs {
                return Err(format!("{name} has stopped"));
            }
        }
        Ok(())
    }

    fn readiness(&self) -> Result<(), String> {
        self.liveness()?;
        let Some(revision) = self.sources.progress.borrow().revision else {
            return Err("the datastore has not been read completely".into());
        };
        let view = self.sources.view.borrow();
        if view.in_force.0 == 0 {
            let why = view.trouble.as_deref().unwrap_or("it has not acknowledged a state yet");
            return Err(format!(
                "no state is in force in margayd (of {} compiled): {why}",
                revision.0
            ));
        }
        Ok(())
    }
}

// === impl Sources ===

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.pipeline(&mut encoder)?;
        self.publisher(&mut encoder)?;
        let Addresses { blocks, total, used } = *self.addresses.borrow();
        gauge(&mut encoder, "margay_ipam_blocks", "Blocks of addresses of this node", blocks)?;
        gauge(&mut encoder, "margay_ipam_addresses", "Addresses in this node's blocks", total)?;
        gauge(&mut encoder, "margay_ipam_addresses_used", "Of them those in use", used)
    }
}

impl Sources {
    fn pipeline(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let progress = self.progress.borrow();
        let help = "Objects of the datastore that are known, by kind";
        let mut family =
            encoder.encode_descriptor("margay_datastore_objects", help, None, MetricType::Gauge)?;
        for (kind, count) in &progress.objects {
            let labels = [("group", kind.group()), ("kind", kind.kind())];
            ConstGauge::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let work = progress.work;
        for (name, help, value) in [
            ("batches", "Batches of changes that were compiled", progress.batches),
            ("failures", "Objects that could not be compiled", progress.failures),
            (
                "selectors_evaluated",
                "Comparisons of a selector with an endpoint, a network set or a pod",
                work.selectors_evaluated,
            ),
            ("policies", "Policies and profiles whose rules were compiled", work.policies_compiled),
            ("endpoints", "Endpoints whose tiers were put together", work.endpoints_recomputed),
            ("services", "Services whose backends were chosen", work.services_compiled),
        ] {
            counter(encoder, &format!("margay_compile_{name}"), help, value)?;
        }
        let busy = ConstCounter::new(progress.busy.as_secs_f64());
        let metric = encoder.encode_descriptor(
            "margay_compile",
            "Time spent on compiling",
            Some(&Unit::Seconds),
            busy.metric_type(),
        )?;
        busy.encode(metric)
    }

    fn publisher(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let compiled = self.progress.borrow().revision.unwrap_or_default().0;
        let view = self.view.borrow();
        for (name, help, value) in [
            ("connected", "Whether margayd is connected", u64::from(view.connected)),
            ("compiled_revision", "Last state that was compiled", compiled),
            ("revision", "State in force in margayd; 0 for none of this agent", view.in_force.0),
            ("generation", "Generation in force in margayd", view.generation),
            (
                "endpoints_down",
                "Endpoints that margayd could not attach",
                view.endpoints.values().filter(|state| state.is_err()).count() as u64,
            ),
        ] {
            gauge(encoder, &format!("margay_publisher_{name}"), help, value)?;
        }
        for (name, help, value) in [
            ("connections", "Connections to margayd", view.counts.connections),
            ("full_states", "Full states that were sent", view.counts.full_states),
            ("commits", "Deltas that were sent", view.counts.commits),
            ("updates", "Changes in full states and deltas", view.counts.updates),
            ("refusals", "States and deltas that margayd refused", view.counts.refusals),
        ] {
            counter(encoder, &format!("margay_publisher_{name}"), help, value)?;
        }
        Ok(())
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use margay_resources::Kind;

    use super::*;
    use crate::publisher::Revision;

    fn with(progress: Progress, view: View) -> (Arc<Metrics>, impl Sized) {
        let addresses = Addresses { blocks: 2, total: 128, used: 5 };
        let (tell_progress, progress) = watch::channel(progress);
        let (tell_view, view) = watch::channel(view);
        let (tell_addresses, addresses) = watch::channel(addresses);
        let metrics = Metrics::new(Sources { progress, view, addresses });
        (metrics, (tell_progress, tell_view, tell_addresses))
    }

    #[test]
    fn a_scrape_shows_what_is_known() {
        let progress = Progress {
            revision: Some(Revision(7)),
            objects: [(Kind::Pod, 3), (Kind::Tier, 1)].into(),
            busy: Duration::from_millis(1500),
            ..Progress::default()
        };
        let view = View { connected: true, in_force: Revision(6), ..View::default() };
        let (metrics, _alive) = with(progress, view);
        let text = metrics.metrics().unwrap();
        for line in [
            concat!("margay_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "margay_datastore_objects{group=\"\",kind=\"Pod\"} 3",
            "margay_datastore_objects{group=\"projectcalico.org\",kind=\"Tier\"} 1",
            "margay_compile_seconds_total 1.5",
            "margay_compile_policies_total 0",
            "margay_publisher_connected 1",
            "margay_publisher_compiled_revision 7",
            "margay_publisher_revision 6",
            "margay_publisher_refusals_total 0",
            "margay_ipam_addresses_used 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn ready_means_in_force_and_live_means_that_the_loops_run() {
        let (metrics, alive) = with(Progress::default(), View::default());
        assert!(metrics.readiness().unwrap_err().contains("datastore has not been read"));
        drop(alive);
        assert_eq!(metrics.liveness(), Err("the compiler has stopped".into()));

        let read = Progress { revision: Some(Revision(1)), ..Progress::default() };
        let trouble = Some("nobody answers".into());
        let (metrics, _alive) = with(read.clone(), View { trouble, ..View::default() });
        assert!(metrics.readiness().unwrap_err().contains("nobody answers"));
        let view = View { in_force: Revision(1), ..View::default() };
        let (metrics, _alive) = with(read, view);
        assert_eq!(metrics.readiness(), Ok(()));
    }
}
