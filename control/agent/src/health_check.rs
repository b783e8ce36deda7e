//! `healthCheckNodePort`: tells load balancers outside whether this node serves a service itself.
//!
//! One small HTTP server for each port that a service names, on all addresses of the node. It
//! answers as kube-proxy does, whatever the path: 200 where the service has a ready endpoint on
//! this node, else 503; and 503 as long as nothing is in force in the dataplane.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use margay_compile::{HealthCheck, HealthChecks};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use crate::publisher::view::View;

/// How soon a port that somebody else has is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

/// What kube-proxy tells balancers that weigh their targets.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Serves whatever checks there are, until the future is dropped.
pub(crate) async fn serve(checks: watch::Receiver<HealthChecks>, view: watch::Receiver<View>) {
    let mut servers = Servers { checks, view, tasks: JoinSet::new(), open: BTreeMap::new() };
    loop {
        let failed = servers.reconcile().await;
        let retry = async {
            match failed {
                true => tokio::time::sleep(RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = servers.checks.changed() => if changed.is_err() { return },
            () = retry => {}
            Some(_) = servers.tasks.join_next() => {}
        }
    }
}

struct Servers {
    checks: watch::Receiver<HealthChecks>,
    view: watch::Receiver<View>,
    tasks: JoinSet<()>,
    open: BTreeMap<u16, AbortHandle>,
}

// === impl Servers ===

impl Servers {
    /// Closes the ports that no service names any more and opens the others; whether one failed.
    async fn reconcile(&mut self) -> bool {
        let wanted = self.checks.borrow_and_update().clone();
        let ports = wanted.ports();
        self.open.retain(|port, server| {
            let stays = ports.contains(port) && !server.is_finished();
            if !stays {
                server.abort();
            }
            stays
        });
        let mut failed = false;
        for check in ports.into_iter().filter_map(|port| wanted.at(port)) {
            let port = check.port;
            if self.open.contains_key(&port) {
                continue;
            }
            match listen(port).await {
                Ok(listener) => {
                    info!(port, service = %name(check), "telling load balancers");
                    let (checks, view) = (self.checks.clone(), self.view.clone());
                    let server = serve_port(listener, Checked { port, checks, view });
                    self.open.insert(port, self.tasks.spawn(server));
                }
                Err(error) => {
                    failed = true;
                    let service = name(check);
                    warn!(port, %service, %error, "cannot listen on spec.healthCheckNodePort");
                }
            }
        }
        failed
    }
}

/// Both families by one socket, where the kernel has IPv6.
pub(crate) async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        other => other,
    }
}

fn name(check: &HealthCheck) -> String {
    format!("{}/{}", check.namespace, check.name)
}

/// What one port's server knows.
#[derive(Clone)]
struct Checked {
    port: u16,
    checks: watch::Receiver<HealthChecks>,
    view: watch::Receiver<View>,
}

async fn serve_port(listener: TcpListener, checked: Checked) {
    let router = Router::new().fallback(answer).with_state(checked);
    // It ends only by being aborted: errors of connections are not its own.
    let _ = axum::serve(listener, router).await;
}

async fn answer(State(checked): State<Checked>) -> Response {
    let check = checked.checks.borrow().at(checked.port).cloned();
    // A connection that was kept alive outlives the check.
    let Some(check) = check else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let forwards = checked.view.borrow().forwards();
    let endpoints = check.local_endpoints;
    let status = match endpoints > 0 && forwards {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "service": {"namespace": &*check.namespace, "name": &*check.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": forwards,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, endpoints.to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}
