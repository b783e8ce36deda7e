//! Endpoints that are alike: no policy can tell a difference between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::{Endpoint, EndpointKey, Rule, TierPolicies};

use super::atlas::{Marks, PortMark};
use super::failsafe::Failsafes;
use super::list::{Library, List, generic};

/// A pod's interface, or a host endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: EndpointKey,
    /// `None` for a host endpoint.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Everything that selectors see.
    pub(crate) labels: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Endpoints that are alike, or whoever is outside.
pub(crate) struct Class<'c> {
    /// Their places among all members; none for what is outside.
    pub(crate) members: Vec<usize>,
    /// What each of the clusters that are compared knows of one of them.
    pub(super) views: Vec<Known<'c>>,
    /// An address of one of them, of IPv4 and of IPv6.
    pub(super) addresses: [Option<IpAddr>; 2],
}

/// What a cluster knows of an endpoint.
pub(super) struct Known<'c> {
    pub(super) endpoint: Option<&'c Endpoint>,
    pub(super) ends: [Option<End>; 2],
    pub(super) egress: List,
    pub(super) ingress: List,
    /// Only a host has them.
    pub(super) failsafes: Option<Failsafes>,
}

/// An endpoint of a cluster, and its failsafe ports.
type Seen<'c> = Option<(&'c Endpoint, Option<Failsafes>)>;

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
    failsafes: Option<Failsafes>,
}

/// All pods and host endpoints of a cluster with their own addresses, by key.
pub(crate) fn members(compiler: &Compiler) -> Vec<Member> {
    let endpoints = compiler.state().endpoints.values();
    let known = endpoints.filter(|endpoint| !endpoint.addresses.is_empty());
    let members = known.map(|endpoint| {
        let mut parts = endpoint.key.split('/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        Member {
            // Host endpoints have keys without a namespace.
            namespace: Some(part()).filter(|namespace| !namespace.is_empty()),
            name: part(),
            key: endpoint.key.clone(),
            labels: compiler.labels_of(&endpoint.key).into_iter().collect(),
            addresses: endpoint.addresses.clone(),
        }
    });
    members.collect()
}

/// Sorts members into classes, the last of which is what is outside. They have to be there in
/// every cluster.
pub(super) fn classes<'c>(
    members: &[Member],
    clusters: &[&'c Compiler],
    libraries: &mut [Library<'c>],
) -> Vec<Class<'c>> {
    let mut by_difference: HashMap<Vec<Difference>, usize> = HashMap::new();
    let mut classes: Vec<Class<'c>> = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let addresses = [true, false]
            .map(|v4| member.addresses.iter().copied().find(|address| address.is_ipv4() == v4));
        let endpoints: Vec<Seen<'c>> = (clusters.iter())
            .map(|cluster| {
                let endpoint = cluster.state().endpoints.get(&member.key)?;
                Some((&**endpoint, Failsafes::of(cluster, &member.key)))
            })
            .collect();
        let different = (endpoints.iter().zip(&*libraries))
            .map(|(endpoint, library)| Difference::new(endpoint, addresses, library));
        let at = *by_difference.entry(different.collect()).or_insert_with(|| {
            classes.push(Class::new(&endpoints, addresses, libraries));
            classes.len() - 1
        });
        if let Some(class) = classes.get_mut(at) {
            class.members.push(place);
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
    fn new(seen: &Seen<'_>, addresses: [Option<IpAddr>; 2], library: &Library<'_>) -> Self {
        let endpoint = seen.as_ref().map(|(endpoint, _)| *endpoint);
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
            failsafes: seen.as_ref().and_then(|(_, failsafes)| failsafes.clone()),
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
    /// An address of one of them, of IPv4 or of IPv6.
    pub(super) fn address(&self, v4: bool) -> Option<IpAddr> {
        *self.addresses.get(usize::from(!v4))?
    }

    fn new(
        endpoints: &[Seen<'c>],
        addresses: [Option<IpAddr>; 2],
        libraries: &mut [Library<'c>],
    ) -> Self {
        let views = endpoints.iter().zip(libraries).map(|(seen, library)| {
            let endpoint = seen.as_ref().map(|(endpoint, _)| *endpoint);
            Known {
                endpoint,
                ends: addresses.map(|address| address.map(|address| End::new(address, library))),
                egress: endpoint.map(|endpoint| library.list(endpoint, false)).unwrap_or_default(),
                ingress: endpoint.map(|endpoint| library.list(endpoint, true)).unwrap_or_default(),
                failsafes: seen.as_ref().and_then(|(_, failsafes)| failsafes.clone()),
            }
        });
        Self { members: Vec::new(), views: views.collect(), addresses }
    }
}
