//! What the agent counts, in Prometheus' form, and its health.
//!
//! Nothing is counted here: a scrape reads what the pipeline and the publisher know.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use margay_authz::Authorizer;
use margay_health::{Health, MetricFamily, counter, counters, gauge, gauges};
use tokio::sync::watch;

use crate::flowlog;
use crate::node::Addresses;
use crate::pipeline::Progress;
use crate::publisher::View;

/// What is read at a scrape.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) addresses: watch::Receiver<Addresses>,
    /// Who answers proxies, if any may ask.
    pub(crate) authorizer: Option<Authorizer>,
    /// What the flow log has done, if there is one.
    pub(crate) flows: Option<Arc<flowlog::Counts>>,
}

// === impl Sources ===

impl Health for Sources {
    fn metrics(&self) -> Vec<MetricFamily> {
        let build = [([("version", env!("CARGO_PKG_VERSION"))], 1.0)];
        let mut families = vec![gauges("margay_build_info", "Release of this program", build)];
        families.extend(self.pipeline());
        families.extend(self.publisher());
        families.extend(self.ipam());
        families.extend(self.authz());
        families.extend(self.flow_log());
        families
    }

    fn liveness(&self) -> Result<(), String> {
        // The senders live as long as the loops.
        for (name, runs) in [
            ("the compiler", self.progress.has_changed().is_ok()),
            ("the publisher", self.view.has_changed().is_ok()),
        ] {
            if !runs {
                return Err(format!("{name} has stopped"));
            }
        }
        Ok(())
    }

    fn readiness(&self) -> Result<(), String> {
        self.liveness()?;
        let Some(revision) = self.progress.borrow().revision else {
            return Err("the datastore has not been read completely".into());
        };
        let view = self.view.borrow();
        if !view.forwards() {
            let why = view.trouble.as_deref().unwrap_or("it has not acknowledged a state yet");
            return Err(format!(
                "no state is in force in margayd (of {} compiled): {why}",
                revision.0
            ));
        }
        Ok(())
    }
}

impl Sources {
    fn pipeline(&self) -> Vec<MetricFamily> {
        let progress = self.progress.borrow();
        let objects = progress.objects.iter();
        let objects = objects
            .map(|(kind, count)| ([("group", kind.group()), ("kind", kind.kind())], *count as f64));
        let help = "Objects of the datastore that are known, by kind";
        let mut families = vec![gauges("margay_datastore_objects", help, objects)];
        let work = progress.work;
        families.extend(
            [
                ("batches", "Batches of changes that were compiled", progress.batches),
                ("failures", "Objects that could not be compiled", progress.failures),
                (
                    "selectors_evaluated",
                    "Comparisons of a selector with an endpoint, a network set or a pod",
                    work.selectors_evaluated,
                ),
                (
                    "policies",
                    "Policies and profiles whose rules were compiled",
                    work.policies_compiled,
                ),
                ("endpoints", "Endpoints whose tiers were put together", work.endpoints_recomputed),
                ("services", "Services whose backends were chosen", work.services_compiled),
            ]
            .map(|(name, help, value)| {
                counter(&format!("margay_compile_{name}_total"), help, value as f64)
            }),
        );
        let busy = progress.busy.as_secs_f64();
        families.push(counter("margay_compile_seconds_total", "Time spent on compiling", busy));
        families
    }

    fn publisher(&self) -> impl Iterator<Item = MetricFamily> {
        let compiled = self.progress.borrow().revision.unwrap_or_default().0;
        let view = self.view.borrow();
        let down = view.endpoints.values().filter(|state| state.is_err()).count();
        let gauges = [
            ("connected", "Whether margayd is connected", u64::from(view.connected)),
            ("compiled_revision", "Last state that was compiled", compiled),
            ("revision", "State in force in margayd; 0 for none of this agent", view.in_force.0),
            ("generation", "Generation in force in margayd", view.generation),
            ("endpoints_down", "Endpoints that margayd could not attach", down as u64),
        ];
        let counters = [
            ("connections", "Connections to margayd", view.counts.connections),
            ("full_states", "Full states that were sent", view.counts.full_states),
            ("commits", "Deltas that were sent", view.counts.commits),
            ("updates", "Changes in full states and deltas", view.counts.updates),
            ("refusals", "States and deltas that margayd refused", view.counts.refusals),
        ];
        let gauges = gauges.map(|(name, help, value)| {
            gauge(&format!("margay_publisher_{name}"), help, value as f64)
        });
        let counters = counters.map(|(name, help, value)| {
            counter(&format!("margay_publisher_{name}_total"), help, value as f64)
        });
        gauges.into_iter().chain(counters)
    }

    fn authz(&self) -> Option<MetricFamily> {
        let counts = self.authorizer.as_ref()?.counts();
        let counts =
            counts.map(|c| ([("verdict", c.verdict), ("reason", c.reason)], c.count as f64));
        let help = "Requests that proxies asked about, by the answer and what decided";
        Some(counters("margay_authz_checks_total", help, counts))
    }

    fn flow_log(&self) -> Option<MetricFamily> {
        let counts = self.flows.as_ref()?;
        let counts = [
            ("written", &counts.lines),
            ("no_room", &counts.dropped),
            ("missed", &counts.lost),
            ("refused", &counts.unwritten),
        ];
        let counts = counts.map(|(fate, n)| ([("fate", fate)], n.load(Relaxed) as f64));
        let help = "Lines of the flow log, and the reports and lines that it has not got: no room \
                    in an interval, missed by the dataplane, refused by file or collector";
        Some(counters("margay_flow_log_total", help, counts))
    }

    fn ipam(&self) -> [MetricFamily; 3] {
        let Addresses { blocks, total, used } = *self.addresses.borrow();
        [
            ("blocks", "Blocks of addresses of this node", blocks),
            ("addresses", "Addresses in this node's blocks", total),
            ("addresses_used", "Of them those in use", used),
        ]
        .map(|(name, help, value)| gauge(&format!("margay_ipam_{name}"), help, value as f64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use margay_resources::Kind;

    use super::*;
    use crate::publisher::Revision;

    fn with(progress: Progress, view: View) -> (Arc<Sources>, impl Sized) {
        let addresses = Addresses { blocks: 2, total: 128, used: 5 };
        let (tell_progress, progress) = watch::channel(progress);
        let (tell_view, view) = watch::channel(view);
        let (tell_addresses, addresses) = watch::channel(addresses);
        let authorizer = Some(Authorizer::new(watch::channel(None).1));
        let metrics = Arc::new(Sources { progress, view, addresses, authorizer, flows: None });
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
        let text = margay_health::text(&metrics.metrics()).unwrap();
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
            "margay_authz_checks_total{verdict=\"deny\",reason=\"not-ready\"} 0",
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
