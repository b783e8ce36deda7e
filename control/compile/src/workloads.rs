//! Pods and their interfaces: who has which labels and addresses, and whom policy applies to.
//!
//! A pod's interfaces are the workload endpoints of its name; where there are none, the addresses
//! in its status stand for one. Labels come from the pod, its namespace and its service account.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{Endpoint, EndpointKey, Limits, Mac};
use margay_resources::qos;
use margay_resources::selector::{NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL};
use margay_resources::v3::QosControls;

use crate::input::endpoint::WorkloadFacts;
use crate::input::pod::PodFacts;
use crate::label::Labels;
use crate::limits::limits;
use crate::name::ObjectName;
use crate::policy::EndpointFacts;
use crate::profiles::{self, Profiles, own_labels};
use crate::service::{HostPort, PodBackend};
use crate::sets::{Contribution, NamedPort};

/// The longest name of a service account that fits into a label.
const MAX_LABEL_VALUE: usize = 63;

/// An interface of a pod as the other parts see it.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) labels: Labels,
    pub(crate) contribution: Contribution,
    pub(crate) node: Option<Arc<str>>,
    /// The CNI path made it; otherwise only the pod's status tells of it.
    pub(crate) attached: bool,
    /// Ports of its node that lead to it.
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) facts: EndpointFacts,
}

/// All pods and workload endpoints.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    pods: HashMap<ObjectName, PodFacts>,
    /// By pod, then by the name of the workload endpoint.
    endpoints: HashMap<ObjectName, BTreeMap<ObjectName, WorkloadFacts>>,
    pod_of: HashMap<ObjectName, ObjectName>,
    by_namespace: HashMap<Arc<str>, BTreeSet<ObjectName>>,
    /// Whether `allowedSourcePrefixes` count.
    foreign_sources: bool,
    dirty: BTreeSet<ObjectName>,
}

// === impl Workloads ===

impl Workloads {
    /// Adds, replaces or removes a pod.
    pub(crate) fn set_pod(&mut self, name: &ObjectName, pod: Option<PodFacts>) {
        if self.pods.get(name) == pod.as_ref() {
            return;
        }
        match pod {
            Some(pod) => self.pods.insert(name.clone(), pod),
            None => self.pods.remove(name),
        };
        self.touch(name);
    }

    /// Adds, replaces or removes a workload endpoint.
    pub(crate) fn set_endpoint(&mut self, name: &ObjectName, endpoint: Option<WorkloadFacts>) {
        if let Some(pod) = self.pod_of.remove(name)
            && let Some(endpoints) = self.endpoints.get_mut(&pod)
        {
            endpoints.remove(name);
            if endpoints.is_empty() {
                self.endpoints.remove(&pod);
            }
            self.touch(&pod);
        }
        if let Some(endpoint) = endpoint {
            let pod = endpoint.pod.clone();
            self.pod_of.insert(name.clone(), pod.clone());
            self.endpoints.entry(pod.clone()).or_default().insert(name.clone(), endpoint);
            self.touch(&pod);
        }
    }

    /// The labels of a namespace, or of one of its service accounts, have changed.
    pub(crate) fn touch_namespace(&mut self, namespace: &str) {
        self.dirty.extend(self.by_namespace.get(namespace).into_iter().flatten().cloned());
    }

    /// Whether pods may send from the foreign addresses that they ask for.
    pub(crate) fn allow_foreign_sources(&mut self, allowed: bool) {
        if std::mem::replace(&mut self.foreign_sources, allowed) != allowed {
            let asks = |facts: &WorkloadFacts| !facts.allowed_sources.is_empty();
            let asking = self.endpoints.iter().filter(|(_, each)| each.values().any(asks));
            self.dirty.extend(asking.map(|(pod, _)| pod.clone()));
        }
    }

    fn touch(&mut self, pod: &ObjectName) {
        self.dirty.insert(pod.clone());
        if self.pods.contains_key(pod) || self.endpoints.contains_key(pod) {
            let pods = self.by_namespace.entry(pod.namespace.clone()).or_default();
            pods.insert(pod.clone());
        } else if let Some(pods) = self.by_namespace.get_mut(&pod.namespace) {
            pods.remove(pod);
            if pods.is_empty() {
                self.by_namespace.remove(&pod.namespace);
            }
        }
    }

    /// The pods that changed since the last call.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    /// The interfaces of a pod, `mtu` being that of those that do not say.
    pub(crate) fn interfaces(
        &self,
        name: &ObjectName,
        profiles: &Profiles,
        mtu: u16,
    ) -> BTreeMap<EndpointKey, Interface> {
        let pod = self.pods.get(name);
        let mut names = vec![profiles::of_namespace(&name.namespace)];
        if let Some(pod) = pod {
            let account = ObjectName::new(name.namespace.clone(), pod.service_account.clone());
            names.push(profiles::of_account(&account));
        }
        let labels = labels(name, pod, &names, profiles);
        let interface = |mut facts: WorkloadFacts, ports: Vec<NamedPort>| {
            if !self.foreign_sources {
                facts.allowed_sources.clear();
            }
            let controls = match pod {
                Some(pod) => qos::read(&pod.qos, &facts.controls).0,
                None => facts.controls.clone(),
            };
            let limits = limits(&controls, mtu);
            let key: EndpointKey = format!("{name}/{}", facts.endpoint).into();
            let nets = facts.addresses.iter().copied().map(IpNet::from).collect();
            let node = Some(facts.node.clone()).filter(|n| !n.is_empty());
            let interface = Interface {
                labels: labels.clone(),
                contribution: Contribution { nets, ports, domains: Vec::new() },
                node,
                attached: self.endpoints.contains_key(name),
                host_ports: facts.host_ports.clone(),
                facts: EndpointFacts {
                    endpoint: Endpoint { limits, ..endpoint(key.clone(), facts, mtu) },
                    profiles: names.clone(),
                },
            };
            (key, interface)
        };
        if let Some(endpoints) = self.endpoints.get(name) {
            let each = endpoints.values().cloned().map(|facts| {
                let ports = pod.map_or_else(|| facts.ports.clone(), |pod| pod.ports.clone());
                interface(facts, ports)
            });
            return each.collect();
        }
        let Some(pod) = pod.filter(|pod| !pod.own_addresses().is_empty()) else {
            return BTreeMap::new();
        };
        let facts = WorkloadFacts {
            pod: name.clone(),
            endpoint: "eth0".into(),
            interface: "".into(),
            node: pod.node.clone().unwrap_or_default(),
            mac: Mac::default(),
            addresses: pod.own_addresses().to_vec(),
            allowed_sources: Vec::new(),
            ports: Vec::new(),
            host_ports: Vec::new(),
            controls: QosControls::default(),
        };
        BTreeMap::from([interface(facts, pod.ports.clone())])
    }

    /// A pod as an endpoint of services.
    pub(crate) fn backend(&self, name: &ObjectName) -> Option<(Labels, PodBackend)> {
        let pod = self.pods.get(name).filter(|pod| !pod.finished)?;
        let endpoints = self.endpoints.get(name);
        let first = endpoints.and_then(|e| e.values().next());
        let (addresses, node): (Vec<IpAddr>, _) = match first {
            Some(endpoint) => (endpoint.addresses.clone(), Some(endpoint.node.clone())),
            None => (pod.addresses.clone(), pod.node.clone()),
        };
        let backend =
            PodBackend { addresses, ports: pod.ports.clone(), node, conditions: pod.conditions() };
        let own = pod.labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
        let namespace = (NAMESPACE_LABEL.into(), name.namespace.clone());
        Some((std::iter::once(namespace).chain(own).collect(), backend))
    }
}

/// The labels of a pod's interfaces: what the network says of it, then its own, then what it
/// inherits; of equal keys the first counts. What says of which namespace and service account
/// something is, is nobody's own: who may label a pod may not choose its namespace.
fn labels(
    name: &ObjectName,
    pod: Option<&PodFacts>,
    profiles: &[Arc<str>],
    known: &Profiles,
) -> Labels {
    let mut labels: Vec<(Arc<str>, Arc<str>)> = vec![
        (NAMESPACE_LABEL.into(), name.namespace.clone()),
        (ORCHESTRATOR_LABEL.into(), "k8s".into()),
    ];
    if let Some(pod) = pod {
        if pod.service_account.len() < MAX_LABEL_VALUE {
            labels.push((SERVICE_ACCOUNT_LABEL.into(), pod.service_account.clone()));
        }
        labels.extend(own_labels(&pod.labels));
    }
    labels.extend(profiles.iter().filter_map(|p| known.get(p)).flat_map(|p| p.labels));
    labels.into_iter().collect()
}

fn endpoint(key: EndpointKey, facts: WorkloadFacts, mtu: u16) -> Endpoint {
    Endpoint {
        key,
        interface: facts.interface,
        mac: facts.mac,
        addresses: facts.addresses,
        allowed_sources: facts.allowed_sources,
        mtu,
        tiers: Arc::new([]),
        pending: None,
        profiles: Arc::new([]),
        priority: 0,
        limits: Limits::default(),
    }
}
