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

mod tuning;
mod shared;
mod show;
mod trace;
mod server;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use core_affinity::CoreId;
use futures::{FutureExt, TryFutureExt};
use margay_engine::{Assembler, Counters, Engine, Underlay};
use margay_model::{LARGEST_MTU, State};
use margay_slowpath::SlowPath;
use margay_tables::flow::{FlowConfig, FlowTable, FlowWorker, Journal};
use margay_worker::cycle::StartError;
use margay_worker::{Link, Mentions, Polling, Punts, Setup, Worker};
use margay_xsk::{Binder, ChunkSize, Region, RegionConfig, UmemOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info;

use crate::accounts::{Accountant, Accounts};
use crate::config::Config;
use crate::control::{Control, Parts, Request};
use crate::devices::Devices;
use crate::fronts::Fronts;
use crate::kernel::{Desired, HostPort, Keeper, KernelView, Watch};
use crate::metrics::Numbers;
use crate::shared::Shared;
use crate::shortcut::{Bookkeeper, Shortcut};
use crate::slow::{Readings, Slow};
use crate::state_dir::StateDir;

/// Frames that wait for the slow path at most.
const PUNTS: usize = 4096;
/// Connections that wait to be looked at for the shortcut at most.
const MENTIONS: usize = 1024;
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

    let watch = Watch::start().await?;
    let views = watch.views();
    let view = views.borrow().clone();
    let desired = trunk(&config, &view)?;
    let host = HostPort::new(&config.state_dir)?;
    let (trunk, _) = host.apply(&desired).await?;

    let region = Region::new(RegionConfig {
        chunks: config.frames,
        chunk_size: chunk_size(desired.mtu),
        hugepages: true,
    })?;
    let links: Arc<[Link]> =
        (0..config.workers).map(|_| Link::new(Arc::default())).collect::<Result<_, _>>()?;
    let punts = Arc::new(Punts::new(PUNTS)?);
    let mut assembler = Assembler::new(table.generation() as u32);
    let first = Arc::new(assembler.assemble(&State::default(), &Underlay::default()));
    tokio::spawn(bound::follow(assembler.bound_ports()));
    let mentions = config.shortcut.then(|| Arc::new(Mentions::new(MENTIONS)));
    let worker = Setup {
        number: 0,
        core: None,
        links: links.clone(),
        punts: punts.clone(),
        mentions: mentions.clone(),
        table,
        region,
        snapshot: first.clone(),
        polling: if config.busy { Polling::Busy } else { Polling::Adaptive },
    };
    let (ending, mut lost) = mpsc::unbounded_channel();
    let threads = start_workers(&config.cores, &worker, &ending)?;

    let multi_buffer = devices::is_jumbo(desired.mtu);
    let binder = Binder::new(region, UmemOptions { multi_buffer, ..UmemOptions::default() });
    let trunk = (&trunk.kernel, &trunk.worker);
    let devices = Devices::new(binder, links.clone(), &config, trunk);
    let devices = match multi_buffer {
        true => devices.context("an uplink of jumbo frames wants Linux 6.6 or later")?,
        false => devices?,
    };
    let shortcut = config.shortcut.then(|| Arc::new(Shortcut::new(devices.shortcut())));
    let slow_counters = Arc::new(Counters::default());
    let readings = Arc::new(Readings::default());
    let accounts = Arc::new(Accounts::new(table, config.rule_series));
    let mut shared = Shared::new(
        links.clone(),
        config.cores.clone(),
        slow_counters.clone(),
        readings.clone(),
        shortcut.clone(),
        accounts.clone(),
        table,
    );
    shared.tuning = tuning::chosen(&config, region, &flow_config(&config));
    let shared = Arc::new(shared);
    let (snapshots, slow_snapshots) = watch::channel(first.clone());
    let guest = FlowWorker::new(table.clone()).ok_or_else(|| anyhow!("no seat"))?;
    let mut tasks = JoinSet::<std::io::Result<&str>>::new();
    let accountant = Accountant::new(accounts, slow_snapshots.clone(), guest).run();
    tasks.spawn(accountant.map(|()| Ok("the accountant")));
    if let Some((shared, mentions)) = shortcut.zip(mentions) {
        let guest = FlowWorker::new(table.clone()).ok_or_else(|| anyhow!("no seat"))?;
        let snapshots = slow_snapshots.clone();
        let bookkeeper = Bookkeeper { shared, mentions, snapshots, guest }.run();
        tasks.spawn(bookkeeper.map(|()| Ok("the shortcut's bookkeeper")));
    }
    let (tell, told) = mpsc::unbounded_channel();
    let (ask, asked) = mpsc::unbounded_channel();
    let slow = Slow {
        machines: SlowPath::new(Default::default()),
        engine: Engine::new(table, slow_counters).ok_or_else(|| anyhow!("no seat"))?,
        table,
        links: links.clone(),
        punts,
        snapshots: slow_snapshots,
        host_flows: devices.host_flows(),
        readings,
        tell: told,
        ask,
    };
    tasks.spawn(slow.run().map_ok(|()| "the slow path"));

    let parts = Parts {
        dir,
        links,
        table,
        devices,
        uplinks: config.uplinks.clone(),
        host,
        desired,
        keeper: Keeper::new()?,
        views,
        snapshots,
        tell,
        ask: asked,
        shared: shared.clone(),
    };
    let mut control = Control::new(parts, first, assembler);
    control.begin().await?;
    let (requests, questions) = mpsc::unbounded_channel();
    let mut control = tokio::spawn(control.run(questions));

    if let Some(listener) = metrics {
        tokio::spawn(margay_health::serve(listener, Arc::new(Numbers(shared.clone()))));
    }
    let current = Arc::new(watch::channel(0).0);
    let server = server::Server::new(shared, requests.clone(), current.clone());
    let (quit, quitting) = oneshot::channel::<()>();
    let server = tokio::spawn(margay_protocol::socket::serve(listener, server, async {
        let _ = quitting.await;
    }));
    info!(node = config.node, workers = config.workers, "forwarding");

    // Without a worker or one of the tasks the process ends as though it were killed: what is attached
    // stays for its successor, which goes on with it. The other tasks end with the control task, which
    // knows why.
    tokio::select! {
        biased;
        ended = &mut control => return ended?.context("cannot go on"),
        Some(ended) = tasks.join_next() => {
            if let Ok(ended) = tokio::time::timeout(Duration::from_secs(1), control).await {
                return ended?.context("cannot go on");
            }
            bail!("{} has ended", ended??);
        }
        Some(number) = lost.recv() => bail!("worker {number} has ended"),
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Streams end first, so that nothing changes any more; then what is attached comes off.
    current.send_modify(|current| *current = u64::MAX);
    let _ = quit.send(());
    let (done, finished) = oneshot::channel();
    if requests.send(Request::Stop(done)).is_ok() {
        let _ = finished.await;
    }
    drop(socket_file);
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    control.await??;
    tasks.shutdown().await;
    tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
    })
    .await?;
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

/// The trunk at start: it takes what the widest uplink takes.
fn trunk(config: &Config, view: &KernelView) -> anyhow::Result<Desired> {
    let mut mtu = 1500;
    for name in &config.uplinks {
        let link = view.link(name).ok_or_else(|| {
            anyhow!("there is no interface {name}: name one of this namespace with --uplink")
        })?;
        mtu = mtu.max(link.mtu);
    }
    let queues = config.workers as u32;
    let mut desired =
        host::desired(&State::default(), &Fronts::default(), view, &host::nothing(queues));
    desired.mtu = mtu.min(LARGEST_MTU.into());
    Ok(desired)
}

/// Packets that no chunk takes go on in further ones.
fn chunk_size(mtu: u32) -> ChunkSize {
    let frame = mtu as usize + margay_wire::ethernet::LEN;
    ChunkSize::for_frame(frame).unwrap_or(ChunkSize::Bytes4096)
}

/// Another number in each process.
fn instance() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64) ^ u64::from(std::process::id()) << 48
}

/// Starts the workers, each on a thread and a core of its own, alike in all else.
fn start_workers(
    cores: &[Option<usize>],
    alike: &Setup,
    ending: &mpsc::UnboundedSender<usize>,
) -> anyhow::Result<Vec<std::thread::JoinHandle<()>>> {
    let mut threads = Vec::new();
    for (number, core) in cores.iter().enumerate() {
        let setup = Setup { number, core: core.map(|id| CoreId { id }), ..alike.clone() };
        // Made on its own thread: it pins itself first, so that its memory is near its core.
        let (made, ready) = std::sync::mpsc::channel::<Result<(), StartError>>();
        let ending = Ending { number, tell: ending.clone() };
        let thread = std::thread::Builder::new()
            .name(format!("margay-worker-{number}"))
            .spawn(move || {
                let _ending = ending;
                match Worker::new(setup) {
                    Ok(worker) => {
                        let _ = made.send(Ok(()));
                        worker.run();
                    }
                    Err(error) => {
                        let _ = made.send(Err(error));
                    }
                }
            })
            .context("cannot start a worker's thread")?;
        ready.recv().context("a worker died at start")??;
        threads.push(thread);
    }
    Ok(threads)
}

/// Says that a worker's thread ends, also where it panics.
struct Ending {
    number: usize,
    tell: mpsc::UnboundedSender<usize>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.tell.send(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_told_of() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let ending = Ending { number: 1, tell };
        let thread = std::thread::spawn(move || {
            let _ending = ending;
            panic!("as a worker might");
        });
        thread.join().unwrap_err();
        assert_eq!(told.try_recv(), Ok(1));
    }
}
