//! The dataplane's daemon: wires workers, slow path, kernel and protocol together.
//!
//! In the order of use:
//! - [`config`]: as typed, checked, immutable; [`sole`]: one daemon a network namespace;
//!   [`state_dir`]: what outlives the process;
//! - [`kernel`]: the node's kernel, watched and asked; [`ports`], [`fronts`], [`host`], [`classes`]:
//!   its view and the agent's state in each other's words; `difference`: what has changed in that;
//!   `path_mtu`: what routers said; `bound`: ports of the node's processes; `names`: what name
//!   servers said;
//! - [`devices`]: sockets and programs; `busy_poll`: who runs their queues' NAPI; `shortcut`: TCP and UDP that needs no worker;
//!   [`control`]: the one task that changes what is in force;
//! - [`slow`]: the slow path's task; `accounts`: what rules have decided, reports of flows, and
//!   lines about packets that met Log rules;
//! - `bell`: how tasks wait for workers; `tasks`, `threads`: what lasts as long as the process;
//!   `start`: all of these put together, watched, ended;
//! - `tuning`: what was chosen for the machine; [`shared`], [`show`], `trace`: what others may see;
//!   [`server`], [`metrics`]: who serves it.

pub mod config;
mod sole;
pub mod state_dir;

pub mod kernel;
mod ports;
mod fronts;
mod host;
mod classes;

mod difference;
mod path_mtu;
mod bound;
mod names;
mod connections;

mod devices;
mod busy_poll;
mod shortcut;
mod control;
mod slow;
mod accounts;
mod bell;
mod tasks;
mod threads;
mod start;

mod tuning;
mod shared;
mod show;
mod trace;
mod server;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use margay_tables::flow::{FlowConfig, FlowTable, Journal};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::config::Config;
use crate::metrics::Numbers;
use crate::start::Running;
use crate::state_dir::StateDir;

/// Seats at the flow table besides the workers': the slow path, the shortcut, the accountant, and
/// those who list flows.
const GUESTS: usize = 10;
/// Entries of the flow table's journal: some 3 MiB.
const JOURNAL: usize = 1 << 14;

/// Runs the daemon until it is told to stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _sole = sole::claim("margayd")?;
    let dir = StateDir::open(&config.state_dir)?;
    let flow_config = flow_config(&config);
    let journal = Journal::new(JOURNAL);
    let table: &'static Arc<FlowTable> =
        Box::leak(Box::new(Arc::new(dir.flow_table(&flow_config)?.with_journal(journal))));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    runtime.block_on(serve(config, dir, table))
}

async fn serve(
    config: Config,
    dir: StateDir,
    table: &'static Arc<FlowTable>,
) -> anyhow::Result<()> {
    // Before anything is changed: whoever asks is told the truth, and a second daemon ends here.
    let (listener, socket_file) = margay_protocol::socket::bind(&config.socket)?;
    let metrics = match config.metrics {
        Some(addr) => {
            Some(TcpListener::bind(addr).await.with_context(|| format!("--metrics {addr}"))?)
        }
        None => None,
    };
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mut running = Running::start(&config, dir, table).await?;
    if let Some(listener) = metrics {
        let numbers = Arc::new(Numbers(running.shared.clone()));
        let serving = async { Ok(margay_health::serve(listener, numbers).await?) };
        running.tasks.spawn("the server of metrics", serving);
    }
    let current = Arc::new(watch::channel(0).0);
    let server =
        server::Server::new(running.shared.clone(), running.requests.clone(), current.clone());
    let (quit, quitting) = oneshot::channel::<()>();
    let mut server = tokio::spawn(margay_protocol::socket::serve(listener, server, async {
        let _ = quitting.await;
    }));
    info!(node = config.node, workers = config.workers, "forwarding");

    // Without one of its parts the process ends as though it were killed: what is attached stays for its
    // successor, which goes on with it.
    tokio::select! {
        biased;
        error = running.failed() => return Err(error),
        ended = &mut server => {
            ended??;
            bail!("the protocol's server has ended");
        }
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Streams end first, so that nothing changes any more; then what is attached comes off.
    current.send_modify(|current| *current = u64::MAX);
    let _ = quit.send(());
    running.take_back().await;
    drop(socket_file);
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    running.join().await?;
    info!("stopped");
    Ok(())
}

fn flow_config(config: &Config) -> FlowConfig {
    FlowConfig {
        v4: config.flows.v4,
        v6: config.flows.v6,
        participants: config.workers + GUESTS,
        denial_share: 8,
    }
}

/// Another number in each process.
fn instance() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64) ^ u64::from(std::process::id()) << 48
}
