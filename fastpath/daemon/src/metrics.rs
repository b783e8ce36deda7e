//! `/metrics`, `/liveness` and `/readiness` over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use margay_model::{DropReason, PuntReason};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::shared::{Origin, Shared};
use crate::show::{Totals, received, traffic};

/// Reads all numbers at the moment they are asked for.
#[derive(Clone)]
struct Numbers(Arc<Shared>);

impl std::fmt::Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Numbers")
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/liveness", get(|| async { "ok\n" }))
        .route("/readiness", get(readiness))
        .with_state(shared);
    axum::serve(listener, router).await
}

/// Listens for those who ask.
pub(crate) async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    match shared.view().origin {
        Origin::None => (StatusCode::SERVICE_UNAVAILABLE, "no full state yet\n").into_response(),
        Origin::Saved | Origin::Agent => "ok\n".into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(shared)));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let shared = &self.0;
        let totals = Totals::new(shared);
        let view = shared.view();
        let ports = traffic(shared, &view);
        let rx = ports.iter().map(|(name, [(frames, _), _])| (&**name, *frames));
        let tx = ports.iter().map(|(name, [_, (frames, _)])| (&**name, *frames));
        family(&mut encoder, "margay_rx_packets", "Frames received by a port.", "port", rx)?;
        family(&mut encoder, "margay_tx_packets", "Frames sent by a port.", "port", tx)?;
        let rx = ports.iter().map(|(name, [(_, bytes), _])| (&**name, *bytes));
        let tx = ports.iter().map(|(name, [_, (_, bytes)])| (&**name, *bytes));
        family(&mut encoder, "margay_rx_bytes", "Bytes received by a port.", "port", rx)?;
        family(&mut encoder, "margay_tx_bytes", "Bytes sent by a port.", "port", tx)?;
        let names: Vec<_> = (0..shared.links.len()).map(|nth| nth.to_string()).collect();
        let received = shared.links.iter().map(|link| received(link, &view));
        let workers = names.iter().map(String::as_str).zip(received);
        let help = "Frames received by a worker, on any port.";
        family(&mut encoder, "margay_worker_rx_packets", help, "worker", workers)?;
        let drops = DropReason::ALL.iter().map(|r| r.name()).zip(totals.drops);
        family(&mut encoder, "margay_drops", "Frames dropped.", "reason", drops)?;
        let [punts, injected, consumed] = totals.slow;
        for (name, help, numbers) in [
            ("margay_punts", "Frames handed to the slow path.", punts),
            ("margay_injected_packets", "Frames made by the slow path.", injected),
            ("margay_consumed_packets", "Frames that ended in the slow path.", consumed),
        ] {
            let all = PuntReason::ALL.iter().map(|r| r.name()).zip(numbers);
            family(&mut encoder, name, help, "reason", all)?;
        }
        let counts = shared.table.counts();
        gauge(&mut encoder, "margay_flows", "Connections in the flow table.", counts.connections)?;
        gauge(&mut encoder, "margay_flow_denials", "Remembered denials.", counts.denials)?;
        for (name, help, number) in [
            ("margay_flow_misses", "Packets that no flow knew.", totals.misses),
            ("margay_flow_stale", "Decisions made anew.", totals.stale),
            ("margay_flow_evictions", "Connections evicted to make room.", totals.evicted),
            ("margay_flow_expirations", "Connections that ended by age.", totals.expired),
        ] {
            let metric = ConstCounter::new(number);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let generation = view.snapshot.as_ref().map_or(0, |s| u64::from(s.generation));
        gauge(&mut encoder, "margay_generation", "Generation in force.", generation)?;
        let info = ConstGauge::new(1u64);
        let help = "What is running.";
        let mut build =
            encoder.encode_descriptor("margay_build_info", help, None, info.metric_type())?;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("component", "margayd")];
        info.encode(build.encode_family(&labels)?)
    }
}

fn family<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    numbers: impl Iterator<Item = (&'a str, u64)>,
) -> Result<(), std::fmt::Error> {
    let kind = ConstCounter::new(0u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, number) in numbers {
        let labels = [(label, value)];
        ConstCounter::new(number).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    number: u64,
) -> Result<(), std::fmt::Error> {
    let metric = ConstGauge::new(number);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
