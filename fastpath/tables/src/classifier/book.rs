//! The control side: compiles policies and sets as they change, and lists when they are needed.
//!
//! What a change costs: a set's member, that member. A policy, its rules, and each list that names
//! it when an endpoint asks for it next. Endpoints with the same tiers and profiles share a list.

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{
    Endpoint, EndpointKey, HostEndpoint, HostKey, Policy, PolicyKey, Rule, SetId, State,
    TierPolicies, Update,
};

use super::Classifier;
use super::cluster::ClusterPolicies;
use super::facts::{Direction, Standing};
use super::list::{EndpointPolicy, RuleList, Step};
use super::matcher::CompiledRule;
use super::names::{NOBODY, Numbering, Numbers};
use super::sets::SetBook;
use crate::addr::Addr;

/// Everything known about policies, compiled.
#[derive(Debug, Default)]
pub struct PolicyBook {
    classifier: Classifier,
    sets: SetBook,
    numbering: Numbering,
    policies: HashMap<PolicyKey, Compiled>,
    /// Numbers of the tiers' default actions. There are few tiers: none is taken back.
    tiers: HashMap<Arc<str>, Numbers>,
    lists: Vec<List>,
    /// Numbers in `lists` that are free.
    vacant: Vec<ListId>,
    by_content: HashMap<Content, ListId>,
    /// The lists that name a policy, be it there or not.
    users: HashMap<PolicyKey, Vec<ListId>>,
    endpoints: HashMap<EndpointKey, Known>,
    work: Work,
}

/// How much was compiled since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Policies compiled.
    pub policies: u64,
    /// Lists of endpoints built.
    pub lists: u64,
}

/// The compiled policies of a host endpoint; see [`HostEndpoint`] for when each is asked.
#[derive(Clone, Debug, Default)]
pub struct HostLists {
    /// For each packet.
    pub untracked: EndpointPolicy,
    /// Before services are translated.
    pub pre_dnat: EndpointPolicy,
    /// For connections that pass through the node.
    pub forward: EndpointPolicy,
    /// For the node's own connections: the only list with profiles.
    pub own: EndpointPolicy,
}

type ListId = usize;

/// What makes two endpoints' lists the same.
type Content = (Arc<[TierPolicies]>, Arc<[PolicyKey]>);

#[derive(Debug)]
struct Compiled {
    ingress: Vec<Arc<CompiledRule>>,
    egress: Vec<Arc<CompiledRule>>,
    numbers: Numbers,
}

#[derive(Debug, Default)]
struct List {
    tiers: Arc<[TierPolicies]>,
    profiles: Arc<[PolicyKey]>,
    /// Number of endpoints that have it.
    endpoints: usize,
    /// `None` since a policy of it changed.
    policy: Option<EndpointPolicy>,
}

/// An endpoint's list, and the very values it came from: as long as they are the same in memory,
/// nobody needs to look into them.
#[derive(Debug)]
struct Known {
    tiers: Arc<[TierPolicies]>,
    profiles: Arc<[PolicyKey]>,
    list: ListId,
}

// === impl PolicyBook ===

impl PolicyBook {
    /// A book with the sets and policies of a state.
    pub fn from_state(state: &State) -> Self {
        let mut book = Self::default();
        for (id, set) in &state.sets {
            book.sets.replace(&mut book.classifier.sets, id, set);
        }
        for policy in state.policies.values() {
            book.set_policy(policy);
        }
        book
    }

    /// Notes a change. Those that do not concern policies are ignored, except that an endpoint
    /// that is gone gives its list back.
    pub fn note(&mut self, update: &Update) {
        let sets = &mut self.classifier.sets;
        match update {
            Update::Set(id, set) => self.sets.replace(sets, id, set),
            Update::SetMembers { id, add, remove } => self.sets.change(sets, id, add, remove),
            Update::SetGone(id) => self.sets.remove(sets, id),
            Update::Policy(policy) => self.set_policy(policy),
            Update::PolicyGone(key) => self.remove_policy(key),
            Update::EndpointGone(key) => {
                self.forget(key);
                self.forget(&pending_key(key));
            }
            Update::HostGone(key) => {
                HostLists::keys(key).iter().for_each(|key| self.forget(key));
            }
            _ => {}
        }
    }

    /// Notes what is known of an address that was learned for a domain name of a set.
    pub fn note_learned(&mut self, set: &SetId, addr: Addr, standing: Standing) {
        self.sets.learn(&mut self.classifier.sets, set, addr, standing);
    }

    /// The endpoint's policies as they are now, compiled as far as they have changed. To be asked
    /// again for every snapshot after a change.
    pub fn endpoint(&mut self, endpoint: &Endpoint) -> EndpointPolicy {
        self.lists_of(&endpoint.key, &endpoint.tiers, &endpoint.profiles)
    }

    /// The same of a host endpoint.
    pub fn host(&mut self, host: &HostEndpoint) -> HostLists {
        let none = Arc::default();
        let [untracked, pre_dnat, forward, own] = HostLists::keys(&host.key);
        HostLists {
            untracked: self.lists_of(&untracked, &host.untracked, &none),
            pre_dnat: self.lists_of(&pre_dnat, &host.pre_dnat, &none),
            forward: self.lists_of(&forward, &host.forward, &none),
            own: self.lists_of(&own, &host.tiers, &host.profiles),
        }
    }

    fn lists_of(
        &mut self,
        key: &EndpointKey,
        tiers: &Arc<[TierPolicies]>,
        profiles: &Arc<[PolicyKey]>,
    ) -> EndpointPolicy {
        let known = self.endpoints.get(key).filter(|known| {
            Arc::ptr_eq(&known.tiers, tiers) && Arc::ptr_eq(&known.profiles, profiles)
        });
        let list = match known {
            Some(known) => known.list,
            None => self.learn(key, tiers.clone(), profiles.clone()),
        };
        self.policy_of(list)
    }

    /// What its policies would be if all staged ones were enforced; `None` where none of these
    /// concerns it. To be asked as [`PolicyBook::endpoint`].
    pub fn pending(&mut self, endpoint: &Endpoint) -> Option<EndpointPolicy> {
        let key = pending_key(&endpoint.key);
        match &endpoint.pending {
            Some(tiers) => {
                Some(self.endpoint(&Endpoint { key, tiers: tiers.clone(), ..endpoint.clone() }))
            }
            None => {
                self.forget(&key);
                None
            }
        }
    }

    fn forget(&mut self, key: &EndpointKey) {
        if let Some(known) = self.endpoints.remove(key) {
            self.release(known.list);
        }
    }

    /// Tiers and profiles compiled for themselves: the book does not remember who has them. For who
    /// asks about a state that does not change, from several threads if need be.
    pub fn apart(&self, tiers: &[TierPolicies], profiles: &[PolicyKey]) -> EndpointPolicy {
        EndpointPolicy {
            ingress: Arc::new(self.build(tiers, profiles, Direction::Ingress)),
            egress: Arc::new(self.build(tiers, profiles, Direction::Egress)),
        }
    }

    /// All of these tiers in one list, for who asks about many endpoints of a state that does not
    /// change: each endpoint's tiers must be made of them, in their order.
    pub fn cluster(&self, tiers: &[TierPolicies]) -> ClusterPolicies {
        ClusterPolicies::new(self, tiers)
    }

    /// The sets and names as they are now, for a snapshot.
    pub fn classifier(&self) -> Classifier {
        self.classifier.clone()
    }

    /// How much was compiled since the start.
    pub fn work(&self) -> Work {
        self.work
    }

    fn set_policy(&mut self, policy: &Policy) {
        self.work.policies += 1;
        let old = self.policies.remove(&policy.key);
        let mut numbers = old.map(|old| old.numbers).unwrap_or_default();
        let places = policy.ingress.iter().chain(&policy.egress).map(|rule| rule.number).collect();
        let names = &mut self.classifier.names;
        self.numbering.assign(names, &mut numbers, &policy.key, &places);
        let first = policy.ingress.len() as u32;
        let ingress = self.compile(&policy.ingress, &policy.key, |rule| numbers.of(rule));
        let egress = self.compile(&policy.egress, &policy.key, |rule| numbers.of(first + rule));
        self.policies.insert(policy.key.clone(), Compiled { ingress, egress, numbers });
        self.renew_users(&policy.key);
    }

    fn remove_policy(&mut self, key: &PolicyKey) {
        if let Some(old) = self.policies.remove(key) {
            self.numbering.release(&mut self.classifier.names, old.numbers);
            self.renew_users(key);
        }
    }

    fn compile(
        &mut self,
        rules: &[Rule],
        key: &PolicyKey,
        number: impl Fn(u32) -> u32,
    ) -> Vec<Arc<CompiledRule>> {
        let (book, sets) = (&mut self.sets, &mut self.classifier.sets);
        let mut set = |id: &_| book.number(sets, id);
        let compile = |(index, rule)| {
            Arc::new(CompiledRule::new(rule, key.clone(), index, number(index), &mut set))
        };
        (0u32..).zip(rules).map(compile).collect()
    }

    fn renew_users(&mut self, key: &PolicyKey) {
        for list in self.users.get(key).into_iter().flatten() {
            if let Some(list) = self.lists.get_mut(*list) {
                list.policy = None;
            }
        }
    }

    /// Gives an endpoint its list. The new one is taken before the old one is given back, so that
    /// a list in use is not torn down and built again.
    fn learn(
        &mut self,
        key: &EndpointKey,
        tiers: Arc<[TierPolicies]>,
        profiles: Arc<[PolicyKey]>,
    ) -> ListId {
        let list = self.intern(&tiers, &profiles);
        let known = Known { tiers, profiles, list };
        if let Some(old) = self.endpoints.insert(key.clone(), known) {
            self.release(old.list);
        }
        list
    }

    fn intern(&mut self, tiers: &Arc<[TierPolicies]>, profiles: &Arc<[PolicyKey]>) -> ListId {
        let content = (tiers.clone(), profiles.clone());
        if let Some(id) = self.by_content.get(&content) {
            if let Some(list) = self.lists.get_mut(*id) {
                list.endpoints += 1;
            }
            return *id;
        }
        let (tiers, profiles) = content.clone();
        let list = List { tiers, profiles, endpoints: 1, policy: None };
        let id = self.vacant.pop().unwrap_or(self.lists.len());
        for key in list.keys() {
            let users = self.users.entry_ref(key).or_default();
            if !users.contains(&id) {
                users.push(id);
            }
        }
        match self.lists.get_mut(id) {
            Some(slot) => *slot = list,
            None => self.lists.push(list),
        }
        self.by_content.insert(content, id);
        id
    }

    fn release(&mut self, id: ListId) {
        let Some(list) = self.lists.get_mut(id) else { return };
        list.endpoints = list.endpoints.saturating_sub(1);
        if list.endpoints > 0 {
            return;
        }
        let list = std::mem::take(list);
        for key in list.keys() {
            if let Some(users) = self.users.get_mut(key) {
                users.retain(|user| *user != id);
                if users.is_empty() {
                    self.users.remove(key);
                }
            }
        }
        self.by_content.remove(&(list.tiers, list.profiles));
        self.vacant.push(id);
    }

    fn policy_of(&mut self, id: ListId) -> EndpointPolicy {
        let Some(list) = self.lists.get(id) else {
            return EndpointPolicy::default(); // Denies everything; no id leads here.
        };
        if let Some(policy) = &list.policy {
            return policy.clone();
        }
        let (tiers, profiles) = (list.tiers.clone(), list.profiles.clone());
        tiers.iter().for_each(|tier| self.number_tier(&tier.name));
        let policy = self.apart(&tiers, &profiles);
        self.work.lists += 1;
        if let Some(list) = self.lists.get_mut(id) {
            list.policy = Some(policy.clone());
        }
        policy
    }

    fn number_tier(&mut self, name: &Arc<str>) {
        if !self.tiers.contains_key(name) {
            let mut numbers = Numbers::default();
            let key = format!("Tier//{name}").into();
            self.numbering.assign(&mut self.classifier.names, &mut numbers, &key, &[0, 0].into());
            self.tiers.insert(name.clone(), numbers);
        }
    }

    fn build(
        &self,
        tiers: &[TierPolicies],
        profiles: &[PolicyKey],
        direction: Direction,
    ) -> RuleList {
        let mut rules = RuleList::default();
        for tier in tiers {
            let policies = match direction {
                Direction::Ingress => &tier.ingress,
                Direction::Egress => &tier.egress,
            };
            if !policies.is_empty() {
                let steps = policies.iter().flat_map(|key| self.steps(key, direction));
                let default = self.tiers.get(&tier.name).map_or(0, |n| n.of(direction as u32));
                let id = if default == 0 { NOBODY } else { default };
                rules.push_tier(&tier.name, tier.default_action, id, steps);
            }
        }
        for profile in profiles {
            rules.push_profile(self.steps(profile, direction));
        }
        rules.seal()
    }

    pub(super) fn steps(&self, key: &PolicyKey, direction: Direction) -> Vec<Step> {
        let rules = match (self.policies.get(key), direction) {
            (None, _) => return vec![Step::Missing(key.clone())],
            (Some(policy), Direction::Ingress) => &policy.ingress,
            (Some(policy), Direction::Egress) => &policy.egress,
        };
        rules.iter().cloned().map(Step::Rule).collect()
    }
}

/// The name under which an endpoint's prospects are remembered; no endpoint has a blank in its key.
fn pending_key(key: &EndpointKey) -> EndpointKey {
    format!("{key} pending").into()
}

// === impl HostLists ===

impl HostLists {
    /// What the lists of a host endpoint are known by: no pod's endpoint has an empty namespace.
    fn keys(host: &HostKey) -> [EndpointKey; 4] {
        ["untracked", "prednat", "forward", "own"].map(|list| format!("/{host}/{list}").into())
    }
}

// === impl List ===

impl List {
    /// Every policy and profile it names; some may come twice.
    fn keys(&self) -> impl Iterator<Item = &PolicyKey> {
        let policies = self.tiers.iter().flat_map(|tier| tier.ingress.iter().chain(&tier.egress));
        policies.chain(self.profiles.iter())
    }
}
