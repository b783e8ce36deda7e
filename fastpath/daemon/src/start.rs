//! The parts: started in the order in which they need each other, watched, and ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use margay_engine::{Assembler, Engine, Snapshot, Underlay};
use margay_model::{LARGEST_MTU, State};
use margay_slowpath::SlowPath;
use margay_tables::flow::{FlowTable, FlowWorker};
use margay_worker::{Link, Mentions, Polling, Punts, Setup};
use margay_xsk::{Binder, ChunkSize, Region, RegionConfig, UmemOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::accounts::Accountant;
use crate::config::Config;
use crate::control::{Control, Gone, Parts, Request};
use crate::devices::{self, Devices};
use crate::fronts::Fronts;
use crate::kernel::{Desired, HostPort, Keeper, KernelView, Trunk, Watch};
use crate::shared::Shared;
use crate::shortcut::{Bookkeeper, Shortcut};
use crate::slow::Slow;
use crate::state_dir::StateDir;
use crate::tasks::Tasks;
use crate::threads::Workers;
use crate::{bound, host};

/// Frames that wait for the slow path at most.
const PUNTS: usize = 4096;
/// Connections that wait to be looked at for the shortcut at most.
const MENTIONS: usize = 1024;

/// What goes on until the process ends.
pub(crate) struct Running {
    /// What others may see.
    pub(crate) shared: Arc<Shared>,
    /// What the control task is asked.
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    /// The tasks that go on beside that of control; some end with it.
    pub(crate) tasks: Tasks,
    control: JoinHandle<Result<(), Gone>>,
    workers: Workers,
    _watch: Watch,
}

// === impl Running ===

impl Running {
    /// Starts everything that forwards.
    pub(crate) async fn start(
        config: &Config,
        dir: StateDir,
        table: &'static Arc<FlowTable>,
    ) -> anyhow::Result<Self> {
        let watch = Watch::start().await?;
        let view = watch.views().borrow().clone();
        let desired = trunk(config, &view)?;
        let host = HostPort::new(&config.state_dir)?;
        let (trunk, _) = host.apply(&desired).await?;

        let mut assembler = Assembler::new(table.generation() as u32);
        let first = Arc::new(assembler.assemble(&State::default(), &Underlay::default()));
        let alike = setup(config, &desired, table, first.clone())?;
        let workers = Workers::start(&config.cores, &alike)?;
        let devices = open(config, &desired, &alike, &trunk)?;
        let shortcut = config.shortcut.then(|| Arc::new(Shortcut::new(devices.shortcut())));
        let shared = Arc::new(Shared::new(config, &alike, shortcut.clone()));

        let (snapshots, seen) = watch::channel(first.clone());
        let (tell, told) = mpsc::unbounded_channel();
        let (ask, asked) = mpsc::unbounded_channel();
        let slow = Slow {
            machines: SlowPath::new(Default::default()),
            engine: Engine::new(table, shared.slow.clone()).context("no seat")?,
            table,
            links: alike.links.clone(),
            punts: alike.punts,
            snapshots: seen.clone(),
            host_flows: devices.host_flows(),
            readings: shared.readings.clone(),
            tell: told,
            ask,
        };
        let mut tasks = Tasks::default();
        tasks.spawn("the look at bound ports", silent(bound::follow(assembler.bound_ports())));
        tasks.spawn("the slow path", async { Ok(slow.run().await?) });
        let guest = || FlowWorker::new(table.clone()).context("no seat");
        let accountant = Accountant::new(shared.accounts.clone(), seen.clone(), guest()?);
        tasks.spawn("the accountant", silent(accountant.run()));
        if let Some((shared, mentions)) = shortcut.zip(alike.mentions) {
            let bookkeeper = Bookkeeper { shared, mentions, snapshots: seen, guest: guest()? };
            tasks.spawn("the shortcut's bookkeeper", async { Ok(bookkeeper.run().await?) });
        }

        let parts = Parts {
            dir,
            links: alike.links,
            table,
            devices,
            uplinks: config.uplinks.clone(),
            host,
            desired,
            keeper: Keeper::new()?,
            views: watch.views(),
            snapshots,
            tell,
            ask: asked,
            shared: shared.clone(),
        };
        let mut control = Control::new(parts, first, assembler);
        control.begin().await?;
        let (requests, questions) = mpsc::unbounded_channel();
        let control = tokio::spawn(control.run(questions));
        Ok(Self { shared, requests, tasks, control, workers, _watch: watch })
    }

    /// Waits for the end of a part, which none has before [`Self::take_back`]: what went wrong.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            biased;
            ended = &mut self.control => why(ended),
            error = self.tasks.ended() => {
                // Perhaps with the control task, which knows why.
                let control = tokio::time::timeout(Duration::from_secs(1), &mut self.control);
                control.await.map_or(error, why)
            }
            number = self.workers.lost() => anyhow!("worker {number} has ended"),
        }
    }

    /// Takes back all that was put into the kernel.
    pub(crate) async fn take_back(&self) {
        let (done, finished) = oneshot::channel();
        if self.requests.send(Request::Stop(done)).is_ok() {
            let _ = finished.await;
        }
    }

    /// Waits for the ends of tasks and threads, behind [`Self::take_back`].
    pub(crate) async fn join(mut self) -> anyhow::Result<()> {
        self.control.await??;
        self.tasks.shutdown().await;
        tokio::task::spawn_blocking(|| self.workers.join()).await?;
        Ok(())
    }
}

fn why(ended: Result<Result<(), Gone>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("the control task has ended"),
        Ok(Err(gone)) => anyhow::Error::new(gone).context("cannot go on"),
        Err(error) => error.into(),
    }
}

/// A task that has nothing to say when it ends.
async fn silent(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
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

/// What workers are made of, each with another number and core.
fn setup(
    config: &Config,
    desired: &Desired,
    table: &'static Arc<FlowTable>,
    snapshot: Arc<Snapshot>,
) -> anyhow::Result<Setup> {
    let region = Region::new(RegionConfig {
        chunks: config.frames,
        chunk_size: chunk_size(desired.mtu),
        hugepages: true,
    })?;
    let links = (0..config.workers).map(|_| Link::new(Arc::default()));
    Ok(Setup {
        number: 0,
        core: None,
        links: links.collect::<Result<_, _>>()?,
        punts: Arc::new(Punts::new(PUNTS)?),
        mentions: config.shortcut.then(|| Mentions::new(MENTIONS)).transpose()?.map(Arc::new),
        table,
        region,
        snapshot,
        polling: if config.busy { Polling::Busy } else { Polling::Adaptive },
    })
}

/// Packets that no chunk takes go on in further ones.
fn chunk_size(mtu: u32) -> ChunkSize {
    let frame = mtu as usize + margay_wire::ethernet::LEN;
    ChunkSize::for_frame(frame).unwrap_or(ChunkSize::Bytes4096)
}

/// Sockets and programs over the workers' packet memory, the trunk's at first.
fn open(
    config: &Config,
    desired: &Desired,
    workers: &Setup,
    trunk: &Trunk,
) -> anyhow::Result<Devices> {
    let multi_buffer = devices::is_jumbo(desired.mtu);
    let options = UmemOptions { multi_buffer, ..UmemOptions::default() };
    let binder = Binder::new(workers.region, options);
    let ends = (&trunk.kernel, &trunk.worker);
    let devices = Devices::new(binder, workers.links.clone(), config, ends);
    Ok(match multi_buffer {
        true => devices.context("an uplink of jumbo frames wants Linux 6.6 or later")?,
        false => devices?,
    })
}
