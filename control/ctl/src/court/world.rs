//! The compiled datastore, and who has which address.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::{Endpoint, HostEndpoint, HostInterface};
use margay_resources::conf::Settings;

use super::translate::Services;

/// Everything that a flow is judged by.
pub(crate) struct World<'c> {
    compiler: &'c Compiler,
    pub(crate) services: Services<'c>,
    parties: HashMap<IpAddr, Party<'c>>,
    /// The host endpoints of nodes.
    doors: HashMap<&'c Arc<str>, Doors<'c>>,
    settings: HashMap<Arc<str>, Settings>,
}

/// A host endpoint: what is asked of what passes, and of the node's own connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard<'c> {
    pub(crate) host: &'c HostEndpoint,
    pub(crate) endpoint: &'c Endpoint,
}

/// The host endpoints of a node's interfaces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doors<'c> {
    /// The first by name of those for single interfaces.
    pub(crate) single: Option<Guard<'c>>,
    /// The first of those for all interfaces.
    pub(crate) everywhere: Option<Guard<'c>>,
}

/// Who is behind an address. It may be a node's and a host endpoint's at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Party<'c> {
    /// The endpoint whose policy applies.
    pub(crate) endpoint: Option<&'c Endpoint>,
    /// The same, if it is a host endpoint.
    pub(crate) guard: Option<Guard<'c>>,
    /// Whether that is a pod's.
    pub(crate) is_pod: bool,
    /// Node on which it is.
    pub(crate) node: Option<&'c Arc<str>>,
    /// The node whose own address it is.
    pub(crate) host: Option<&'c Arc<str>>,
}

// === impl World ===

impl<'c> World<'c> {
    /// Indexes what was compiled.
    pub(crate) fn new(compiler: &'c Compiler) -> Self {
        let state = compiler.state();
        let mut parties: HashMap<IpAddr, Party<'c>> = HashMap::new();
        for (node, address) in compiler.node_addresses() {
            let party = parties.entry(address).or_default();
            (party.host, party.node) = (party.host.or(Some(node)), party.node.or(Some(node)));
        }
        let mut doors: HashMap<_, Doors<'c>> = HashMap::new();
        for (key, endpoint) in &state.endpoints {
            // Host endpoints have keys without a namespace, and so come first; pods go before them.
            let is_pod = !key.starts_with('/');
            let host = state.hosts.get(key.trim_matches('/')).filter(|_| !is_pod);
            let guard = host.map(|host| Guard { host, endpoint });
            if let (Some(guard), Some(node)) = (guard, compiler.node_of(key)) {
                doors.entry(node).or_default().add(guard);
            }
            for address in &endpoint.addresses {
                let party = parties.entry(*address).or_default();
                if party.endpoint.is_none() || is_pod && !party.is_pod {
                    let node = compiler.node_of(key).or(party.node);
                    (party.endpoint, party.is_pod, party.node) = (Some(&**endpoint), is_pod, node);
                    party.guard = guard;
                }
            }
        }
        let services = Services::new(compiler);
        Self { compiler, services, parties, doors, settings: HashMap::new() }
    }

    /// What it was made of.
    pub(crate) fn compiler(&self) -> &'c Compiler {
        self.compiler
    }

    /// Who has an address.
    pub(crate) fn party(&self, address: IpAddr) -> Party<'c> {
        self.parties.get(&address).copied().unwrap_or_default()
    }

    /// The host endpoints of a node.
    pub(crate) fn doors(&self, node: &Arc<str>) -> Doors<'c> {
        self.doors.get(node).copied().unwrap_or_default()
    }

    /// Whether there is any host endpoint.
    pub(crate) fn has_doors(&self) -> bool {
        !self.doors.is_empty()
    }

    /// The settings in force on a node.
    pub(crate) fn settings(&mut self, node: &Arc<str>) -> &Settings {
        let compiler = self.compiler;
        self.settings.entry_ref(node).or_insert_with(|| compiler.felix_settings_of(node))
    }
}

// === impl Doors ===

impl<'c> Doors<'c> {
    fn add(&mut self, guard: Guard<'c>) {
        let slot = match guard.host.interface {
            HostInterface::All => &mut self.everywhere,
            HostInterface::Named(_) | HostInterface::With(_) => &mut self.single,
        };
        slot.get_or_insert(guard);
    }
}
