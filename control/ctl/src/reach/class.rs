//! Pods that are alike: no policy can tell a difference between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::{Endpoint, EndpointKey, Rule, TierPolicies};

use super::atlas::{Marks, PortMark};
use super::list::{Library, List, generic};

/// A pod's interface.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) key: EndpointKey,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Everything that selectors see.
    pub(crate) labels: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Pods that are alike, or whoever is outside.
pub(crate) struct Class<'c> {
    /// Their places among all pods; none for what is outside.
    pub(crate) pods: Vec<usize>,
    /// What each of the clusters that are compared knows of one of them.
    pub(super) views: Vec<Known<'c>>,
    /// An address of one of them, of IPv4 and of IPv6.
    pub(super) addresses: [Option<IpAddr>; 2],
}

/// What a cluster knows of a pod.
pub(super) struct Known<'c> {
    pub(super) endpoint: Option<&'c Endpoint>,
    pub(super) ends: [Option<End>; 2],
    pub(super) egress: List,
    pub(super) ingress: List,
}

/// An address as rules see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) marks: Marks,
    pub(super) ports: Vec<PortMark>,
}

/// Whatever makes a difference.
#[derive(PartialEq, Eq, Hash)]
struct Difference {
    ends: [Option<End>; 2],
    tiers: Arc<[TierPolicies]>,
    /// Those of namespaces have names of their own, but mostly the same rules.
    profiles: Vec<(Arc<str>, Vec<Rule>, Vec<Rule>)>,
}

/// All pods of a cluster with their own addresses, by name.
pub(crate) fn pods(compiler: &Compiler) -> Vec<Pod> {
    let endpoints = compiler.state().endpoints.values();
    let pods = endpoints.filter(|endpoint| !endpoint.key.starts_with('/')).map(|endpoint| {
        let mut parts = endpoint.key.split('/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        Pod {
            namespace: part(),
            name: part(),
            key: endpoint.key.clone(),
            labels: compiler.labels_of(&endpoint.key).into_iter().collect(),
            addresses: endpoint.addresses.clone(),
        }
    });
    pods.collect()
}

/// Sorts pods into classes, the last of which is what is outside. The pods have to be there in
/// every cluster.
pub(super) fn classes<'c>(
    pods: &[Pod],
    clusters: &[&'c Compiler],
    libraries: &mut [Library<'c>],
) -> Vec<Class<'c>> {
    let mut by_difference: HashMap<Vec<Difference>, usize> = HashMap::new();
    let mut classes: Vec<Class<'c>> = Vec::new();
    for (place, pod) in pods.iter().enumerate() {
        let addresses = [true, false]
            .map(|v4| pod.addresses.iter().copied().find(|address| address.is_ipv4() == v4));
        let endpoints: Vec<Option<&Endpoint>> = (clusters.iter())
            .map(|cluster| cluster.state().endpoints.get(&pod.key).map(|e| &**e))
            .collect();
        let different = (endpoints.iter().zip(&*libraries))
            .map(|(endpoint, library)| Difference::new(*endpoint, addresses, library));
        let at = *by_difference.entry(different.collect()).or_insert_with(|| {
            classes.push(Class::new(&endpoints, addresses, libraries));
            classes.len() - 1
        });
        if let Some(class) = classes.get_mut(at) {
            class.pods.push(place);
        }
    }
    let nobody = vec![None; clusters.len()];
    let outside = outside(libraries);
    classes.push(Class::new(&nobody, outside, libraries));
    classes
}

/// Addresses of nobody, that as few rules as possible name.
fn outside(libraries: &[Library<'_>]) -> [Option<IpAddr>; 2] {
    let named = |address: &IpAddr| -> u32 {
        libraries.iter().map(|library| library.atlas().marks(*address).count()).sum()
    };
    // Spread over what is routed and what documentation uses, so that one of them is nobody's.
    let v4 = (0..223u8).map(|high| IpAddr::from(Ipv4Addr::new(high | 1, 77, 113, 217)));
    let v6 = (0..64u16)
        .map(|part| IpAddr::from(Ipv6Addr::new(0x2a00 + part, 0x77, part, 0, 0, 0, 0x113, 0x217)));
    [v4.min_by_key(named), v6.min_by_key(named)]
}

// === impl Difference ===

impl Difference {
    fn new(
        endpoint: Option<&Endpoint>,
        addresses: [Option<IpAddr>; 2],
        library: &Library<'_>,
    ) -> Self {
        let profiles = endpoint.into_iter().flat_map(|endpoint| endpoint.profiles.iter());
        let profiles = profiles.map(|key| {
            let policy = library.state().policies.get(key);
            let rules = policy.map(|policy| (policy.ingress.clone(), policy.egress.clone()));
            let (ingress, egress) = rules.unwrap_or_default();
            (generic(key), ingress, egress)
        });
        Self {
            ends: addresses.map(|address| address.map(|address| End::new(address, library))),
            tiers: endpoint.map(|endpoint| endpoint.tiers.clone()).unwrap_or_default(),
            profiles: profiles.collect(),
        }
    }
}

// === impl End ===

impl End {
    fn new(address: IpAddr, library: &Library<'_>) -> Self {
        Self { marks: library.atlas().marks(address), ports: library.atlas().ports(address) }
    }
}

// === impl Class ===

impl<'c> Class<'c> {
    fn new(
        endpoints: &[Option<&'c Endpoint>],
        addresses: [Option<IpAddr>; 2],
        libraries: &mut [Library<'c>],
    ) -> Self {
        let views = endpoints.iter().zip(libraries).map(|(endpoint, library)| Known {
            endpoint: *endpoint,
            ends: addresses.map(|address| address.map(|address| End::new(address, library))),
            egress: endpoint.map(|endpoint| library.list(endpoint, false)).unwrap_or_default(),
            ingress: endpoint.map(|endpoint| library.list(endpoint, true)).unwrap_or_default(),
        });
        Self { pods: Vec::new(), views: views.collect(), addresses }
    }
}
