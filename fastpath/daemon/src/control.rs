//! The control task: the one place that changes what is in force.
//!
//! Everything that happens comes here as an event: the agent's state and deltas, the kernel's view,
//! questions of the slow path. From state and view it brings the kernel's part and the ports up to
//! date, assembles the next snapshot, hands it to every worker and waits until all forward by it.
//!
//! Order of a change (each step may rely on the ones before it):
//! 1. the kernel's part: trunk, addresses, routes, rules;
//! 2. sockets and programs of interfaces that appeared;
//! 3. the snapshot, in force on all workers;
//! 4. the uplinks' classes: what is redirected finds a worker that knows it;
//! 5. the word to the agent.
//!
//! [`kernel`] is step 1, [`neighbours`] the next hops that must be known, [`names`] what name servers
//! said.

mod kernel;
mod names;
mod neighbours;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use margay_engine::snapshot::host_endpoint;
use margay_engine::{Assembler, PortId, Snapshot, Underlay, conntrack};
use margay_model::{EndpointKey, LocalNode, State, Update};
use margay_protocol::message::{DaemonMessage, EndpointStatus};
use margay_protocol::{FlowFilter, proto};
use margay_tables::flow::FlowTable;
use margay_worker::link::Returned;
use margay_worker::{Command, Link};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::classes::Classes;
use crate::connections;
use crate::devices::{DeviceError, Devices};
use crate::difference::{Difference, ports_gone};
use crate::fronts::Fronts;
use crate::kernel::{Desired, HostPort, Keeper, KernelView};
use crate::names::Learned;
use crate::path_mtu::PathMtus;
use crate::ports::{Ports, TRUNK, addresses_of};
use crate::shared::{Origin, Shared};
use crate::show;
use crate::slow::{Ask, Tell, exchange, host_flow};
use crate::state_dir::{StateDir, Unsaved};

use kernel::Grounds;
use neighbours::Wanted;

/// How long workers may take to forward by a new snapshot before it is said that one hangs.
const ADOPT_WITHIN: Duration = Duration::from_secs(2);

/// Why a host endpoint is not in force.
const NO_UPLINK: &str = "no uplink is the interface that it stands for, or another one that stands \
                         for it comes first; see margayd's --uplink";

/// What the protocol's server asks of the control task.
pub(crate) enum Request {
    /// An agent is there; what it is told goes here.
    AgentHere(mpsc::UnboundedSender<DaemonMessage>),
    /// Reconcile with a full state; the answer is the generation in force.
    Replace(Box<State>, oneshot::Sender<u32>),
    /// Put changes in force; the answer is the generation in force.
    Apply(Vec<Update>, oneshot::Sender<u32>),
    /// The agent has its answer: tell it of endpoints.
    Answered,
    /// The addresses that were learned for domain names.
    Names(oneshot::Sender<Vec<proto::NameAddress>>),
    /// End, leaving the node as it was.
    Stop(oneshot::Sender<()>),
}

/// What the control task is made of.
pub(crate) struct Parts {
    /// The state directory.
    pub dir: StateDir,
    /// Workers.
    pub links: Arc<[Link]>,
    /// The flow table.
    pub table: &'static Arc<FlowTable>,
    /// Sockets and programs.
    pub devices: Devices,
    /// Names of the uplinks.
    pub uplinks: Vec<String>,
    /// The kernel's part.
    pub host: HostPort,
    /// What the trunk was made with.
    pub desired: Desired,
    /// Keeps next hops known.
    pub keeper: Keeper,
    /// The kernel's view.
    pub views: watch::Receiver<KernelView>,
    /// Snapshots for the slow path.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// The slow path.
    pub tell: mpsc::UnboundedSender<Tell>,
    /// The slow path's questions.
    pub ask: mpsc::UnboundedReceiver<Ask>,
    /// What others may see.
    pub shared: Arc<Shared>,
}

/// The task.
pub(crate) struct Control {
    parts: Parts,
    view: KernelView,
    /// Shared with those who look, who let go of it while it changes.
    state: Arc<State>,
    assembler: Assembler,
    ports: Ports,
    underlay: Underlay,
    /// What the services of the state are reached by, whether it has to be looked up again, and that
    /// with what is left of others.
    served: Fronts,
    services_changed: bool,
    fronts: Fronts,
    snapshot: Arc<Snapshot>,
    published: u64,
    agent: Option<mpsc::UnboundedSender<DaemonMessage>>,
    /// Why each endpoint is down; `None` where it is up.
    endpoints: BTreeMap<EndpointKey, Option<String>>,
    /// Neighbours that the slow path waits for.
    wanted: BTreeMap<(PortId, IpAddr), Wanted>,
    /// Addresses whose flows are to end with the next snapshot.
    forgotten: BTreeSet<IpAddr>,
    path_mtus: PathMtus,
    names: Learned,
    /// What the slow path knows of the node.
    told: Option<Arc<LocalNode>>,
    unsaved: Unsaved,
    /// What stood in the kernel when the host port was last brought to what is wanted.
    grounds: Grounds,
    /// Why it could not be, as it was told last.
    refused: Option<String>,
}

/// What the daemon cannot be without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Gone {
    /// The trunk, and all pods' ports with it.
    #[error("somebody has deleted the interface {TRUNK}")]
    Trunk,
    /// Netlink has ended.
    #[error("the kernel is not watched any more")]
    Watch,
}

/// When changes of the kernel's view are to be in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    /// Neighbours that nobody waits for may wait for the next second: each new or lost one makes
    /// all decisions anew, and a large network has always some.
    Soon,
}

// === impl Control ===

impl Control {
    /// A task that has published nothing yet. Generations go on from the flow table's.
    pub(crate) fn new(parts: Parts, snapshot: Arc<Snapshot>, assembler: Assembler) -> Self {
        let view = parts.views.borrow().clone();
        let names = Learned::load(parts.dir.file("names"));
        Self {
            parts,
            view,
            names,
            state: Arc::default(),
            assembler,
            ports: Ports::default(),
            underlay: Underlay::default(),
            served: Fronts::default(),
            services_changed: false,
            fronts: Fronts::default(),
            snapshot,
            published: 0,
            agent: None,
            endpoints: BTreeMap::new(),
            wanted: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            path_mtus: PathMtus::default(),
            told: None,
            unsaved: Unsaved::default(),
            grounds: Grounds::default(),
            refused: None,
        }
    }

    /// Puts the saved state in force, if there is one, and makes the uplinks ports.
    pub(crate) async fn begin(&mut self) -> Result<(), DeviceError> {
        if let Some(state) = self.parts.dir.load_state() {
            info!(endpoints = state.endpoints.len(), "going on with the last state");
            self.take(self.state.diff(&state));
            self.names.noted_all();
            self.parts.shared.set_origin(Origin::Saved);
        }
        self.fronts = Fronts::of_connections(self.parts.table, |addr| self.is_own(addr));
        self.publish().await;
        self.steer_answers();
        let classes = self.classes();
        self.parts.devices.take_over_pods(&self.view);
        self.parts.devices.leave_former_uplinks(&self.view, &self.parts.uplinks);
        for name in &self.parts.uplinks {
            self.parts.devices.add_uplink(&self.view, name, &classes)?;
        }
        // Not before there is a way out: nobody is to be told that there is none.
        if self.parts.shared.view().origin == Origin::Saved {
            self.assembler.set_ready();
        }
        self.publish().await;
        Ok(())
    }

    /// Has the kernel's answers to outside clients of the node's own backends, and answers to pods
    /// by protocols without ports, brought here, for the connections that an earlier process left.
    fn steer_answers(&self) {
        let own = |addr: IpAddr| self.snapshot.is_own(addr.into());
        let host_flows = self.parts.devices.host_flows();
        show::flows(&self.parts.shared, &FlowFilter::default(), |flow| {
            let (asked, answer) = (&flow.orig, &flow.reply);
            let translated = (asked.dst, asked.dst_port) != (answer.src, answer.src_port);
            if translated
                && own(answer.src)
                && !own(asked.src)
                && let Err(error) = host_flows.add(host_flow(answer))
            {
                warn!(%error, "cannot steer the answers of a host backend");
            }
            let masqueraded = asked.src != answer.dst && own(answer.dst);
            if masqueraded
                && conntrack::is_portless(asked.protocol)
                && let Err(error) = host_flows.claim(exchange(answer), u64::MAX)
            {
                warn!(%error, "cannot steer answers of a protocol without ports");
            }
            true
        });
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// What it works with is gone. Whoever starts again makes it anew.
    pub(crate) async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
    ) -> Result<(), Gone> {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut rarely = tokio::time::interval(Duration::from_secs(10));
        let mut often = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                        return Ok(());
                    }
                    Some(request) => self.answer(request).await,
                    None => {
                        self.stop().await;
                        return Ok(());
                    }
                },
                changed = self.parts.views.changed() => {
                    self.view = self.parts.views.borrow_and_update().clone();
                    let trunk = self.parts.devices.has_trunk(&self.view);
                    if changed.is_err() || !trunk {
                        self.save();
                        return Err(if trunk { Gone::Watch } else { Gone::Trunk });
                    }
                    self.look_again(When::Soon).await;
                }
                Some(ask) = self.parts.ask.recv() => self.asked(ask).await,
                _ = often.tick() => self.collect(),
                _ = rarely.tick() => {
                    let fronts = self.followed_fronts();
                    if fronts != self.fronts {
                        self.fronts = fronts;
                        self.publish().await;
                    }
                }
                _ = second.tick() => {
                    if self.parts.devices.follow_queues(&self.view)
                        | self.parts.devices.follow_busy_polls()
                    {
                        self.publish_view();
                    }
                    self.look_again(When::Now).await;
                    self.keep().await;
                    if self.names.tick(&self.parts.shared, &mut self.assembler) {
                        self.put_names_in_force().await;
                    }
                    self.save();
                }
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::AgentHere(agent) => {
                self.agent = Some(agent);
                self.endpoints.clear();
            }
            Request::Replace(state, done) => {
                let updates = self.state.diff(&state);
                info!(changes = updates.len(), "reconciling with the agent's state");
                self.take(updates);
                self.names.noted_all();
                self.assembler.set_ready();
                self.parts.shared.set_origin(Origin::Agent);
                let _ = done.send(self.publish().await);
            }
            Request::Apply(updates, done) => {
                self.take(updates);
                let _ = done.send(self.publish().await);
            }
            Request::Answered => self.tell_endpoints(),
            Request::Names(answer) => drop(answer.send(self.names.show(&self.state))),
            Request::Stop(_) => {}
        }
    }

    /// Takes changes into the state; they are in force with the next snapshot.
    fn take(&mut self, updates: Vec<Update>) {
        for update in &updates {
            self.assembler.note(update);
            self.names.note(update, &mut self.assembler);
            let key = match update {
                Update::Endpoint(endpoint) => Some(&endpoint.key),
                Update::EndpointGone(key) => Some(key),
                _ => None,
            };
            if let Some(old) = key.and_then(|key| self.state.endpoints.get(key)) {
                self.forgotten.extend(&old.addresses);
            }
            self.services_changed |= matches!(update, Update::Service(_) | Update::ServiceGone(_));
        }
        let Self { parts, state, .. } = self;
        parts.shared.update(|view| {
            // Else all of it would be copied, sets with their members too.
            view.state = Arc::default();
            let changed = Arc::make_mut(state);
            updates.into_iter().for_each(|update| changed.apply(update));
            view.state = state.clone();
        });
        if !self.forgotten.is_empty() {
            let pods = self.state.endpoints.values();
            let kept: BTreeSet<_> = pods.flat_map(|pod| &pod.addresses).collect();
            self.forgotten.retain(|address| !kept.contains(address));
        }
        self.unsaved.note();
    }

    /// Brings everything up to date with state and view; returns the generation in force.
    async fn publish(&mut self) -> u32 {
        if std::mem::take(&mut self.services_changed) {
            let served = Fronts::of(&self.state);
            if served != self.served {
                self.served = served;
                self.fronts = self.followed_fronts();
            }
        }
        self.apply_to_kernel().await;
        let failed = self.parts.devices.sync_pods(&self.view, &self.state);
        let underlay = self.look();
        if self.told.as_ref() != Some(&self.state.node) {
            self.told = Some(self.state.node.clone());
            let _ = self.parts.tell.send(Tell::Node(self.state.node.clone()));
        }
        for gone in ports_gone(&self.underlay, &underlay) {
            let _ = self.parts.tell.send(Tell::PortGone(gone));
        }
        self.underlay = underlay;
        let snapshot = self.assembler.assemble(&self.state, &self.underlay);
        self.parts.table.set_generation(snapshot.generation.into());
        self.hand_out(snapshot).await;
        connections::count_earlier(&self.snapshot, self.parts.table);
        let classes = self.classes();
        if let Err(error) = self.parts.devices.set_classes(&classes) {
            error!(%error, "the uplinks do not redirect what they should");
        }
        let lost = self.assembler.take_lost();
        if !lost.is_empty() {
            self.parts.table.affinities().forget(&lost);
        }
        for address in std::mem::take(&mut self.forgotten) {
            let _ = self.parts.tell.send(Tell::Forget(address));
        }
        self.keep().await;
        self.note_endpoints(&failed);
        self.publish_view();
        self.snapshot.generation
    }

    /// What uplinks redirect. Whom a host endpoint stands for is asked of the kernel's view: an uplink
    /// is guarded from its first packet on, before it is a port.
    fn classes(&self) -> Classes {
        let is_guarded = |name: &&String| {
            let link = self.view.link(name);
            let addresses = link.map(|link| addresses_of(&self.view, link.index));
            host_endpoint(&self.state, name, &addresses.unwrap_or_default()).is_some()
        };
        let guarded = self.parts.uplinks.iter().filter(is_guarded).cloned().collect();
        Classes::new(&self.state, &self.fronts, &self.underlay, guarded)
    }

    /// What services are reached by, with what connections of those that are gone came by. It may walk
    /// the flow table.
    fn followed_fronts(&self) -> Fronts {
        let (before, now) = (self.fronts.clone(), self.served.clone());
        before.followed_by(now, self.parts.table, |addr| self.is_own(addr))
    }

    fn is_own(&self, addr: IpAddr) -> bool {
        self.view.has_address(addr) || self.state.node.addresses().any(|own| own == addr)
    }

    /// Lets go of uplinks that vanished and takes those that came back, at once: until then the
    /// kernel answers for our addresses. Whether there were any.
    fn follow_uplinks(&mut self) -> bool {
        let mut changed = self.parts.devices.forget_uplinks(&self.view);
        for name in &self.parts.uplinks {
            if self.parts.devices.is_uplink(name) || self.view.link(name).is_none() {
                continue;
            }
            let classes = self.classes();
            match self.parts.devices.add_uplink(&self.view, name, &classes) {
                Ok(()) => changed = true,
                Err(error) => {
                    warn!(uplink = name, %error, "cannot attach an uplink that came back")
                }
            }
        }
        changed
    }

    /// Hands a snapshot to all workers and waits until they use it.
    async fn hand_out(&mut self, snapshot: Snapshot) {
        // What was approved by an older one is not any more, whatever the workers still forward by.
        if let Some(shortcut) = &self.parts.shared.shortcut
            && let Err(error) = shortcut.put_in_force(snapshot.generation)
        {
            error!(%error, "the shortcut keeps what was approved");
        }
        let snapshot = Arc::new(snapshot);
        self.snapshot = snapshot.clone();
        self.published += 1;
        for link in self.parts.links.iter() {
            link.command(Command::Snapshot(snapshot.clone()));
        }
        self.parts.snapshots.send_replace(snapshot);
        let begun = Instant::now();
        while self.parts.links.iter().any(|link| link.adopted() < self.published) {
            if begun.elapsed() > ADOPT_WITHIN {
                error!("a worker does not take the new snapshot");
                return;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        self.collect();
    }

    /// The kernel's view has changed: what does it mean?
    async fn look_again(&mut self, when: When) {
        let uplinks = self.follow_uplinks();
        if !self.grounds.are(&self.view) {
            self.apply_to_kernel().await;
        }
        let underlay = self.look();
        let difference = match Difference::new(&self.underlay, &underlay) {
            _ if uplinks || self.follow_pods() => Difference::More,
            difference => difference,
        };
        let wait = when == When::Soon
            && !self.wanted.keys().any(|key| underlay.neighbours.contains_key(key));
        match difference {
            Difference::None => {}
            Difference::Hops => {
                self.underlay = underlay;
                let next = self.assembler.refresh_hops(&self.snapshot, &self.state, &self.underlay);
                self.hand_out(next).await;
            }
            Difference::Neighbours if wait => {}
            Difference::Neighbours | Difference::More => {
                self.publish().await;
            }
        }
        self.resolve();
    }

    /// The kernel's view in the engine's words.
    fn look(&mut self) -> Underlay {
        let attached = self.parts.devices.attached();
        let mtu = u16::try_from(self.parts.desired.mtu).unwrap_or(u16::MAX);
        let path_mtus = self.path_mtus.in_force(Instant::now());
        self.ports.make_room(&attached, |id| show::counted(&self.parts.shared, id));
        Underlay { path_mtus, ..self.ports.underlay(&self.view, &attached, mtu) }
    }

    /// Pods' interfaces that came or went become ports or end; whether any did. One that cannot be
    /// attached is tried again and changes nothing.
    fn follow_pods(&mut self) -> bool {
        let (state, view, devices) = (&self.state, &self.view, &mut self.parts.devices);
        let differs = state.endpoints.values().any(|endpoint| {
            let link = view.link(&endpoint.interface);
            link.map(|link| link.index) != devices.index_of_pod(&endpoint.interface)
        });
        if !differs {
            return false;
        }
        let before = devices.pods();
        devices.sync_pods(view, state);
        devices.pods() != before
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Neighbour { port, addr } => self.want(port, addr).await,
            Ask::Learn { ticket, facts } => self.learn(ticket, &facts).await,
            Ask::PathMtu { peer, mtu } => {
                if self.path_mtus.learn(peer, mtu, Instant::now()) {
                    info!(%peer, mtu, "the way to a tunnel's far end takes less");
                    self.look_again(When::Now).await;
                }
            }
        }
    }

    /// Drops what workers have given back.
    fn collect(&mut self) {
        for link in self.parts.links.iter() {
            while let Some(returned) = link.take_returned() {
                match returned {
                    Returned::Snapshot(snapshot) => drop(snapshot),
                    // Closing waits for the kernel.
                    Returned::Socket(_, socket) => {
                        drop(tokio::task::spawn_blocking(move || drop(socket)));
                    }
                }
            }
        }
    }

    /// Notes which endpoints are up, and tells the agent what has changed.
    fn note_endpoints(&mut self, failed: &BTreeMap<Arc<str>, String>) {
        let mut now = BTreeMap::new();
        for endpoint in self.state.endpoints.values() {
            let interface = &endpoint.interface;
            let down = match failed.get(interface) {
                Some(reason) => Some(reason.clone()),
                None if self.parts.devices.index_of_pod(interface).is_none() => {
                    Some(format!("there is no interface {interface}"))
                }
                None => None,
            };
            now.insert(endpoint.key.clone(), down);
        }
        for host in self.state.hosts.values() {
            let mut guards = self.snapshot.guards.iter();
            let down = guards.all(|guard| guard.endpoint.key != host.key).then(|| NO_UPLINK.into());
            now.insert(show::host_name(&host.key).into(), down);
        }
        let old = std::mem::replace(&mut self.endpoints, now);
        for (key, down) in &self.endpoints {
            if old.get(key) != Some(down) {
                self.tell_endpoint(key, down);
            }
        }
    }

    fn tell_endpoints(&self) {
        for (key, down) in &self.endpoints {
            self.tell_endpoint(key, down);
        }
    }

    fn tell_endpoint(&self, key: &EndpointKey, down: &Option<String>) {
        if let Some(agent) = &self.agent {
            let status = EndpointStatus { key: key.clone(), down: down.clone() };
            let _ = agent.send(DaemonMessage::EndpointStatus(status));
        }
    }

    fn publish_view(&self) {
        self.parts.shared.update(|view| {
            view.ports = self.ports.all().map(|(name, id)| (name.into(), id)).collect();
            view.given_back = self.ports.given_back().clone();
            view.entries = self.parts.devices.entries();
            view.underlay = self.underlay.clone();
            view.snapshot = Some(self.snapshot.clone());
            view.endpoints = self.endpoints.clone();
        });
    }

    fn save(&mut self) {
        self.names.save();
        self.parts.shared.update(|view| view.names = self.names.numbers());
        let Self { unsaved, parts, state, .. } = self;
        unsaved.save("the state", || parts.dir.save_state(state));
    }

    /// Leaves the node as it was; flows and state stay for the next start.
    async fn stop(&mut self) {
        info!("stopping");
        self.save();
        self.parts.devices.detach_all();
        self.parts.keeper.release(&self.view).await;
        if let Err(error) = self.parts.host.remove().await {
            warn!(error = &error as &dyn std::error::Error, "something of the host port stays");
        }
        for link in self.parts.links.iter() {
            link.command(Command::Stop);
        }
    }
}
