//! What the servers may see of the daemon, without asking the control task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use margay_engine::{Counters, PortId, Snapshot, Underlay};
use margay_model::{EndpointKey, State};
use margay_tables::flow::FlowTable;
use margay_worker::tap::Tap;
use margay_worker::{Link, Setup};

use crate::accounts::Accounts;
use crate::config::Config;
use crate::devices::Entry;
use crate::flow_config;
use crate::ports::Traffic;
use crate::shortcut::Shortcut;
use crate::slow::Readings;
use crate::tuning::{self, Setting};

/// Where the state in force came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// There is none yet.
    #[default]
    None,
    /// The last process saved it.
    Saved,
    /// An agent sent it.
    Agent,
}

/// What is in force.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// Ports by name, the host port first.
    pub ports: Vec<(Arc<str>, PortId)>,
    /// What their numbers had counted for interfaces that are gone.
    pub given_back: BTreeMap<PortId, Traffic>,
    /// How packets get in.
    pub entries: Vec<Entry>,
    /// The kernel's view.
    pub underlay: Underlay,
    /// The snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The state, in force or about to be. Who keeps it has it copied when it changes.
    pub state: Arc<State>,
    /// Why each endpoint is down; `None` where it is up.
    pub endpoints: BTreeMap<EndpointKey, Option<String>>,
    /// Number of domain names that are known, and of names and addresses that found no room.
    pub names: (usize, u64),
    /// Where the state came from.
    pub origin: Origin,
    /// Whether an agent is connected.
    pub agent: bool,
    /// Those who want to see packets.
    pub taps: Vec<Arc<Tap>>,
}

/// Shared by all tasks.
pub(crate) struct Shared {
    /// When the daemon started.
    pub started: Instant,
    /// The same by [`margay_tables::ticks`].
    pub started_ticks: u64,
    /// Another number in each process.
    pub instance: u64,
    /// The workers.
    pub links: Arc<[Link]>,
    /// The core of each worker.
    pub cores: Vec<Option<usize>>,
    /// What was chosen for this machine; told once all of it is.
    pub tuning: Vec<Setting>,
    /// Counters of the slow path.
    pub slow: Arc<Counters>,
    /// What was found in messages between pods and name servers.
    pub readings: Arc<Readings>,
    /// What goes past the workers, if anything may.
    pub shortcut: Option<Arc<Shortcut>>,
    /// The accounts of connections.
    pub accounts: Arc<Accounts>,
    /// The flow table.
    pub table: &'static Arc<FlowTable>,
    view: Mutex<View>,
}

// === impl Shared ===

impl Shared {
    /// Nothing is in force yet.
    pub(crate) fn new(config: &Config, workers: &Setup, shortcut: Option<Arc<Shortcut>>) -> Self {
        Self {
            started: Instant::now(),
            started_ticks: margay_tables::ticks(),
            instance: crate::instance(),
            links: workers.links.clone(),
            cores: config.cores.clone(),
            tuning: tuning::chosen(config, workers.region, &flow_config(config)),
            slow: Arc::default(),
            readings: Arc::default(),
            shortcut,
            accounts: Arc::new(Accounts::new(workers.table, config.rule_series)),
            table: workers.table,
            view: Mutex::default(),
        }
    }

    /// What is in force now.
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is seen.
    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes where the state came from.
    pub(crate) fn set_origin(&self, origin: Origin) {
        self.update(|view| view.origin = origin);
    }

    /// All counters: the workers' and the slow path's.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.links.iter().map(|link| &*link.counters).chain(std::iter::once(&*self.slow))
    }
}
