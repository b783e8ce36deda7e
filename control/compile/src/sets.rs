//! Address sets: one for each distinct selector, named port, service, list of domain names and choice
//! of nodes that an active rule names.
//!
//! Sets are counted by the rules that name them; a member is counted by the items that bring it,
//! since two items may share an address. What changed since the last flush is kept as a delta.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{AddressSet, DomainPattern, Member, SetId, Update};
use sha1::{Digest, Sha1};

use crate::label::{Event, Expression, ItemId, LabelIndex, Labels, SelectorId, Unmet, unmet};
use crate::name::ObjectName;
use crate::profiles::LabelMap;

/// What a set holds.
#[derive(Clone, Debug)]
pub(crate) enum SetSource {
    /// The addresses of what the selector matches.
    Addresses(Expression),
    /// The ports of that name and protocol of what the selector matches.
    NamedPort { selector: Expression, protocol: u8, name: Arc<str> },
    /// Addresses and ports of a service's endpoints.
    ServicePorts(ObjectName),
    /// Addresses of a service's endpoints.
    ServiceAddresses(ObjectName),
    /// What the dataplane learns of these names.
    Domains(BTreeSet<DomainPattern>),
    /// The addresses of the nodes that the selector matches.
    Nodes(Expression),
}

/// A named port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NamedPort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// What an item brings into the sets whose selectors match it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contribution {
    pub(crate) nets: Vec<IpNet>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) domains: Vec<DomainPattern>,
}

/// An address behind a service, alone or with a protocol and a port.
pub(crate) type ServiceMember = (IpAddr, Option<(u8, u16)>);

/// What a set holds, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMeaning<'s> {
    /// The addresses of the endpoints and network sets that a selector matches.
    Selected {
        /// In Calico's language, over endpoint labels.
        selector: &'s str,
    },
    /// The ports of one name of the endpoints that a selector matches.
    NamedPort {
        /// Name of the ports.
        name: &'s str,
        /// IP protocol number.
        protocol: u8,
        /// In Calico's language, over endpoint labels.
        selector: &'s str,
    },
    /// The endpoints of a service.
    Service {
        /// Its namespace.
        namespace: &'s str,
        /// Its name.
        name: &'s str,
        /// Whether the port counts as well as the address.
        ports: bool,
    },
    /// The addresses that names have.
    Domains(&'s BTreeSet<DomainPattern>),
    /// The addresses of nodes.
    Nodes {
        /// In Calico's language, over the labels of nodes.
        selector: &'s str,
    },
}

/// A node: few policies ask for nodes, and there are few, so that no index is kept of them.
#[derive(Debug)]
struct NodeItem {
    labels: LabelMap,
    addresses: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Set {
    source: SetSource,
    selector: Option<SelectorId>,
    users: u32,
    members: HashMap<Member, u32>,
    domains: BTreeMap<DomainPattern, u32>,
    /// Members that came (`true`) or went since the last flush.
    delta: BTreeMap<Member, bool>,
    /// The reader has a set of this name.
    known: bool,
    /// The next update carries the whole set.
    whole: bool,
}

/// All sets and the items that fill them.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    index: LabelIndex,
    items: HashMap<ItemId, Contribution>,
    services: HashMap<ObjectName, BTreeSet<ServiceMember>>,
    nodes: HashMap<Arc<str>, NodeItem>,
    sets: HashMap<SetId, Set>,
    by_selector: HashMap<SelectorId, Vec<SetId>>,
    by_service: HashMap<ObjectName, Vec<SetId>>,
    of_nodes: BTreeSet<SetId>,
    dirty: BTreeSet<SetId>,
    gone: BTreeSet<SetId>,
    events: Vec<Event>,
}

// === impl SetSource ===

impl SetSource {
    /// A name that follows from the meaning alone, so that it is the same in every process.
    pub(crate) fn id(&self) -> SetId {
        let (kind, text) = match self {
            Self::Addresses(selector) => ("s", selector.text().to_string()),
            Self::NamedPort { selector, protocol, name } => {
                ("n", format!("{protocol},{name};{}", selector.text()))
            }
            Self::ServicePorts(name) => ("svc", name.to_string()),
            Self::ServiceAddresses(name) => ("svcnoport", name.to_string()),
            Self::Domains(patterns) => {
                let patterns: Vec<_> = patterns.iter().map(DomainPattern::as_str).collect();
                ("d", patterns.join(","))
            }
            Self::Nodes(selector) => ("nodes", selector.text().to_string()),
        };
        let digest = Sha1::digest(text.as_bytes());
        let mut id = format!("{kind}:");
        for byte in digest.iter().take(12) {
            id.push_str(&format!("{byte:02x}"));
        }
        id.into()
    }

    fn selector(&self) -> Option<&Expression> {
        match self {
            Self::Addresses(selector) | Self::NamedPort { selector, .. } => Some(selector),
            Self::ServicePorts(_)
            | Self::ServiceAddresses(_)
            | Self::Domains(_)
            | Self::Nodes(_) => None,
        }
    }

    fn service(&self) -> Option<&ObjectName> {
        match self {
            Self::ServicePorts(name) | Self::ServiceAddresses(name) => Some(name),
            Self::Addresses(_) | Self::NamedPort { .. } | Self::Domains(_) | Self::Nodes(_) => None,
        }
    }

    /// The addresses that a node brings.
    fn of_node<'n>(&self, node: &'n NodeItem) -> impl Iterator<Item = Member> + use<'n> {
        let meant = matches!(self, Self::Nodes(selector) if selector.tree().matches(&node.labels));
        node.addresses.iter().filter(move |_| meant).map(|addr| Member::Net((*addr).into()))
    }

    fn meaning(&self) -> SetMeaning<'_> {
        match self {
            Self::Addresses(selector) => SetMeaning::Selected { selector: selector.text() },
            Self::NamedPort { selector, protocol, name } => {
                SetMeaning::NamedPort { name, protocol: *protocol, selector: selector.text() }
            }
            Self::ServicePorts(service) => {
                let (namespace, name) = (&service.namespace, &service.name);
                SetMeaning::Service { namespace, name, ports: true }
            }
            Self::ServiceAddresses(service) => {
                let (namespace, name) = (&service.namespace, &service.name);
                SetMeaning::Service { namespace, name, ports: false }
            }
            Self::Domains(patterns) => SetMeaning::Domains(patterns),
            Self::Nodes(selector) => SetMeaning::Nodes { selector: selector.text() },
        }
    }

    /// Appends the members that an item brings.
    fn bring(&self, item: &Contribution, members: &mut Vec<Member>) {
        match self {
            Self::Addresses(_) => members.extend(item.nets.iter().copied().map(Member::Net)),
            Self::NamedPort { protocol, name, .. } => {
                let ports =
                    item.ports.iter().filter(|p| p.protocol == *protocol && p.name == *name);
                members.extend(ports.flat_map(|p| {
                    let addresses =
                        item.nets.iter().filter(|n| n.prefix_len() == n.max_prefix_len());
                    addresses.map(|n| Member::AddrPort {
                        addr: n.addr(),
                        protocol: p.protocol,
                        port: p.port,
                    })
                }));
            }
            Self::ServicePorts(_)
            | Self::ServiceAddresses(_)
            | Self::Domains(_)
            | Self::Nodes(_) => {}
        }
    }

    /// The domain names that an item brings.
    fn names<'i>(&self, item: &'i Contribution) -> &'i [DomainPattern] {
        if matches!(self, Self::Addresses(_)) { &item.domains } else { &[] }
    }

    /// The member that an endpoint of a service brings.
    fn of_service(&self, (addr, port): ServiceMember) -> Option<Member> {
        match (self, port) {
            (Self::ServicePorts(_), Some((protocol, port))) => {
                Some(Member::AddrPort { addr, protocol, port })
            }
            (Self::ServiceAddresses(_), None) => Some(Member::Net(addr.into())),
            _ => None,
        }
    }
}

// === impl Set ===

impl Set {
    fn join(&mut self, member: Member) {
        let count = self.members.entry(member).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.note(member, true);
        }
    }

    fn leave(&mut self, member: Member) {
        let Some(count) = self.members.get_mut(&member) else { return };
        *count -= 1;
        if *count == 0 {
            self.members.remove(&member);
            self.note(member, false);
        }
    }

    /// Notes that a member came or went, which undoes the reverse. A set that is to be told as a
    /// whole needs no notes.
    fn note(&mut self, member: Member, came: bool) {
        if !self.whole && self.delta.remove(&member).is_none() {
            self.delta.insert(member, came);
        }
    }

    /// Adds or takes back a domain name. Names change seldom: the whole set is told.
    fn name(&mut self, domain: &DomainPattern, join: bool) {
        let count = self.domains.entry(domain.clone()).or_insert(0);
        *count = if join { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.domains.remove(domain);
        }
        (self.whole, self.delta) = (true, BTreeMap::new());
    }
}

// === impl Sets ===

impl Sets {
    /// Selectors compared with items since the start.
    pub(crate) fn evaluated(&self) -> u64 {
        self.index.evaluated()
    }

    /// What an item brings.
    pub(crate) fn contribution(&self, id: ItemId) -> Option<&Contribution> {
        self.items.get(&id)
    }

    /// What a set holds.
    pub(crate) fn meaning(&self, id: &SetId) -> Option<SetMeaning<'_>> {
        self.sets.get(id).map(|set| set.source.meaning())
    }

    /// The condition of a set's selector that an item does not fulfil.
    pub(crate) fn unmet(&self, id: &SetId, item: ItemId) -> Option<Unmet> {
        let selector = self.sets.get(id)?.source.selector()?;
        unmet(selector.tree(), self.index.labels(item)?)
    }

    /// Adds a user of a set and tells its name.
    pub(crate) fn acquire(&mut self, source: SetSource) -> SetId {
        let id = source.id();
        if let Some(set) = self.sets.get_mut(&id) {
            set.users += 1;
            return id;
        }
        let (mut members, mut domains) = (Vec::new(), Vec::new());
        let mut selector = None;
        if let Some(expression) = source.selector() {
            let (selector_id, _) = self.index.acquire(expression);
            self.by_selector.entry(selector_id).or_default().push(id.clone());
            selector = Some(selector_id);
            let items = self.index.items_of(selector_id).filter_map(|i| self.items.get(&i));
            items.for_each(|item| {
                source.bring(item, &mut members);
                domains.extend_from_slice(source.names(item));
            });
        }
        if let SetSource::Domains(patterns) = &source {
            domains.extend(patterns.iter().cloned());
        }
        if let SetSource::Nodes(_) = &source {
            self.of_nodes.insert(id.clone());
            members.extend(self.nodes.values().flat_map(|node| source.of_node(node)));
        }
        if let Some(service) = source.service() {
            self.by_service.entry(service.clone()).or_default().push(id.clone());
            let endpoints = self.services.get(service).into_iter().flatten();
            members.extend(endpoints.filter_map(|e| source.of_service(*e)));
        }
        let mut set = Set {
            source,
            selector,
            users: 1,
            members: HashMap::with_capacity(members.len()),
            domains: BTreeMap::new(),
            delta: BTreeMap::new(),
            known: self.gone.remove(&id),
            whole: true,
        };
        members.into_iter().for_each(|m| set.join(m));
        domains.iter().for_each(|domain| set.name(domain, true));
        self.sets.insert(id.clone(), set);
        self.dirty.insert(id.clone());
        id
    }

    /// Removes a user of a set; with its last user the set goes.
    pub(crate) fn release(&mut self, id: &SetId) {
        let Some(set) = self.sets.get_mut(id) else { return };
        set.users -= 1;
        if set.users > 0 {
            return;
        }
        let Some(set) = self.sets.remove(id) else { return };
        if let Some(selector) = set.selector {
            self.index.release(selector);
            forget(&mut self.by_selector, &selector, id);
        }
        if let Some(service) = set.source.service() {
            forget(&mut self.by_service, service, id);
        }
        self.of_nodes.remove(id);
        self.dirty.remove(id);
        if set.known {
            self.gone.insert(id.clone());
        }
    }

    /// Adds an item or gives it other labels or contributions.
    pub(crate) fn set_item(&mut self, id: ItemId, labels: Labels, item: Contribution) {
        if let Some(old) = self.items.get(&id).filter(|old| **old != item) {
            let old = old.clone();
            let selectors: Vec<_> = self.index.selectors_of(id).collect();
            for selector in selectors {
                self.contribute(selector, &old, false);
                self.contribute(selector, &item, true);
            }
        }
        self.items.insert(id, item);
        let mut events = std::mem::take(&mut self.events);
        self.index.set_item(id, labels, &mut events);
        self.handle(events);
    }

    /// Removes an item.
    pub(crate) fn remove_item(&mut self, id: ItemId) {
        let mut events = std::mem::take(&mut self.events);
        self.index.remove_item(id, &mut events);
        self.handle(events);
        self.items.remove(&id);
    }

    /// Replaces the endpoints of a service.
    pub(crate) fn set_service(&mut self, name: &ObjectName, members: BTreeSet<ServiceMember>) {
        let old = self.services.get(name).cloned().unwrap_or_default();
        if old == members {
            return;
        }
        for id in self.by_service.get(name).cloned().unwrap_or_default() {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            let source = set.source.clone();
            members
                .difference(&old)
                .filter_map(|m| source.of_service(*m))
                .for_each(|m| set.join(m));
            old.difference(&members)
                .filter_map(|m| source.of_service(*m))
                .for_each(|m| set.leave(m));
            self.dirty.insert(id);
        }
        if members.is_empty() {
            self.services.remove(name);
        } else {
            self.services.insert(name.clone(), members);
        }
    }

    /// Adds, replaces or removes a node with its labels and addresses.
    pub(crate) fn set_node(
        &mut self,
        name: &Arc<str>,
        node: Option<(&LabelMap, &BTreeSet<IpAddr>)>,
    ) {
        let new = node.map(|(labels, addresses)| NodeItem {
            labels: labels.clone(),
            addresses: addresses.clone(),
        });
        let old = self.nodes.remove(name);
        for id in &self.of_nodes {
            let Some(set) = self.sets.get_mut(id) else { continue };
            let source = set.source.clone();
            new.iter().flat_map(|node| source.of_node(node)).for_each(|m| set.join(m));
            old.iter().flat_map(|node| source.of_node(node)).for_each(|m| set.leave(m));
            self.dirty.insert(id.clone());
        }
        self.nodes.extend(new.map(|node| (name.clone(), node)));
    }

    /// The changes since the last flush: new and changed sets, and those that nobody names.
    pub(crate) fn flush(&mut self) -> (Vec<Update>, Vec<Update>) {
        let mut changed = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            let delta = std::mem::take(&mut set.delta);
            if set.whole {
                (set.whole, set.known) = (false, true);
                let members: AddressSet = set.members.keys().copied().into();
                let domains = set.domains.keys().cloned().collect();
                changed.push(Update::Set(id, Arc::new(AddressSet { domains, ..members })));
            } else if !delta.is_empty() {
                let part = |come| {
                    delta.iter().filter(|(_, c)| **c == come).map(|(m, _)| *m).collect::<Vec<_>>()
                };
                changed.push(Update::SetMembers { id, add: part(true), remove: part(false) });
            }
        }
        let gone = std::mem::take(&mut self.gone);
        (changed, gone.into_iter().map(Update::SetGone).collect())
    }

    fn handle(&mut self, mut events: Vec<Event>) {
        for event in events.drain(..) {
            let Some(item) = self.items.get(&event.item).cloned() else { continue };
            self.contribute(event.selector, &item, event.matches);
        }
        self.events = events;
    }

    fn contribute(&mut self, selector: SelectorId, item: &Contribution, join: bool) {
        let mut members = Vec::new();
        for id in self.by_selector.get(&selector).into_iter().flatten() {
            let Some(set) = self.sets.get_mut(id) else { continue };
            members.clear();
            set.source.bring(item, &mut members);
            for member in members.drain(..) {
                if join { set.join(member) } else { set.leave(member) }
            }
            for domain in set.source.clone().names(item) {
                set.name(domain, join);
            }
            self.dirty.insert(id.clone());
        }
    }
}

fn forget<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Vec<SetId>>, key: &K, id: &SetId) {
    if let Some(ids) = map.get_mut(key) {
        ids.retain(|i| i != id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}
