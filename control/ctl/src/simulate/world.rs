//! The compiled datastore, and who has which address.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::{Endpoint, PolicyKey, TierPolicies};
use margay_resources::conf::Settings;
use margay_tables::classifier::{
    Cause, Classifier, Decision, Direction, EndpointPolicy, PacketFacts, PolicyBook,
};

use super::translate::Services;

/// Everything that a flow is judged by.
pub(crate) struct World<'c> {
    pub(crate) compiler: &'c Compiler,
    pub(crate) services: Services<'c>,
    classifier: Classifier,
    book: PolicyBook,
    parties: HashMap<IpAddr, Party<'c>>,
    /// The tiers of endpoints, by where they lie in memory: endpoints with the same share them.
    tiers: HashMap<usize, EndpointPolicy>,
    /// The profiles of endpoints, which differ by namespace and service account.
    profiles: HashMap<&'c [PolicyKey], EndpointPolicy>,
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
        let book = PolicyBook::from_state(state);
        Self {
            compiler,
            services: Services::new(compiler),
            classifier: book.classifier(),
            book,
            parties,
            tiers: HashMap::new(),
            profiles: HashMap::new(),
            settings: HashMap::new(),
        }
    }

    /// Who has an address.
    pub(crate) fn party(&self, address: IpAddr) -> Party<'c> {
        self.parties.get(&address).copied().unwrap_or_default()
    }

    /// What an endpoint's policies say. They are compiled when they are first asked for: the tiers
    /// apart from the profiles, which are asked where no tier decides, because a policy for many
    /// endpoints would otherwise be indexed anew for each combination of profiles.
    pub(crate) fn decide(
        &mut self,
        endpoint: &'c Endpoint,
        direction: Direction,
        facts: &PacketFacts,
    ) -> Decision<'_> {
        let Self { book, tiers, profiles, classifier, .. } = self;
        // One key for all: what was compiled is kept here, and the book need not remember whom to
        // tell of changes, of which there are none.
        let mut part = |tiers: &Arc<[TierPolicies]>, profiles: &Arc<[PolicyKey]>| {
            let (tiers, profiles, key) = (tiers.clone(), profiles.clone(), Arc::default());
            book.endpoint(&Endpoint { key, tiers, profiles, ..endpoint.clone() })
        };
        let place = endpoint.tiers.as_ptr().addr();
        let policy = tiers.entry(place).or_insert_with(|| part(&endpoint.tiers, &Arc::default()));
        let decision = classifier.decide(policy, direction, facts);
        if decision.cause != Cause::NoProfile {
            return decision;
        }
        let policy = profiles.entry(&*endpoint.profiles);
        let policy = policy.or_insert_with(|| part(&Arc::default(), &endpoint.profiles));
        classifier.decide(policy, direction, facts)
    }

    /// The settings in force on a node.
    pub(crate) fn settings(&mut self, node: &Arc<str>) -> &Settings {
        let compiler = self.compiler;
        self.settings.entry_ref(node).or_insert_with(|| compiler.felix_settings_of(node))
    }
}
