//! kube-proxy's `/healthz`: tells load balancers outside whether to send this node new connections.
//!
//! `/healthz` is good where state is in force in the dataplane and the node stays: it is neither being
//! deleted nor about to be, as the cluster autoscaler marks it (KEP-3836). `/livez` leaves the node
//! out of it. Where the port is somebody else's, a kube-proxy's that still runs, it is tried again.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use crate::health_check::{RETRY, listen};
use crate::publisher::view::View;

/// What the datastore says of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// FelixConfiguration's `bpfKubeProxyHealthzPort`; 0 for none.
    pub(crate) port: u16,
    /// Whether the node is going.
    pub(crate) leaving: bool,
}

/// What an answer is made of.
#[derive(Clone)]
struct Known {
    standing: watch::Receiver<Standing>,
    view: watch::Receiver<View>,
    healthy_at: Arc<Mutex<Timestamp>>,
}

/// Serves on the port that is in force, until the future is dropped.
pub(crate) async fn serve(mut standing: watch::Receiver<Standing>, view: watch::Receiver<View>) {
    let healthy_at = Arc::new(Mutex::new(Timestamp::now()));
    let known = Known { standing: standing.clone(), view, healthy_at };
    loop {
        let port = standing.borrow_and_update().port;
        tokio::select! {
            () = serve_on(port, router(known.clone())) => {}
            moved = standing.wait_for(|standing| standing.port != port) => {
                if moved.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve_on(port: u16, router: Router) {
    if port == 0 {
        return std::future::pending().await;
    }
    match listen(port).await {
        // It ends only by being dropped: errors of connections are not its own.
        Ok(listener) => drop(axum::serve(listener, router).await),
        Err(error) => {
            warn!(port, %error, "cannot listen on spec.bpfKubeProxyHealthzPort");
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn router(known: Known) -> Router {
    let healthz = |State(known): State<Known>| async move {
        let stays = !known.standing.borrow().leaving;
        known.answer(stays, json!({"nodeEligible": stays}))
    };
    let livez = |State(known): State<Known>| async move { known.answer(true, json!({})) };
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(known)
}

// === impl Known ===

impl Known {
    /// kube-proxy's answer, with what else it says.
    fn answer(&self, stays: bool, mut body: Value) -> Response {
        let now = Timestamp::now();
        let forwards = self.view.borrow().forwards();
        let mut healthy_at = self.healthy_at.lock().unwrap_or_else(|gone| gone.into_inner());
        if forwards {
            *healthy_at = now;
        }
        body["lastUpdated"] = json!(healthy_at.to_string());
        body["currentTime"] = json!(now.to_string());
        let status = match forwards && stays {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (status, headers, body.to_string()).into_response()
    }
}
