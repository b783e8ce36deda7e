//! The compiled datastore, and who has which address.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::Endpoint;
use margay_resources::conf::Settings;

use super::translate::Services;

/// Everything that a flow is judged by.
pub(crate) struct World<'c> {
    compiler: &'c Compiler,
    pub(crate) services: Services<'c>,
    parties: HashMap<IpAddr, Party<'c>>,
    settings: HashMap<Arc<str>, Settings>,
}

/// Who is behind an address. It may be a node's and a host endpoint's at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Party<'c> {
    /// The endpoint whose policy applies.
    pub(crate) endpoint: Option<&'c Endpoint>,
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
        for (key, endpoint) in &state.endpoints {
            // Host endpoints have keys without a namespace, and so come first; pods go before them.
            let is_pod = !key.starts_with('/');
            for address in &endpoint.addresses {
                let party = parties.entry(*address).or_default();
                if party.endpoint.is_none() || is_pod && !party.is_pod {
                    let node = compiler.node_of(key).or(party.node);
                    (party.endpoint, party.is_pod, party.node) = (Some(&**endpoint), is_pod, node);
                }
            }
        }
        Self { compiler, services: Services::new(compiler), parties, settings: HashMap::new() }
    }

    /// What it was made of.
    pub(crate) fn compiler(&self) -> &'c Compiler {
        self.compiler
    }

    /// Who has an address.
    pub(crate) fn party(&self, address: IpAddr) -> Party<'c> {
        self.parties.get(&address).copied().unwrap_or_default()
    }

    /// The settings in force on a node.
    pub(crate) fn settings(&mut self, node: &Arc<str>) -> &Settings {
        let compiler = self.compiler;
        self.settings.entry_ref(node).or_insert_with(|| compiler.felix_settings_of(node))
    }
}
