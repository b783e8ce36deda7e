//! The server.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::proto::MetricFamily;
use prometheus::{TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;

/// What is asked of a process.
pub trait Health: Send + Sync + 'static {
    /// All metrics, as they are now.
    fn metrics(&self) -> Vec<MetricFamily>;
    /// Whether the loops run, or why not.
    fn liveness(&self) -> Result<(), String>;
    /// Whether a full state is in force, or why not.
    fn readiness(&self) -> Result<(), String>;
}

/// Serves until the future is dropped.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, health: Arc<dyn Health>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/liveness", get(|State(h): Shared| async move { answer(h.liveness()) }))
        .route("/readiness", get(|State(h): Shared| async move { answer(h.readiness()) }))
        .with_state(health);
    axum::serve(listener, router).await
}

type Shared = State<Arc<dyn Health>>;

async fn metrics(State(health): Shared) -> Response {
    match text(&health.metrics()) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Families in the text form; those without a sample are left out.
///
/// # Errors
/// A family without a name.
pub fn text(families: &[MetricFamily]) -> prometheus::Result<String> {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.get_metric().is_empty()) {
        TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut text)?;
    }
    Ok(text)
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counter, counters, gauge};

    #[test]
    fn the_text_is_the_exposition_format_0_0_4() {
        let drops = [([("reason", "spoof")], 3.0), ([("reason", "a \"b\"\n")], 0.0)];
        let none: [([(&str, &str); 1], f64); 0] = [];
        let families = [
            counters("margay_drops_total", "Frames dropped.", drops),
            counters("margay_none_total", "Nothing.", none),
            gauge("margay_flows", "Connections.", 2.0),
            counter("margay_busy_seconds_total", "Time.", 1.5),
        ];
        let expected = "# HELP margay_drops_total Frames dropped.\n\
                        # TYPE margay_drops_total counter\n\
                        margay_drops_total{reason=\"spoof\"} 3\n\
                        margay_drops_total{reason=\"a \\\"b\\\"\\n\"} 0\n\
                        # HELP margay_flows Connections.\n\
                        # TYPE margay_flows gauge\n\
                        margay_flows 2\n\
                        # HELP margay_busy_seconds_total Time.\n\
                        # TYPE margay_busy_seconds_total counter\n\
                        margay_busy_seconds_total 1.5\n";
        assert_eq!(text(&families).unwrap(), expected);
    }
}
