//! The answers of the dataplane that is not one.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use margay_model::flow::FlowView;
use margay_protocol::{Dataplane, FlowFilter, proto};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::seen::{dropped, forwarded};

/// Answers what it was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) flows: Vec<FlowView>,
    /// Seconds that its workers have run: one more each time it is asked for their cycles.
    pub(crate) seconds: AtomicU64,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Dataplane for Told {
    type SyncStream = Answers<proto::FromDaemon>;
    type ListFlowsStream = Answers<proto::Flow>;
    type ListNamesStream = Answers<proto::NameAddress>;
    type TraceStream = Answers<proto::Sighting>;
    type ProbeStream = Answers<proto::Sighting>;
    type WatchFlowsStream = Answers<proto::FlowReports>;

    async fn sync(
        &self,
        _: Request<Streaming<proto::FromAgent>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        Err(Status::unimplemented("nobody's agent"))
    }

    async fn list_flows(
        &self,
        call: Request<proto::FlowFilter>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let filter = FlowFilter::try_from(call.into_inner())?;
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let wanted = self.flows.iter().filter(|flow| filter.matches(flow)).take(limit);
        let answers: Vec<_> = wanted.map(|flow| Ok(proto::Flow::from(flow))).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn list_names(
        &self,
        _: Request<proto::ListNamesRequest>,
    ) -> Result<Response<Self::ListNamesStream>, Status> {
        let used = |pattern: &str| proto::NameUse {
            set: "d:1".into(),
            patterns: vec![pattern.into()],
            policies: vec!["NetworkPolicy/x/out".into()],
        };
        let row = |name: &str, last, remaining_ms, uses| proto::NameAddress {
            name: name.into(),
            address: vec![192, 0, 2, last],
            remaining_ms,
            uses,
        };
        let rows = [
            row("www.example.com", 1, 59_001, vec![used("*.example.com")]),
            row("old.example.com", 2, 0, vec![used("*.example.com")]),
            row("nobody.example.net", 3, 5_000, vec![]),
        ];
        Ok(Response::new(Box::pin(tokio_stream::iter(rows.map(Ok)))))
    }

    async fn list_rule_counts(
        &self,
        _: Request<proto::ListRuleCountsRequest>,
    ) -> Result<Response<proto::RuleCounts>, Status> {
        let count = |policy: &str, rule, ingress, allowed| proto::RuleCount {
            policy: policy.into(),
            rule,
            ingress,
            allowed,
            connections: 3,
            packets: 12,
            bytes: 3400,
        };
        Ok(Response::new(proto::RuleCounts {
            counts: vec![
                count("NetworkPolicy/shop/front", 1, true, true),
                count("Tier//default", 0, true, false),
                count("", 0, false, false),
            ],
            flows_lost: 7,
            denials_unremembered: 0,
        }))
    }

    async fn watch_flows(
        &self,
        _: Request<proto::WatchFlowsRequest>,
    ) -> Result<Response<Self::WatchFlowsStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn get_counters(
        &self,
        _: Request<proto::GetCountersRequest>,
    ) -> Result<Response<proto::Counters>, Status> {
        let reason = |reason: &str, packets| proto::ReasonCounter {
            reason: reason.into(),
            packets,
            sentence: format!("what {reason} means"),
        };
        Ok(Response::new(proto::Counters {
            ports: vec![proto::PortCounters {
                port: "cali1".into(),
                rx_packets: 10,
                rx_bytes: 1000,
                tx_packets: 7,
                tx_bytes: 700,
            }],
            drops: vec![reason("policy", 3), reason("spoof", 0)],
            punts: vec![reason("arp", 2)],
            injected: vec![reason("arp", 2)],
            consumed: vec![],
            flow_misses: 4,
            flow_evictions: 0,
        }))
    }

    async fn trace(
        &self,
        call: Request<proto::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let request = call.into_inner();
        if request.pod == "default/nobody" {
            return Err(Status::not_found("default/nobody is no pod of this node"));
        }
        let sightings = [forwarded(), dropped()].into_iter().take(request.limit as usize);
        let answers: Vec<_> = sightings.map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    /// Says of each frame where it was to come from, and gives it back.
    async fn probe(
        &self,
        call: Request<proto::ProbeRequest>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        let frames = call.into_inner().frames.into_iter();
        let answers: Vec<_> = frames
            .map(|frame| Ok(proto::Sighting { before: frame.bytes, from: frame.from, ..dropped() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn get_cycles(
        &self,
        _: Request<proto::GetCyclesRequest>,
    ) -> Result<Response<proto::Cycles>, Status> {
        let seconds = self.seconds.fetch_add(1, Relaxed) + 1;
        let stage = |stage: &str, ticks: u64| proto::StageCycles {
            stage: stage.into(),
            calls: 100 * seconds,
            packets: 3200 * seconds,
            ticks: ticks * seconds,
        };
        Ok(Response::new(proto::Cycles {
            now: 1000 + 1_000_000 * seconds,
            since: 1000,
            ticks_per_second: 1e6,
            workers: vec![proto::WorkerCycles {
                index: 0,
                stages: vec![stage("decide", 320_000), stage("idle", 680_000)],
                turns: vec![0, 0, 0, 100 * seconds],
            }],
        }))
    }

    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        let fallback = proto::ModeFallback {
            mode: proto::XdpMode::Zerocopy.into(),
            reason: "the driver of eth0 has none".into(),
        };
        Ok(Response::new(proto::Status {
            release: "9.8.7".into(),
            version: 1,
            node: "n1".into(),
            uptime_ms: 61_500,
            generation: 42,
            agent_connected: true,
            state_origin: proto::StateOrigin::Agent.into(),
            state: Some(proto::StateCounts { endpoints: 2, policies: 5, ..Default::default() }),
            tuning: vec![proto::Setting {
                name: "polling".into(),
                value: "busy".into(),
                reason: "--busy".into(),
            }],
            workers: vec![proto::Worker { index: 0, cpu: Some(3), sleeping: true, packets: 17 }],
            ports: vec![proto::Port {
                name: "eth0".into(),
                ifindex: 4,
                role: proto::PortRole::Uplink.into(),
                kind: proto::PortKind::Native.into(),
                mode: proto::XdpMode::Copy.into(),
                queues: 1,
                fallbacks: vec![fallback],
                up: true,
                endpoint: String::new(),
            }],
            flow_table: Some(proto::FlowTable { capacity: 1000, used: 2, denied: 1 }),
            shortcut: Some(proto::Shortcut { connections: 3 }),
            endpoints_down: vec![proto::EndpointStatus {
                key: "x/a/eth0".into(),
                up: false,
                reason: "cali9 is gone".into(),
            }],
            ..Default::default()
        }))
    }
}
