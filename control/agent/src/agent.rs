//! The agent: everything put together, and how it starts and ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use margay_authz::Authorizer;
use margay_compile::NodeConfig;
use margay_datastore::{self as datastore, Datastore};
use margay_ipam::Ipam;
use margay_resources::documents::DocumentReader;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use crate::authz;
use crate::cniserver::socket::Socket;
use crate::cniserver::{Backend, serve};
use crate::config::Config;
use crate::defaults;
use crate::flowlog::{Feed, FlowLog};
use crate::health_check;
use crate::metrics::Sources;
use crate::node::{Keeper, count_addresses};
use crate::node_health;
use crate::pipeline::Pipeline;
use crate::publisher::Publisher;
use crate::uplink;

/// Errors of parts that are nobody's business outside.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The datastore cannot be opened.
    #[error("cannot open the datastore")]
    Datastore(#[from] datastore::Error),
    /// What is missing in the datastore cannot be made.
    #[error("cannot make the objects that are missing in the datastore")]
    Defaults(#[source] Cause),
    /// Metrics and health cannot be served.
    #[error("--metrics {address}: cannot listen")]
    Metrics {
        /// Where they were to be.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The CNI plugins cannot be answered.
    #[error("--socket")]
    Socket(#[source] Cause),
    /// Proxies cannot be answered.
    #[error("--authz")]
    Authz(#[source] Cause),
    /// A task ended that should run for ever.
    #[error("{0} ended")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task failed")]
    Panicked(#[source] JoinError),
}

/// Runs the agent until `shutdown` is ready.
///
/// Order of the start: what is missing in the datastore, this node's object (so that the first
/// state has its tunnels), then the pipeline, and last the sockets on which others ask.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let store = datastore::open(&config.datastore, Arc::new(DocumentReader)).await?;
    let ipam = Arc::new(Ipam::new(store.clone()));
    defaults::ensure(&*store, &config.addresses)
        .await
        .map_err(|e| AgentError::Defaults(e.into()))?;
    let keeper = Keeper {
        store: store.clone(),
        ipam: ipam.clone(),
        name: config.node.clone(),
        addresses: config.addresses,
    };
    if let Err(error) = keeper.reconcile().await {
        warn!(%error, "cannot write the Node object yet");
    }
    let mut tasks = start(&config, store, ipam, keeper).await?;
    info!(node = &*config.node, "running");
    tokio::select! {
        () = shutdown => {
            info!("asked to stop");
            Ok(())
        }
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(name) => AgentError::Ended(name),
            Err(error) => AgentError::Panicked(error),
        }),
    }
}

/// Starts all tasks. Dropping the set ends them.
async fn start(
    config: &Config,
    store: Arc<dyn Datastore>,
    ipam: Arc<Ipam>,
    keeper: Keeper,
) -> Result<JoinSet<&'static str>, AgentError> {
    let mut tasks = JoinSet::new();
    let (publisher, link) = Publisher::new(config.dataplane.clone(), config.node.clone());
    tasks.spawn(named("the publisher", link));
    let node = NodeConfig {
        name: config.node.clone(),
        v4: config.addresses.v4,
        v6: config.addresses.v6,
        mtu: uplink::mtu(&config.addresses).await,
        node_ports: config.node_ports.clone(),
        connections: config.connections,
    };
    let mut pipeline = Pipeline::new(store.clone(), node, publisher);
    let authorizer = match &config.authz {
        Some(address) => {
            let authorizer = Authorizer::new(pipeline.write_law());
            let server = authz::listen(address, authorizer.clone());
            let server = server.map_err(|e| AgentError::Authz(e.into()))?;
            tasks.spawn(named("the server of proxies", server));
            Some(authorizer)
        }
        None => None,
    };
    let flow_log = config.flow_logs.any().then(|| {
        let feed = Feed::default();
        pipeline.feed(feed.clone());
        FlowLog::new(config.node.clone(), config.dataplane.clone(), &config.flow_logs, feed)
    });
    let flows = flow_log.as_ref().map(FlowLog::counts);
    if let Some(flow_log) = flow_log {
        tasks.spawn(named("the flow log", flow_log.run()));
    }
    let (tell, addresses) = watch::channel(Default::default());
    let (progress, view) = (pipeline.progress(), pipeline.view());
    let sources = Sources { progress, view, addresses, authorizer, flows };
    let waiter = pipeline.waiter();
    let checks = health_check::serve(pipeline.health_checks(), pipeline.view());
    tasks.spawn(named("the servers of health checks", checks));
    let node_health = node_health::serve(pipeline.standing(), pipeline.view());
    tasks.spawn(named("the server of the node's health", node_health));
    tasks.spawn(named("the pipeline", pipeline.run()));
    tasks.spawn(named("the keeper of the Node object", keeper.run()));
    tasks.spawn(named(
        "the counter of addresses",
        count_addresses(store.clone(), config.node.clone(), tell),
    ));

    let refused = |source| AgentError::Metrics { address: config.metrics, source };
    let listener = TcpListener::bind(config.metrics).await.map_err(refused)?;
    tasks.spawn(named("the server of metrics", margay_health::serve(listener, Arc::new(sources))));
    let socket = Socket::listen(&config.socket).map_err(|e| AgentError::Socket(e.into()))?;
    let backend = Arc::new(Backend::new(config, store, ipam, waiter));
    tasks.spawn(named("the CNI server", async move { serve(&socket, backend).await }));
    Ok(tasks)
}

/// A task that says who it was when it ends.
async fn named<T>(name: &'static str, task: impl Future<Output = T>) -> &'static str {
    task.await;
    name
}
