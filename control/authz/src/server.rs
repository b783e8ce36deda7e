//! The gRPC service, its health and its counters.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tonic::transport::{self, Server};
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::law::Law;
use crate::proto::authorization_server::{Authorization, AuthorizationServer};
use crate::proto::{CheckRequest, CheckResponse};
use crate::question::QuestionError;
use crate::ruling::{KINDS, Ruling};

/// How often a silent connection is asked whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Answers questions by the law as it is at that moment. Cloning shares.
#[derive(Clone, Debug)]
pub struct Authorizer {
    law: watch::Receiver<Option<Arc<Law>>>,
    counts: Arc<[AtomicU64; KINDS.len()]>,
}

/// How many questions came to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// What decided, in a word.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// Serves questions, and their health (`grpc.health.v1`: serving as soon as there is a law), on
/// connections as they come, until `shutdown` is ready.
///
/// # Errors
/// The connections fail.
pub async fn serve<S, C>(
    connections: S,
    authorizer: Authorizer,
    shutdown: impl Future<Output = ()>,
) -> Result<(), transport::Error>
where
    S: Stream<Item = io::Result<C>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_not_serving::<AuthorizationServer<Authorizer>>().await;
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let mut law = authorizer.law.clone();
    let ready = async {
        if law.wait_for(Option::is_some).await.is_ok() {
            reporter.set_serving::<AuthorizationServer<Authorizer>>().await;
            reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        }
        std::future::pending().await
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(health)
        .add_service(AuthorizationServer::new(authorizer))
        .serve_with_incoming_shutdown(connections, shutdown);
    tokio::select! {
        served = server => served,
        () = ready => Ok(()),
    }
}

// === impl Authorizer ===

impl Authorizer {
    /// Answers by what a [`crate::Scribe`] writes.
    pub fn new(law: watch::Receiver<Option<Arc<Law>>>) -> Self {
        Self { law, counts: Arc::default() }
    }

    /// How many questions came to what since the start.
    pub fn counts(&self) -> impl Iterator<Item = Count> {
        KINDS.iter().zip(&*self.counts).map(|((verdict, reason), count)| Count {
            verdict,
            reason,
            count: count.load(Ordering::Relaxed),
        })
    }

    /// Answers a question.
    pub fn rule(&self, request: CheckRequest) -> Ruling {
        let ruling = self.judge(request);
        if let Some(count) = self.counts.get(ruling.kind()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        ruling
    }

    fn judge(&self, request: CheckRequest) -> Ruling {
        let Some(law) = self.law.borrow().clone() else { return Ruling::NotReady };
        let attributes = request.attributes.ok_or(QuestionError::Empty);
        match attributes.and_then(TryInto::try_into) {
            Ok(question) => law.rule(&question),
            Err(error) => Ruling::Unreadable(error),
        }
    }
}

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let ruling = self.rule(request.into_inner());
        // Requests carry credentials: only what came of them is logged.
        debug!(allowed = ruling.allowed(), reason = ruling.reason(), "{ruling}");
        Ok(Response::new((&ruling).into()))
    }
}
