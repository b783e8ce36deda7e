//! `/metrics`, `/liveness` and `/readiness` over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

/// What is asked of the agent.
pub(crate) trait Health: Send + Sync + 'static {
    /// All metrics in Prometheus' text form.
    fn metrics(&self) -> Result<String, std::fmt::Error>;
    /// Whether the loops run, or why not.
    fn liveness(&self) -> Result<(), String>;
    /// Whether a full state is in force, or why not.
    fn readiness(&self) -> Result<(), String>;
}

/// The media type of the text form that `prometheus-client` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, health: Arc<dyn Health>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/liveness", get(|State(h): Shared| async move { answer(h.liveness()) }))
        .route("/readiness", get(|State(h): Shared| async move { answer(h.readiness()) }))
        .with_state(health);
    axum::serve(listener, router).await
}

type Shared = State<Arc<dyn Health>>;

async fn metrics(State(health): Shared) -> impl IntoResponse {
    match health.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}
