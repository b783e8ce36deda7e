//! Host endpoints: their policies in four lists, one for each point of a packet's path.

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{DefaultAction, HostEndpoint, TierPolicies, Update};

use super::{Entry, Policies, PolicyChanges};
use crate::intent::{Stage, profile_key};
use crate::label::{ItemId, Labels, SelectorId};

/// A host endpoint without its lists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostEndpointFacts {
    /// As it is emitted, with empty lists.
    pub(crate) host: HostEndpoint,
    /// Names of its profiles, in order.
    pub(crate) profiles: Vec<Arc<str>>,
}

/// The tiers of a host endpoint at each point of the path.
#[derive(Clone)]
struct Lists {
    untracked: Arc<[TierPolicies]>,
    pre_dnat: Arc<[TierPolicies]>,
    forward: Arc<[TierPolicies]>,
    own: Arc<[TierPolicies]>,
}

// === impl Policies ===

impl Policies {
    /// Adds or replaces a host endpoint that is emitted.
    pub(crate) fn set_host(&mut self, id: ItemId, facts: HostEndpointFacts, labels: Labels) {
        if self.hosts.get(&id) != Some(&facts) {
            self.count_profiles(&facts.profiles, true);
            if let Some(old) = self.hosts.insert(id, facts) {
                self.count_profiles(&old.profiles, false);
            }
            self.dirty_endpoints.insert(id);
        }
        self.label(id, labels);
    }

    /// Removes a host endpoint.
    pub(crate) fn remove_host(&mut self, id: ItemId) {
        let Some(old) = self.hosts.remove(&id) else { return };
        self.count_profiles(&old.profiles, false);
        self.unlabel(id);
    }

    /// Whether an item is, or was when changes were last published, a host endpoint.
    pub(super) fn is_host(&self, id: ItemId) -> bool {
        self.hosts.contains_key(&id) || self.published_hosts.contains_key(&id)
    }

    /// Whether a policy for another point of a host endpoint's path selects a host endpoint.
    pub(super) fn selects_host(&self, entry: &Entry) -> bool {
        !self.hosts.is_empty()
            && self.index.items_of(entry.selector).any(|id| self.hosts.contains_key(&id))
    }

    /// Publishes host endpoints that changed; to be called before the other endpoints'.
    pub(super) fn flush_hosts(&mut self, changes: &mut PolicyChanges) {
        let dirty = self.dirty_endpoints.iter().copied().filter(|id| self.is_host(*id));
        let mut dirty: Vec<_> = dirty.collect();
        dirty.sort_unstable();
        // Host endpoints that the same selectors match share their lists.
        let mut known: HashMap<Vec<SelectorId>, Lists> = HashMap::new();
        for id in dirty {
            let old = self.published_hosts.remove(&id);
            let Some(facts) = self.hosts.get(&id) else {
                let gone = old.map(|old| Update::HostGone(old.key.clone()));
                changes.endpoints_gone.extend(gone);
                continue;
            };
            self.recomputed += 1;
            let selectors: Vec<_> = self.index.selectors_of(id).collect();
            let lists = known.entry(selectors).or_insert_with_key(|s| self.lists(id, s));
            let host = with_lists(facts, lists.clone());
            let host = match old {
                Some(old) if *old == host => old,
                _ => {
                    let host = Arc::new(host);
                    changes.endpoints.push(Update::Host(host.clone()));
                    host
                }
            };
            self.published_hosts.insert(id, host);
        }
    }

    /// The lists of a host endpoint that these selectors match.
    fn lists(&self, id: ItemId, selectors: &[SelectorId]) -> Lists {
        let tiers = |asked: &dyn Fn(Stage) -> bool| {
            let counts = |entry: &Entry| entry.intent.staged.is_none() && asked(entry.intent.stage);
            self.sequence(&[id], counts).tiers_of(selectors)
        };
        Lists {
            untracked: open(tiers(&|stage| stage == Stage::Untracked)),
            pre_dnat: open(tiers(&|stage| stage == Stage::PreDnat)),
            forward: tiers(&|stage| stage == Stage::Forward).into(),
            own: tiers(&|stage| !stage.is_host_path()).into(),
        }
    }
}

/// The tiers of a point of the path where the end of a tier decides nothing.
fn open(tiers: Vec<TierPolicies>) -> Arc<[TierPolicies]> {
    let pass = |tier| TierPolicies { default_action: DefaultAction::Pass, ..tier };
    tiers.into_iter().map(pass).collect()
}

fn with_lists(facts: &HostEndpointFacts, lists: Lists) -> HostEndpoint {
    HostEndpoint {
        untracked: lists.untracked,
        pre_dnat: lists.pre_dnat,
        forward: lists.forward,
        tiers: lists.own,
        profiles: facts.profiles.iter().map(|name| profile_key(name)).collect(),
        ..facts.host.clone()
    }
}
