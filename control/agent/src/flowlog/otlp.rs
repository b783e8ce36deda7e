//! Lines as log records of OpenTelemetry, sent to a collector by OTLP over gRPC.
//!
//! A record's attributes have the names of the JSON lines; policies are texts
//! `ACTION KIND/NAMESPACE/NAME#RULE`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tonic::transport::{Endpoint, Uri};
use tracing::{info, warn};

use super::Counts;
use super::entry::{FlowKey, PolicyHit, Stats, Verdict};

/// Intervals that wait for a collector that is slow.
const WAITING: usize = 4;
/// Records of one request.
const REQUEST: usize = 1000;
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A collector, and the task that sends to it.
pub(super) struct Collector {
    resource: Resource,
    queue: mpsc::Sender<Vec<ExportLogsServiceRequest>>,
}

// === impl Collector ===

impl Collector {
    /// A collector that is reached when there is something to send. Records that it does not take
    /// are counted as unwritten.
    pub(super) fn new(uri: Uri, node: &str, counts: Arc<Counts>) -> Self {
        let attributes =
            vec![attribute("service.name", "margay"), attribute("k8s.node.name", node)];
        let (queue, requests) = mpsc::channel(WAITING);
        tokio::spawn(send_all(uri, requests, counts));
        Self { resource: Resource { attributes, ..Resource::default() }, queue }
    }

    /// Hands an interval over, unless the collector is too slow; whether it did.
    pub(super) fn send(
        &self,
        flows: &[(FlowKey, Stats)],
        since: Timestamp,
        now: Timestamp,
    ) -> bool {
        let records = flows.iter().map(|(key, stats)| record(key, stats, since, now));
        let records: Vec<_> = records.collect();
        let requests = records.chunks(REQUEST).map(|records| self.request(records.to_vec()));
        self.queue.try_send(requests.collect()).is_ok()
    }

    fn request(&self, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let scope = InstrumentationScope {
            name: "margay.flowlog".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let logs = ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() };
        let resource = Some(self.resource.clone());
        let logs = ResourceLogs { resource, scope_logs: vec![logs], ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![logs] }
    }
}

/// Sends until nobody hands over any more. What fails is not tried again: the next interval comes.
async fn send_all(
    uri: Uri,
    mut requests: mpsc::Receiver<Vec<ExportLogsServiceRequest>>,
    counts: Arc<Counts>,
) {
    let channel = Endpoint::from(uri.clone()).timeout(PATIENCE).connect_timeout(PATIENCE);
    let mut client = LogsServiceClient::new(channel.connect_lazy());
    let mut good = true;
    while let Some(interval) = requests.recv().await {
        for request in interval {
            let records = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
            let records: usize = records.map(|logs| logs.log_records.len()).sum();
            let answer = client.export(request).await;
            if let Err(status) = &answer {
                counts.unwritten.fetch_add(records as u64, Relaxed);
                if good {
                    warn!(collector = %uri, %status, "the collector takes no flow logs");
                }
            } else if !good {
                info!(collector = %uri, "the collector takes flow logs again");
            }
            good = answer.is_ok();
        }
    }
}

fn record(key: &FlowKey, stats: &Stats, since: Timestamp, now: Timestamp) -> LogRecord {
    let nanos = |time: Timestamp| u64::try_from(time.as_nanosecond()).unwrap_or_default();
    let action = word(key.action);
    let body = format!(
        "{action} {} {}/{} → {}/{}:{}",
        key.proto,
        key.source.namespace,
        key.source.name,
        key.dest.namespace,
        key.dest.name,
        key.dest_port
    );
    LogRecord {
        time_unix_nano: nanos(since),
        observed_time_unix_nano: nanos(now),
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(value(&body)),
        attributes: attributes(key, stats, action),
        event_name: "margay.flow".to_owned(),
        ..LogRecord::default()
    }
}

fn attributes(key: &FlowKey, stats: &Stats, action: &str) -> Vec<KeyValue> {
    let texts = [
        ("reporter", format!("{:?}", key.reporter)),
        ("action", action.to_owned()),
        ("sourceType", format!("{:?}", key.source.kind)),
        ("sourceNamespace", key.source.namespace.clone()),
        ("sourceName", key.source.name.clone()),
        ("destType", format!("{:?}", key.dest.kind)),
        ("destNamespace", key.dest.namespace.clone()),
        ("destName", key.dest.name.clone()),
        ("destServiceNamespace", key.service.namespace.clone()),
        ("destServiceName", key.service.name.clone()),
        ("destServicePortName", key.service.port_name.clone()),
        ("proto", key.proto.clone()),
    ];
    let numbers = [
        ("destPort", key.dest_port.into()),
        ("destServicePort", key.service.port.into()),
        ("packetsIn", stats.packets_in),
        ("packetsOut", stats.packets_out),
        ("bytesIn", stats.bytes_in),
        ("bytesOut", stats.bytes_out),
        ("numConnectionsStarted", stats.num_connections_started),
        ("numConnectionsCompleted", stats.num_connections_completed),
    ];
    let policies =
        [("policies", &key.policies.enforced), ("pendingPolicies", &key.policies.pending)];
    let texts = texts.iter().map(|(name, text)| attribute(name, text));
    let numbers = numbers.into_iter().map(|(name, number)| {
        let number = Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX));
        pair(name, number)
    });
    let policies = policies.into_iter().map(|(name, hits)| {
        let values = hits.iter().map(|hit| value(&text(hit))).collect();
        pair(name, Value::ArrayValue(ArrayValue { values }))
    });
    texts.chain(numbers).chain(policies).collect()
}

fn text(hit: &PolicyHit) -> String {
    let action = word(hit.action);
    match hit.rule_index {
        Some(rule) => format!("{action} {}/{}/{}#{rule}", hit.kind, hit.namespace, hit.name),
        None => format!("{action} {} {}", hit.kind, hit.tier).trim_end().to_owned(),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "Allow",
        Verdict::Deny => "Deny",
    }
}

fn attribute(name: &str, text: &str) -> KeyValue {
    pair(name, Value::StringValue(text.to_owned()))
}

fn pair(name: &str, value: Value) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn value(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}
