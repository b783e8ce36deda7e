//! The compiler: takes objects, gives updates.

mod host;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{EndpointKey, Settings, State, Update};
use margay_resources::selector::{NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SelectorError};
use margay_resources::{Kind, Resource, conf};

use crate::configuration::Configuration;
use crate::input::endpoint::{HostFacts, SetFacts};
use crate::input::{node, service};
use crate::intent::{
    self, PolicyIntent, TierIntent, calico, cluster, kubernetes, policy_key, staged,
};
use crate::label::ItemId;
use crate::name::ObjectName;
use crate::network::{Network, NodeConfig, NodeFacts};
use crate::policy::Policies;
use crate::profiles::{LabelMap, Profiles, of_account, of_namespace, own_labels};
use crate::request::Requests;
use crate::service::{HealthChecks, HostPorts, Services, Usable};
use crate::sets::{Contribution, Sets};
use crate::work::Work;
use crate::workloads::Workloads;

pub use view::{Label, PortView};

/// Whose view is compiled.
#[derive(Clone, Debug)]
pub enum Scope {
    /// One node's: its own endpoints, routes to the others, its local backends.
    Node(NodeConfig),
    /// Everybody's: all endpoints of the cluster, pods' that are known by their status alone and
    /// host endpoints among them. No routes.
    Cluster,
}

/// One change of the intent.
#[derive(Clone, Debug)]
pub enum ResourceChange {
    /// An object is there, new or different.
    Upsert(Box<Resource>),
    /// An object is gone.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its namespace, empty for what lives in none.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// An object that cannot be compiled. Its last good version, if any, stays in force.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A selector is none.
    #[error("{kind} {name} has a selector that cannot be read")]
    Selector {
        /// Kind of the object.
        kind: Kind,
        /// `NAMESPACE/NAME`.
        name: String,
        /// What is wrong.
        #[source]
        source: SelectorError,
    },
    /// It is not known whom a policy is for.
    #[error("{kind} {name} does not say whom it is for in terms that are known; it is left out")]
    Subject {
        /// Kind of the object.
        kind: Kind,
        /// `NAMESPACE/NAME`.
        name: String,
    },
}

/// From objects to the state of a dataplane, incrementally. Neither clock nor input nor output:
/// equal objects give equal states, whatever the order in which they came.
#[derive(Debug)]
pub struct Compiler {
    own_node: Option<Arc<str>>,
    mtu: u16,
    configuration: Configuration,
    /// Shared with those who look at a state while the next one is made.
    profiles: Arc<Profiles>,
    workloads: Workloads,
    hosts: HashMap<Arc<str>, HostFacts>,
    network_sets: HashMap<ObjectName, SetFacts>,
    nodes: HashMap<Arc<str>, [Option<NodeFacts>; 2]>,
    blocks: HashMap<Arc<str>, IpNet>,
    sets: Sets,
    policies: Policies,
    services: Services,
    host_ports: HostPorts,
    network: Network,
    items: Items,
    endpoint_nodes: BTreeMap<EndpointKey, Arc<str>>,
    dirty_hosts: BTreeSet<Arc<str>>,
    /// Nodes whose host endpoints may have other addresses than before.
    dirty_host_nodes: BTreeSet<Arc<str>>,
    dirty_network_sets: BTreeSet<ObjectName>,
    state: State,
}

/// What has a number in the indexes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ItemKey {
    Interface(EndpointKey),
    Pod(ObjectName),
    Host(Arc<str>),
    NetworkSet(ObjectName),
}

/// The numbers, and the interfaces of each pod.
#[derive(Debug, Default)]
struct Items {
    ids: HashMap<ItemKey, ItemId>,
    interfaces: HashMap<ObjectName, BTreeSet<EndpointKey>>,
    next: u32,
}

/// The place of a node of Calico among the views of a node.
const CALICO: usize = 0;
/// The place of a node of Kubernetes.
const KUBERNETES: usize = 1;

// === impl Items ===

impl Items {
    fn id(&mut self, key: ItemKey) -> ItemId {
        *self.ids.entry(key).or_insert_with(|| {
            self.next += 1;
            ItemId(self.next)
        })
    }

    fn remove(&mut self, key: &ItemKey) -> Option<ItemId> {
        self.ids.remove(key)
    }
}

// === impl Compiler ===

impl Compiler {
    /// A compiler that knows nothing yet.
    pub fn new(scope: Scope) -> Self {
        let config = match scope {
            Scope::Node(config) => Some(config),
            Scope::Cluster => None,
        };
        let own_node = config.as_ref().map(|c| c.name.clone());
        Self {
            mtu: config.as_ref().map_or(0, |c| c.mtu),
            configuration: Configuration::default(),
            profiles: Arc::default(),
            workloads: Workloads::default(),
            hosts: HashMap::new(),
            network_sets: HashMap::new(),
            nodes: HashMap::new(),
            blocks: HashMap::new(),
            sets: Sets::default(),
            policies: Policies::default(),
            services: Services::new(own_node.clone()),
            host_ports: HostPorts::default(),
            network: Network::new(config),
            items: Items::default(),
            endpoint_nodes: BTreeMap::new(),
            dirty_hosts: BTreeSet::new(),
            dirty_host_nodes: BTreeSet::new(),
            dirty_network_sets: BTreeSet::new(),
            state: State::default(),
            own_node,
        }
    }

    /// Everything that was flushed.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was done since the start.
    pub fn work(&self) -> Work {
        Work {
            selectors_evaluated: self.sets.evaluated()
                + self.policies.evaluated()
                + self.services.evaluated(),
            policies_compiled: self.policies.compiled(),
            endpoints_recomputed: self.policies.recomputed(),
            services_compiled: self.services.compiled(),
        }
    }

    /// The place in its document, from 0, of a rule of the compiled policy `key`: one rule of a
    /// document may become several, or none.
    pub fn rule_number(&self, key: &str, ingress: bool, rule: u32) -> u32 {
        self.policies.rule_number(key, ingress, rule)
    }

    /// What the rules of the state ask of requests, beyond what packets show.
    pub fn requests(&self) -> Requests {
        Requests::new(self.policies.origins().clone(), self.profiles.clone())
    }

    /// The usable backends of a service of the state, for clients on a node or anywhere.
    pub fn usable_backends(&self, service: &str, node: Option<&str>) -> Option<Usable> {
        self.services.usable(service, node)
    }

    /// What load balancers are told of this node, as of the last flush.
    pub fn health_checks(&self) -> &HealthChecks {
        self.services.health()
    }

    /// Whether a node is being deleted, or about to be: it is to get no new connections.
    pub fn is_leaving(&self, node: &str) -> bool {
        self.network.node(node).is_some_and(|node| node.leaving)
    }

    /// The node of an endpoint of the state.
    pub fn node_of(&self, endpoint: &str) -> Option<&Arc<str>> {
        self.endpoint_nodes.get(endpoint)
    }

    /// Every node with all addresses that it is known by.
    pub fn node_addresses(&self) -> impl Iterator<Item = (&Arc<str>, IpAddr)> {
        self.network.nodes().flat_map(|(name, n)| n.addresses.iter().map(move |a| (name, *a)))
    }

    /// The settings in force on a node.
    pub fn settings_of(&self, node: &str) -> Settings {
        self.configuration.settings(node)
    }

    /// What FelixConfiguration says of a node.
    pub fn felix_settings_of(&self, node: &str) -> conf::Settings {
        self.configuration.felix(node)
    }

    /// Takes notice of a change; it shows in the next flush.
    ///
    /// # Errors
    /// The object cannot be compiled; what was in force of it stays.
    pub fn apply(&mut self, change: ResourceChange) -> Result<(), CompileError> {
        match change {
            ResourceChange::Upsert(resource) => self.upsert(&resource),
            ResourceChange::Delete { kind, namespace, name } => {
                self.delete(kind, &ObjectName::new(namespace, name));
                Ok(())
            }
        }
    }

    fn upsert(&mut self, resource: &Resource) -> Result<(), CompileError> {
        let name = ObjectName::new(resource.namespace(), resource.name());
        let kind = resource.kind();
        let bad = |source| CompileError::Selector { kind, name: name.to_string(), source };
        let void = || CompileError::Subject { kind, name: name.to_string() };
        match resource {
            Resource::NetworkPolicy(p) | Resource::GlobalNetworkPolicy(p) => {
                self.policies.set_policy(calico::policy(kind.kind(), p).map_err(bad)?);
            }
            Resource::KubernetesNetworkPolicy(p) => {
                self.policies.set_policy(kubernetes::policy(p).ok_or_else(void)?);
            }
            Resource::ClusterNetworkPolicy(p) => {
                self.policies.set_policy(cluster::policy(p).ok_or_else(void)?);
            }
            Resource::StagedNetworkPolicy(p) => {
                let intent = staged::policy(kind, Kind::NetworkPolicy, p).map_err(bad)?;
                self.set_staged(kind, &name, intent);
            }
            Resource::StagedGlobalNetworkPolicy(p) => {
                let intent = staged::policy(kind, Kind::GlobalNetworkPolicy, p).map_err(bad)?;
                self.set_staged(kind, &name, intent);
            }
            Resource::StagedKubernetesNetworkPolicy(p) => {
                let intent = staged::of_kubernetes(p).ok_or_else(void)?;
                self.set_staged(kind, &name, intent);
            }
            Resource::Profile(p) => {
                let profile = calico::profile(p).map_err(bad)?;
                self.set_profile(&name.name, Some(profile));
            }
            Resource::Tier(t) => self.policies.set_tier(&name.name, Some(TierIntent::from(&**t))),
            Resource::Namespace(n) => self.set_namespace(&name.name, n.metadata.labels.clone()),
            Resource::ServiceAccount(a) => self.set_account(&name, a.metadata.labels.clone()),
            Resource::Pod(p) => self.workloads.set_pod(&name, Some((&**p).into())),
            Resource::WorkloadEndpoint(w) => {
                self.workloads.set_endpoint(&name, Some((&**w).into()));
            }
            Resource::HostEndpoint(h) => self.set_host(&name.name, Some((&**h).into())),
            Resource::NetworkSet(s) | Resource::GlobalNetworkSet(s) => {
                self.network_sets.insert(name.clone(), (&**s).into());
                self.dirty_network_sets.insert(name.clone());
            }
            Resource::Service(s) => self.services.set_service(&name, service::service(s)),
            Resource::EndpointSlice(s) => self.services.set_slice(&name, service::slice(s)),
            Resource::KubernetesNode(n) => {
                self.services.set_zone(&name.name, node::zone(n));
                self.set_node(&name.name, KUBERNETES, Some(node::kubernetes(n)));
            }
            Resource::Node(n) => self.set_node(&name.name, CALICO, Some(node::calico(n))),
            Resource::IpPool(p) => self.network.set_pool(&name.name, node::pool(p)),
            Resource::IpamBlock(b) => self.set_block(&name.name, node::block(b)),
            Resource::FelixConfiguration(f) => {
                self.configuration.set_felix(&name.name, Some((**f).clone()));
            }
            Resource::ServiceCidr(c) => {
                let cidrs = c.spec.as_ref().and_then(|s| s.cidrs.clone());
                self.configuration.set_service_ranges(&name.name, &cidrs.unwrap_or_default());
            }
            // No business of the dataplane.
            Resource::IpReservation(_)
            | Resource::IpamConfiguration(_)
            | Resource::BgpConfiguration(_)
            | Resource::BgpPeer(_)
            | Resource::BgpFilter(_)
            | Resource::CalicoNodeStatus(_)
            | Resource::KubeControllersConfiguration(_)
            | Resource::ClusterInformation(_)
            | Resource::BlockAffinity(_)
            | Resource::IpamHandle(_) => {}
        }
        Ok(())
    }

    fn delete(&mut self, kind: Kind, name: &ObjectName) {
        let remove_policy = |policies: &mut Policies, kind| {
            policies.remove_policy(&policy_key(kind, &name.namespace, &name.name));
        };
        match kind {
            Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy => {
                remove_policy(&mut self.policies, kind.kind());
            }
            Kind::KubernetesNetworkPolicy => remove_policy(&mut self.policies, kubernetes::KIND),
            Kind::ClusterNetworkPolicy => remove_policy(&mut self.policies, cluster::KIND),
            Kind::Profile => self.set_profile(&name.name, None),
            Kind::Tier => self.policies.set_tier(&name.name, None),
            Kind::Namespace => self.set_namespace(&name.name, None),
            Kind::ServiceAccount => self.set_account(name, None),
            Kind::Pod => self.workloads.set_pod(name, None),
            Kind::WorkloadEndpoint => self.workloads.set_endpoint(name, None),
            Kind::HostEndpoint => self.set_host(&name.name, None),
            Kind::NetworkSet | Kind::GlobalNetworkSet => {
                self.network_sets.remove(name);
                self.dirty_network_sets.insert(name.clone());
            }
            Kind::Service => self.services.set_service(name, None),
            Kind::EndpointSlice => self.services.set_slice(name, None),
            Kind::KubernetesNode => {
                self.services.set_zone(&name.name, None);
                self.set_node(&name.name, KUBERNETES, None);
            }
            Kind::Node => self.set_node(&name.name, CALICO, None),
            Kind::IpPool => self.network.set_pool(&name.name, None),
            Kind::IpamBlock => self.set_block(&name.name, None),
            Kind::FelixConfiguration => self.configuration.set_felix(&name.name, None),
            Kind::ServiceCidr => self.configuration.set_service_ranges(&name.name, &[]),
            _ => {}
        }
    }

    fn set_staged(&mut self, kind: Kind, name: &ObjectName, intent: Option<PolicyIntent>) {
        match intent {
            Some(intent) => self.policies.set_policy(intent),
            None => {
                let key = policy_key(kind.kind(), &name.namespace, &name.name);
                self.policies.remove_policy(&key);
            }
        }
    }

    fn set_profile(&mut self, name: &Arc<str>, profile: Option<intent::ProfileIntent>) {
        Arc::make_mut(&mut self.profiles).set_document(name, profile);
        self.policies.touch_profile(name);
        let hosts = self.hosts.iter().filter(|(_, host)| host.profiles.contains(name));
        self.dirty_hosts.extend(hosts.map(|(name, _)| name.clone()));
        // A document may take the place of a namespace's or a service account's profile.
        let namespace = name.strip_prefix("kns.").or_else(|| {
            let account = name.strip_prefix("ksa.")?;
            account.split_once('.').map(|(namespace, _)| namespace)
        });
        if let Some(namespace) = namespace {
            self.touch_members(namespace);
        }
    }

    fn set_namespace(&mut self, name: &Arc<str>, labels: Option<LabelMap>) {
        if Arc::make_mut(&mut self.profiles).set_namespace(name, labels) {
            self.touch_members(name);
            let profile = of_namespace(name);
            let hosts = self.hosts.iter().filter(|(_, host)| host.profiles.contains(&profile));
            self.dirty_hosts.extend(hosts.map(|(name, _)| name.clone()));
        }
    }

    fn set_account(&mut self, name: &ObjectName, labels: Option<LabelMap>) {
        if Arc::make_mut(&mut self.profiles).set_account(name, labels) {
            self.workloads.touch_namespace(&name.namespace);
            let profile = of_account(name);
            let hosts = self.hosts.iter().filter(|(_, host)| host.profiles.contains(&profile));
            self.dirty_hosts.extend(hosts.map(|(name, _)| name.clone()));
        }
    }

    fn touch_members(&mut self, namespace: &str) {
        self.workloads.touch_namespace(namespace);
        let sets = self.network_sets.keys().filter(|name| *name.namespace == *namespace);
        self.dirty_network_sets.extend(sets.cloned());
    }

    fn set_host(&mut self, name: &Arc<str>, host: Option<HostFacts>) {
        let node = host.as_ref().map(|host| host.node.clone());
        let old = match host {
            Some(host) => self.hosts.insert(name.clone(), host),
            None => self.hosts.remove(name),
        };
        self.dirty_hosts.insert(name.clone());
        // Which addresses the others of the node have depends on it.
        self.dirty_host_nodes.extend(node.into_iter().chain(old.map(|old| old.node)));
    }

    fn set_node(&mut self, name: &Arc<str>, view: usize, facts: Option<NodeFacts>) {
        let views = self.nodes.entry(name.clone()).or_default();
        if let Some(slot) = views.get_mut(view) {
            *slot = facts;
        }
        let [calico, kubernetes] = views.clone();
        let node = match (calico, kubernetes) {
            (Some(calico), Some(kubernetes)) => Some(calico.merged(kubernetes)),
            (one, other) => one.or(other),
        };
        if node.is_none() {
            self.nodes.remove(name);
        }
        self.configuration.set_node(name, node.as_ref().map(|node| node.labels.clone()));
        self.sets.set_node(name, node.as_ref().map(|node| (&node.labels, &node.addresses)));
        self.network.set_node(name, node);
        self.dirty_host_nodes.insert(name.clone());
    }

    fn set_block(&mut self, name: &Arc<str>, block: Option<crate::network::BlockFacts>) {
        let old = match &block {
            Some(block) => self.blocks.insert(name.clone(), block.cidr),
            None => self.blocks.remove(name),
        };
        if let Some(old) = old.filter(|old| block.as_ref().is_none_or(|b| b.cidr != *old)) {
            self.network.set_block(old, None);
        }
        if let Some(block) = block {
            self.network.set_block(block.cidr, Some(block));
        }
    }

    /// The changes since the last flush, in an order in which nothing refers to what is not there:
    /// applied to the state before, they give [`Self::state`].
    pub fn flush(&mut self) -> Vec<Update> {
        if let Some((settings, foreign_sources)) =
            self.configuration.flush(self.own_node.as_deref())
        {
            self.network.set_settings(settings);
            self.workloads.allow_foreign_sources(foreign_sources);
        }
        for pod in self.workloads.take_dirty() {
            self.flush_pod(&pod);
        }
        for name in std::mem::take(&mut self.dirty_network_sets) {
            self.flush_network_set(name);
        }
        self.flush_hosts();
        let (services, services_gone) = self.services.flush(&mut self.sets);
        let (host_ports, host_ports_gone) = self.host_ports.flush();
        let policy = self.policies.flush(&mut self.sets, &self.profiles);
        let (sets, sets_gone) = self.sets.flush();
        let network = self.network.flush();
        let updates = [
            network.places,
            sets,
            policy.policies,
            policy.endpoints,
            network.routes,
            services,
            host_ports,
            services_gone,
            host_ports_gone,
            network.routes_gone,
            policy.endpoints_gone,
            policy.policies_gone,
            sets_gone,
            network.places_gone,
        ]
        .concat();
        for update in &updates {
            self.state.apply(update.clone());
        }
        updates
    }

    fn flush_pod(&mut self, pod: &ObjectName) {
        let interfaces = self.workloads.interfaces(pod, &self.profiles, self.mtu);
        let old = self.items.interfaces.remove(pod).unwrap_or_default();
        for key in old.iter().filter(|key| !interfaces.contains_key(*key)) {
            if let Some(id) = self.items.remove(&ItemKey::Interface(key.clone())) {
                self.sets.remove_item(id);
                self.policies.remove_endpoint(id);
            }
            self.endpoint_nodes.remove(key);
        }
        let mut keys = BTreeSet::new();
        let mut mapped = Vec::new();
        for (key, interface) in interfaces {
            let id = self.items.id(ItemKey::Interface(key.clone()));
            self.sets.set_item(id, interface.labels.clone(), interface.contribution);
            let emitted = match &self.own_node {
                Some(own) => interface.attached && interface.node.as_ref() == Some(own),
                None => true,
            };
            if self.own_node.is_some() && emitted {
                mapped.push((interface.host_ports, interface.facts.endpoint.addresses.clone()));
            }
            match interface.node {
                Some(node) => self.endpoint_nodes.insert(key.clone(), node),
                None => self.endpoint_nodes.remove(&key),
            };
            if emitted {
                self.policies.set_endpoint(id, interface.facts, interface.labels);
            } else {
                self.policies.remove_endpoint(id);
            }
            keys.insert(key);
        }
        self.host_ports.set(pod, &mapped);
        if !keys.is_empty() {
            self.items.interfaces.insert(pod.clone(), keys);
        }
        let key = ItemKey::Pod(pod.clone());
        match self.workloads.backend(pod) {
            Some((labels, backend)) => {
                let id = self.items.id(key);
                self.services.set_pod(id, labels, backend);
            }
            None => {
                if let Some(id) = self.items.remove(&key) {
                    self.services.remove_pod(id);
                }
            }
        }
    }

    fn flush_network_set(&mut self, name: ObjectName) {
        let key = ItemKey::NetworkSet(name.clone());
        let Some(facts) = self.network_sets.get(&name) else {
            if let Some(id) = self.items.remove(&key) {
                self.sets.remove_item(id);
            }
            return;
        };
        let mut labels = Vec::new();
        let inherited = if name.namespace.is_empty() {
            None
        } else {
            labels.push((NAMESPACE_LABEL.into(), name.namespace.clone()));
            self.profiles.get(&of_namespace(&name.namespace))
        };
        // No network set is a pod.
        labels.extend(own_labels(&facts.labels).filter(|(key, _)| **key != *ORCHESTRATOR_LABEL));
        labels.extend(inherited.into_iter().flat_map(|p| p.labels));
        let item = Contribution {
            nets: facts.nets.clone(),
            ports: Vec::new(),
            domains: facts.domains.clone(),
        };
        let id = self.items.id(key);
        self.sets.set_item(id, labels.into_iter().collect(), item);
    }
}
