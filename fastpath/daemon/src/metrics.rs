//! What the daemon counts, for `/metrics`, and its health.
//!
//! Nothing is counted here: all numbers are read at the moment they are asked for.

use std::sync::Arc;

use margay_engine::{Counters, census};
use margay_health::{Health, MetricFamily, counter, counters, gauge, gauges};
use margay_model::{DropReason, PuntReason};
use margay_protocol::proto;

use crate::accounts::counts::Count;
use crate::connections;
use crate::ports::Traffic;
use crate::shared::{Origin, Shared};
use crate::show::{self, Totals, received, traffic};

/// The daemon, as those see it who watch its health.
pub(crate) struct Numbers(pub(crate) Arc<Shared>);

impl Health for Numbers {
    fn metrics(&self) -> Vec<MetricFamily> {
        let totals = Totals::new(&self.0);
        let mut families = self.ports();
        families.extend(reasons(&totals));
        families.extend(self.stages());
        families.extend(self.flows(&totals));
        families.extend(self.connections());
        families.extend(self.names());
        families.extend(self.rules());
        families.push(self.generation());
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("component", "margayd")];
        families.push(gauges("margay_build_info", "What is running.", [(labels, 1.0)]));
        families
    }

    fn liveness(&self) -> Result<(), String> {
        Ok(())
    }

    fn readiness(&self) -> Result<(), String> {
        match self.0.view().origin {
            Origin::None => Err("no full state yet".into()),
            Origin::Saved | Origin::Agent => Ok(()),
        }
    }
}

impl Numbers {
    fn ports(&self) -> Vec<MetricFamily> {
        let (shared, view) = (&self.0, self.0.view());
        let ports = traffic(shared, &view);
        let names: Vec<_> = (0..shared.links.len()).map(|nth| nth.to_string()).collect();
        let workers = shared.links.iter().zip(&names);
        let workers =
            workers.map(|(link, nth)| ([("worker", &**nth)], received(link, &view) as f64));
        let help = "Frames received by a worker, on any port.";
        let mut families = vec![counters("margay_worker_rx_packets_total", help, workers)];
        let lost = shared.links.iter().zip(&names).flat_map(|(link, nth)| {
            let Counters { ring_full, no_frame, .. } = &*link.counters;
            [("ring_full", ring_full), ("no_frame", no_frame)].map(|(reason, number)| {
                ([("worker", &**nth), ("reason", reason)], number.get() as f64)
            })
        });
        let help = "Frames that the kernel dropped before a worker could receive them.";
        families.push(counters("margay_rx_lost_packets_total", help, lost));
        type Count = fn(&Traffic) -> u64;
        let counts: [(&str, &str, Count); 4] = [
            ("rx_packets", "Frames received by a port.", |[(frames, _), _]| *frames),
            ("tx_packets", "Frames sent by a port.", |[_, (frames, _)]| *frames),
            ("rx_bytes", "Bytes received by a port.", |[(_, bytes), _]| *bytes),
            ("tx_bytes", "Bytes sent by a port.", |[_, (_, bytes)]| *bytes),
        ];
        families.extend(counts.map(|(name, help, count)| {
            let ports = ports.iter();
            let ports = ports.map(|(name, traffic)| ([("port", &**name)], count(traffic) as f64));
            counters(&format!("margay_{name}_total"), help, ports)
        }));
        families
    }

    /// What the workers do with their time.
    fn stages(&self) -> [MetricFamily; 2] {
        let cycles = show::cycles(&self.0);
        let family = |name, help, number: fn(&proto::StageCycles) -> u64| {
            let stages = cycles.workers.iter().flat_map(|worker| {
                let index = worker.index.to_string();
                worker.stages.iter().map(move |stage| (index.clone(), stage))
            });
            let samples: Vec<_> =
                stages.map(|(index, stage)| (index, &*stage.stage, number(stage) as f64)).collect();
            let labelled = samples
                .iter()
                .map(|(index, stage, number)| ([("worker", &**index), ("stage", *stage)], *number));
            counters(name, help, labelled)
        };
        let time = "Cycles of the time stamp counter that a worker has spent in a stage.";
        let packets = "Packets that a worker's stage was given.";
        [
            family("margay_worker_stage_cycles_total", time, |stage| stage.ticks),
            family("margay_worker_stage_packets_total", packets, |stage| stage.packets),
        ]
    }

    fn rules(&self) -> [MetricFamily; 6] {
        let counts = self.0.accounts.counts();
        let (own, others) = counts.series();
        // A tier's default action is called so, what has no name and no room is `others`.
        let own: Vec<_> = (own.iter())
            .map(|(rule, count)| {
                let policy = rule.policy.as_deref().unwrap_or("none").to_owned();
                (policy, rule.place.to_string(), rule.ingress, rule.allowed, *count)
            })
            .collect();
        let others = others.map(|(ingress, allowed, count)| {
            ("others".to_owned(), String::new(), ingress, allowed, count)
        });
        let all: Vec<_> =
            own.into_iter().chain(others.into_iter().filter(|o| o.4 != Count::default())).collect();
        let family = |name, help, number: fn(&Count) -> u64| {
            let samples = all.iter().map(|(policy, rule, ingress, allowed, count)| {
                let labels = [
                    ("policy", &**policy),
                    ("rule", &**rule),
                    ("direction", if *ingress { "ingress" } else { "egress" }),
                    ("action", if *allowed { "allow" } else { "deny" }),
                ];
                (labels, number(count) as f64)
            });
            counters(name, help, samples)
        };
        let (lost, unlogged) = self.0.accounts.lost();
        let unremembered: u64 = self.0.counters().map(|c| c.unremembered.get()).sum();
        let held_back = self.0.accounts.held_back() as f64;
        let log = [(["held_back"], held_back), (["lost"], unlogged as f64)];
        let log = log.map(|([reason], number)| ([("reason", reason)], number));
        let unaccounted = [("flows", lost as f64), ("denied_packets", unremembered as f64)];
        let unaccounted = unaccounted.map(|(what, number)| ([("what", what)], number));
        [
            family("margay_policy_connections_total", "Connections that a rule decided.", |c| {
                c.connections
            }),
            family("margay_policy_packets_total", "Packets that a rule decided.", |c| c.packets),
            family("margay_policy_bytes_total", "Bytes that a rule decided.", |c| c.bytes),
            counters(
                "margay_policy_unaccounted_total",
                "Flows and packets that are missing in the counts of rules.",
                unaccounted,
            ),
            counters(
                "margay_log_action_suppressed_total",
                "Packets of Log rules without a line.",
                log,
            ),
            gauge(
                "margay_flow_watchers",
                "Readers of flow reports.",
                self.0.accounts.watched() as f64,
            ),
        ]
    }

    fn flows(&self, totals: &Totals) -> [MetricFamily; 6] {
        let counts = self.0.table.counts();
        let known = "Connections in the flow table.";
        [
            gauge("margay_flows", known, counts.connections as f64),
            gauge("margay_flow_denials", "Remembered denials.", counts.denials as f64),
            counter("margay_flow_misses_total", "Packets that no flow knew.", totals.misses as f64),
            counter("margay_flow_stale_total", "Decisions made anew.", totals.stale as f64),
            counter(
                "margay_flow_evictions_total",
                "Connections evicted to make room.",
                totals.evicted as f64,
            ),
            counter(
                "margay_flow_expirations_total",
                "Connections that ended by age.",
                totals.expired as f64,
            ),
        ]
    }

    /// The connections of pods that may have only so many.
    fn connections(&self) -> [MetricFamily; 2] {
        let counts = connections::counts(&self.0);
        let family = |name, help, number: fn(&census::Count) -> f64| {
            let samples = counts.iter().map(|count| {
                let direction = if count.ingress { "ingress" } else { "egress" };
                ([("port", &*count.port), ("direction", direction)], number(count))
            });
            gauges(name, help, samples)
        };
        let there = "TCP connections of a pod that are limited in their number.";
        let limit = "How many of them the pod may have.";
        [
            family("margay_limited_connections", there, |count| count.connections as f64),
            family("margay_limited_connections_max", limit, |count| count.limit.into()),
        ]
    }

    fn names(&self) -> [MetricFamily; 3] {
        let (names, refused) = self.0.view().names;
        let readings = self.0.readings.all();
        let readings = readings.map(|(what, n)| ([("result", what.name())], n as f64));
        let help = "Messages between pods and trusted name servers that were read.";
        let lost = "Names and addresses that found no room, or had to make it.";
        [
            counters("margay_dns_messages_total", help, readings),
            gauge("margay_dns_names", "Domain names whose addresses are known.", names as f64),
            counter("margay_dns_refused_total", lost, refused as f64),
        ]
    }

    fn generation(&self) -> MetricFamily {
        let generation = self.0.view().snapshot.map_or(0, |s| s.generation);
        gauge("margay_generation", "Generation in force.", f64::from(generation))
    }
}

fn reasons(totals: &Totals) -> [MetricFamily; 4] {
    let drops = DropReason::ALL.iter().zip(totals.drops);
    let drops = drops.map(|(reason, number)| ([("reason", reason.name())], number as f64));
    let slow = |name, help, number: &[u64; PuntReason::COUNT]| {
        let all = PuntReason::ALL.iter().zip(number);
        let all = all.map(|(reason, number)| ([("reason", reason.name())], *number as f64));
        counters(name, help, all)
    };
    let [punts, injected, consumed] = &totals.slow;
    [
        counters("margay_drops_total", "Frames dropped.", drops),
        slow("margay_punts_total", "Frames handed to the slow path.", punts),
        slow("margay_injected_packets_total", "Frames made by the slow path.", injected),
        slow("margay_consumed_packets_total", "Frames that ended in the slow path.", consumed),
    ]
}
