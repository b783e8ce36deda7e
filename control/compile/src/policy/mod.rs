//! Policies, profiles and the endpoints they apply to.
//!
//! - [`tier`] orders tiers and policies;
//! - [`rule`] compiles rules;
//! - [`host`] puts together what host endpoints are told;
//! - [`view`] answers people's questions;
//! - [`Policies`] knows which policies apply to which of the endpoints that are emitted, compiles
//!   those that apply to any, and gives each endpoint its tiers.

mod rule;
mod tier;
mod host;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use margay_model::{
    DefaultAction, Endpoint, EndpointKey, HostEndpoint, Policy, PolicyKey, TierPolicies, Update,
};

use crate::intent::{PolicyIntent, ProfileIntent, RuleIntent, TierIntent, profile_key};
use crate::label::{Event, ItemId, LabelIndex, Labels, SelectorId};
use crate::profiles::Profiles;
use crate::request::{Origins, PolicyOrigins};
use crate::sets::Sets;
pub(crate) use host::HostEndpointFacts;
use rule::{Compiled, Direction};
use tier::{PolicyPlace, TierPlace, Tiers};

/// An endpoint without its tiers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointFacts {
    /// As it is emitted, with empty `tiers` and `profiles`.
    pub(crate) endpoint: Endpoint,
    /// Names of its profiles, in order.
    pub(crate) profiles: Vec<Arc<str>>,
}

/// An endpoint's tiers, and those that it would have if staged policies were enforced.
type Prospects = (Arc<[TierPolicies]>, Option<Arc<[TierPolicies]>>);

#[derive(Debug)]
struct Entry {
    intent: PolicyIntent,
    place: PolicyPlace,
    selector: SelectorId,
}

/// What was emitted of a policy or profile, with the sets it holds.
#[derive(Debug)]
struct Emitted {
    policy: Arc<Policy>,
    sets: Vec<margay_model::SetId>,
}

/// Changes since the last flush, in the order in which they are to be published.
#[derive(Debug, Default)]
pub(crate) struct PolicyChanges {
    pub(crate) policies: Vec<Update>,
    pub(crate) endpoints: Vec<Update>,
    pub(crate) endpoints_gone: Vec<Update>,
    pub(crate) policies_gone: Vec<Update>,
}

/// All policies, profiles, tiers and emitted endpoints.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    index: LabelIndex,
    tiers: Tiers,
    policies: HashMap<PolicyKey, Entry>,
    /// Policies that staged ones would replace or remove; of each there is one at most.
    staged: HashSet<PolicyKey>,
    /// Policies that came (or went) since the last flush. They wait for it, as a selector that
    /// finds its endpoints there needs to be compared with none of them.
    pending: BTreeMap<PolicyKey, Option<PolicyIntent>>,
    by_selector: HashMap<SelectorId, BTreeSet<PolicyKey>>,
    by_tier: HashMap<Arc<str>, BTreeSet<PolicyKey>>,
    /// How many endpoints name a profile.
    profile_users: HashMap<Arc<str>, u32>,
    endpoints: HashMap<ItemId, EndpointFacts>,
    published: HashMap<ItemId, Arc<Endpoint>>,
    hosts: HashMap<ItemId, HostEndpointFacts>,
    published_hosts: HashMap<ItemId, Arc<HostEndpoint>>,
    emitted: HashMap<PolicyKey, Emitted>,
    /// Of what is emitted; shared with those who look at a state while the next one is made.
    origins: Arc<Origins>,
    dirty_policies: BTreeSet<PolicyKey>,
    dirty_profiles: BTreeSet<Arc<str>>,
    dirty_endpoints: HashSet<ItemId>,
    events: Vec<Event>,
    compiled: u64,
    recomputed: u64,
}

/// Policies in the order of evaluation.
#[derive(Default)]
struct Sequence {
    /// Each with whether it polices ingress, and egress.
    policies: Vec<(PolicyKey, bool, bool)>,
    /// The places of the policies that have a selector.
    by_selector: HashMap<SelectorId, Vec<usize>>,
    /// Each tier with the place where its policies end.
    tiers: Vec<(Arc<str>, DefaultAction, usize)>,
}

// === impl Policies ===

impl Policies {
    /// Selectors compared with endpoints since the start.
    pub(crate) fn evaluated(&self) -> u64 {
        self.index.evaluated()
    }

    /// Policies and profiles compiled since the start.
    pub(crate) fn compiled(&self) -> u64 {
        self.compiled
    }

    /// Endpoints whose tiers were put together since the start.
    pub(crate) fn recomputed(&self) -> u64 {
        self.recomputed
    }

    /// The place in its document of a rule of an emitted policy, from 0.
    pub(crate) fn rule_number(&self, key: &str, ingress: bool, rule: u32) -> u32 {
        self.origins.get(key).map_or(rule, |origins| origins.number(ingress, rule))
    }

    /// Where the rules of emitted policies come from, and what they ask of requests.
    pub(crate) fn origins(&self) -> &Arc<Origins> {
        &self.origins
    }

    /// Adds, replaces or removes a tier.
    pub(crate) fn set_tier(&mut self, name: &Arc<str>, tier: Option<TierIntent>) {
        self.tiers.set(name, tier);
        let keys = self.by_tier.get(name).into_iter().flatten();
        let selectors = keys.filter_map(|k| self.policies.get(k)).map(|e| e.selector);
        for selector in selectors.collect::<HashSet<_>>() {
            self.dirty_endpoints.extend(self.index.items_of(selector));
        }
    }

    /// Adds or replaces a policy.
    pub(crate) fn set_policy(&mut self, intent: PolicyIntent) {
        self.pending.insert(intent.key.clone(), Some(intent));
    }

    /// Removes a policy.
    pub(crate) fn remove_policy(&mut self, key: &PolicyKey) {
        self.pending.insert(key.clone(), None);
    }

    fn settle(&mut self) {
        for (key, intent) in std::mem::take(&mut self.pending) {
            match intent {
                Some(intent) => self.enter(key, intent),
                None => self.leave(&key),
            }
        }
    }

    fn enter(&mut self, key: PolicyKey, intent: PolicyIntent) {
        if self.policies.get(&key).is_some_and(|e| e.intent == intent) {
            return;
        }
        let old = self.policies.remove(&key);
        let (selector, _) = self.index.acquire(&intent.selector);
        let moved = old.as_ref().is_none_or(|old| !same_place(&old.intent, &intent));
        if moved {
            self.dirty_endpoints.extend(self.index.items_of(selector));
            self.stage(&intent, true);
        }
        if let Some(old) = old {
            self.let_go(&key, &old, moved);
        }
        self.by_selector.entry(selector).or_default().insert(key.clone());
        self.by_tier.entry(intent.tier.clone()).or_default().insert(key.clone());
        self.dirty_policies.insert(key.clone());
        let place = PolicyPlace::from(&intent);
        self.policies.insert(key, Entry { intent, place, selector });
    }

    fn leave(&mut self, key: &PolicyKey) {
        let Some(old) = self.policies.remove(key) else { return };
        self.let_go(key, &old, true);
        self.stage(&old.intent, false);
        self.dirty_policies.insert(key.clone());
    }

    /// Notes or forgets that a policy is staged over another, whose endpoints then have other
    /// prospects.
    fn stage(&mut self, intent: &PolicyIntent, on: bool) {
        let Some(staged) = &intent.staged else { return };
        match on {
            true => self.staged.insert(staged.replaces.clone()),
            false => self.staged.remove(&staged.replaces),
        };
        if let Some(replaced) = self.policies.get(&staged.replaces) {
            self.dirty_endpoints.extend(self.index.items_of(replaced.selector));
        }
    }

    fn let_go(&mut self, key: &PolicyKey, old: &Entry, moved: bool) {
        if moved {
            self.dirty_endpoints.extend(self.index.items_of(old.selector));
        }
        remove_from(&mut self.by_selector, &old.selector, key);
        remove_from(&mut self.by_tier, &old.intent.tier, key);
        self.index.release(old.selector);
    }

    /// A profile has changed; its rules are asked for when the changes are flushed.
    pub(crate) fn touch_profile(&mut self, name: &Arc<str>) {
        self.dirty_profiles.insert(name.clone());
    }

    /// Adds or replaces an endpoint that is emitted.
    pub(crate) fn set_endpoint(&mut self, id: ItemId, facts: EndpointFacts, labels: Labels) {
        if self.endpoints.get(&id) != Some(&facts) {
            self.count_profiles(&facts.profiles, true);
            if let Some(old) = self.endpoints.insert(id, facts) {
                self.count_profiles(&old.profiles, false);
            }
            self.dirty_endpoints.insert(id);
        }
        self.label(id, labels);
    }

    /// Removes an endpoint.
    pub(crate) fn remove_endpoint(&mut self, id: ItemId) {
        let Some(old) = self.endpoints.remove(&id) else { return };
        self.count_profiles(&old.profiles, false);
        self.unlabel(id);
    }

    fn label(&mut self, id: ItemId, labels: Labels) {
        let mut events = std::mem::take(&mut self.events);
        self.index.set_item(id, labels, &mut events);
        self.handle(events);
    }

    fn unlabel(&mut self, id: ItemId) {
        let mut events = std::mem::take(&mut self.events);
        self.index.remove_item(id, &mut events);
        self.handle(events);
        self.dirty_endpoints.insert(id);
    }

    fn handle(&mut self, mut events: Vec<Event>) {
        for event in events.drain(..) {
            self.dirty_endpoints.insert(event.item);
            let keys = self.by_selector.get(&event.selector).into_iter().flatten();
            // Only the first and the last match of a policy decide whether it is emitted; some are
            // for host endpoints alone.
            if self.is_host(event.item) || self.index.items_of(event.selector).nth(1).is_none() {
                self.dirty_policies.extend(keys.cloned());
            }
        }
        self.events = events;
    }

    fn count_profiles(&mut self, names: &[Arc<str>], more: bool) {
        for name in names {
            let users = self.profile_users.entry(name.clone()).or_insert(0);
            *users = if more { *users + 1 } else { users.saturating_sub(1) };
            if *users == 0 || *users == 1 && more {
                self.dirty_profiles.insert(name.clone());
            }
            if *users == 0 {
                self.profile_users.remove(name);
            }
        }
    }

    /// The changes since the last flush. The sets that new rules name are acquired in `sets`,
    /// which therefore is to be flushed afterwards and published before.
    pub(crate) fn flush(&mut self, sets: &mut Sets, profiles: &Profiles) -> PolicyChanges {
        let mut changes = PolicyChanges::default();
        self.settle();
        for key in std::mem::take(&mut self.dirty_policies) {
            let wanted = self.policies.get(&key).filter(|e| self.is_wanted(e));
            let rules = wanted.map(|e| (e.intent.ingress.clone(), e.intent.egress.clone()));
            self.emit(key, rules, sets, &mut changes);
        }
        for name in std::mem::take(&mut self.dirty_profiles) {
            let wanted = self.profile_users.contains_key(&name).then(|| {
                let profile = profiles.get(&name).unwrap_or_else(ProfileIntent::missing);
                (profile.ingress, profile.egress)
            });
            self.emit(profile_key(&name), wanted, sets, &mut changes);
        }
        self.flush_hosts(&mut changes);
        self.flush_endpoints(&mut changes);
        changes
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        if entry.intent.staged.as_ref().is_some_and(|staged| staged.removes) {
            return false;
        }
        if entry.intent.stage.is_host_path() {
            return self.selects_host(entry);
        }
        entry.intent.needed_everywhere || self.index.items_of(entry.selector).next().is_some()
    }

    /// Compiles and publishes a policy's rules, or takes them back.
    fn emit(
        &mut self,
        key: PolicyKey,
        rules: Option<(Vec<RuleIntent>, Vec<RuleIntent>)>,
        sets: &mut Sets,
        changes: &mut PolicyChanges,
    ) {
        let old = self.emitted.remove(&key);
        let mut held = Vec::new();
        let mut published = None;
        if let Some(old) = old {
            held = old.sets;
            published = Some(old.policy);
        }
        match rules {
            Some((ingress, egress)) => {
                self.compiled += 1;
                let ingress = Compiled::new(&ingress, Direction::Ingress, sets);
                let egress = Compiled::new(&egress, Direction::Egress, sets);
                let policy =
                    Policy { key: key.clone(), ingress: ingress.rules, egress: egress.rules };
                let policy = match published {
                    Some(old) if *old == policy => old,
                    _ => {
                        let policy = Arc::new(policy);
                        changes.policies.push(Update::Policy(policy.clone()));
                        policy
                    }
                };
                let origins = PolicyOrigins { ingress: ingress.origins, egress: egress.origins };
                if self.origins.get(&key).is_none_or(|old| **old != origins) {
                    Arc::make_mut(&mut self.origins).insert(key.clone(), Arc::new(origins));
                }
                let named = [ingress.sets, egress.sets].concat();
                self.emitted.insert(key, Emitted { policy, sets: named });
            }
            None if published.is_some() => {
                Arc::make_mut(&mut self.origins).remove(&key);
                changes.policies_gone.push(Update::PolicyGone(key));
            }
            None => {}
        }
        // Released last, so that a set that the new rules name as well never goes.
        held.iter().for_each(|id| sets.release(id));
    }

    fn flush_endpoints(&mut self, changes: &mut PolicyChanges) {
        // Endpoints that the same selectors match share their tiers.
        let mut tiers: HashMap<Vec<SelectorId>, Prospects> = HashMap::new();
        let mut dirty: Vec<_> = std::mem::take(&mut self.dirty_endpoints).into_iter().collect();
        dirty.sort_unstable();
        let sequence = self.sequence(&dirty, |entry| {
            !entry.intent.stage.is_host_path() && entry.intent.staged.is_none()
        });
        let prospects = match self.staged.is_empty() {
            true => Sequence::default(),
            false => self.sequence(&dirty, |entry| {
                !entry.intent.stage.is_host_path() && self.would_be(entry)
            }),
        };
        let mut gone: BTreeSet<EndpointKey> = BTreeSet::new();
        let mut fresh: BTreeMap<EndpointKey, Arc<Endpoint>> = BTreeMap::new();
        for id in dirty {
            let old = self.published.remove(&id);
            let Some(facts) = self.endpoints.get(&id) else {
                gone.extend(old.map(|o| o.key.clone()));
                continue;
            };
            self.recomputed += 1;
            let mut endpoint = facts.endpoint.clone();
            let selectors: Vec<_> = self.index.selectors_of(id).collect();
            endpoint.profiles = facts.profiles.iter().map(|name| profile_key(name)).collect();
            (endpoint.tiers, endpoint.pending) = match tiers.get(&selectors) {
                Some(tiers) => tiers.clone(),
                None => {
                    let pending = self.has_prospects(&selectors);
                    let pending = pending.then(|| prospects.tiers_of(&selectors).into());
                    let found = (sequence.tiers_of(&selectors).into(), pending);
                    tiers.insert(selectors, found.clone());
                    found
                }
            };
            let endpoint = match &old {
                Some(old) if **old == endpoint => old.clone(),
                _ => {
                    let endpoint = Arc::new(endpoint);
                    fresh.insert(endpoint.key.clone(), endpoint.clone());
                    endpoint
                }
            };
            if let Some(old) = old.filter(|o| o.key != endpoint.key) {
                gone.insert(old.key.clone());
            }
            self.published.insert(id, endpoint);
        }
        // A key that went with one item may have come back with another.
        gone.retain(|key| !fresh.contains_key(key));
        changes.endpoints.extend(fresh.into_values().map(Update::Endpoint));
        changes.endpoints_gone.extend(gone.into_iter().map(Update::EndpointGone));
    }

    /// Policies by tier, both in the order of evaluation.
    fn by_tier<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> Vec<(TierPlace, Vec<&'e Entry>)> {
        let mut by_tier: HashMap<&Arc<str>, Vec<&Entry>> = HashMap::new();
        for entry in entries {
            by_tier.entry(&entry.intent.tier).or_default().push(entry);
        }
        let tiers = by_tier.into_iter().map(|(name, mut entries)| {
            entries.sort_by(|a, b| a.place.cmp(&b.place));
            (self.tiers.place(name), entries)
        });
        let mut tiers: Vec<_> = tiers.collect();
        tiers.sort_by(|a, b| a.0.cmp(&b.0));
        tiers
    }

    /// Those of the policies that some endpoint among these has which count, in the order of
    /// evaluation.
    fn sequence(&self, endpoints: &[ItemId], counts: impl Fn(&Entry) -> bool) -> Sequence {
        let selectors: HashSet<_> =
            endpoints.iter().flat_map(|id| self.index.selectors_of(*id)).collect();
        let keys = selectors.iter().filter_map(|s| self.by_selector.get(s)).flatten();
        let entries = keys.filter_map(|k| self.policies.get(k)).filter(|entry| counts(entry));
        let mut sequence = Sequence::default();
        for (place, entries) in self.by_tier(entries) {
            for entry in entries {
                let next = sequence.policies.len();
                sequence.by_selector.entry(entry.selector).or_default().push(next);
                let intent = &entry.intent;
                let (ingress, egress) = (intent.polices_ingress, intent.polices_egress);
                sequence.policies.push((intent.key.clone(), ingress, egress));
            }
            let default_action = self.tiers.default_action(&place.name);
            sequence.tiers.push((place.name, default_action, sequence.policies.len()));
        }
        sequence
    }

    /// Whether a policy would be in force if all staged ones were enforced.
    fn would_be(&self, entry: &Entry) -> bool {
        match &entry.intent.staged {
            Some(staged) => !staged.removes,
            None => !self.staged.contains(&entry.intent.key),
        }
    }

    /// Whether staged policies would change anything for an endpoint that these selectors match.
    fn has_prospects(&self, selectors: &[SelectorId]) -> bool {
        let keys = selectors.iter().filter_map(|s| self.by_selector.get(s)).flatten();
        let mut entries = keys.filter_map(|key| self.policies.get(key));
        !self.staged.is_empty()
            && entries.any(|entry| {
                !entry.intent.stage.is_host_path()
                    && self.would_be(entry) == entry.intent.staged.is_some()
            })
    }
}

// === impl Sequence ===

impl Sequence {
    /// The tiers of an endpoint that these selectors match.
    fn tiers_of(&self, selectors: &[SelectorId]) -> Vec<TierPolicies> {
        let places = selectors.iter().filter_map(|s| self.by_selector.get(s)).flatten();
        let mut places: Vec<usize> = places.copied().collect();
        places.sort_unstable();
        let mut rest = &places[..];
        let mut tiers = Vec::new();
        for (name, default_action, end) in &self.tiers {
            let (own, later) = rest.split_at(rest.partition_point(|place| place < end));
            rest = later;
            let (mut ingress, mut egress) = (Vec::new(), Vec::new());
            for (key, to, from) in own.iter().filter_map(|place| self.policies.get(*place)) {
                ingress.extend(to.then(|| key.clone()));
                egress.extend(from.then(|| key.clone()));
            }
            if !ingress.is_empty() || !egress.is_empty() {
                let (name, default_action) = (name.clone(), *default_action);
                tiers.push(TierPolicies { name, default_action, ingress, egress });
            }
        }
        tiers
    }
}

/// Whether endpoints see no difference but in the rules.
fn same_place(a: &PolicyIntent, b: &PolicyIntent) -> bool {
    a.selector == b.selector
        && a.tier == b.tier
        && PolicyPlace::from(a) == PolicyPlace::from(b)
        && a.polices_ingress == b.polices_ingress
        && a.polices_egress == b.polices_egress
        && a.stage == b.stage
        && a.staged == b.staged
}

fn remove_from<K: Eq + std::hash::Hash>(
    map: &mut HashMap<K, BTreeSet<PolicyKey>>,
    key: &K,
    policy: &PolicyKey,
) {
    if let Some(keys) = map.get_mut(key) {
        keys.remove(policy);
        if keys.is_empty() {
            map.remove(key);
        }
    }
}
