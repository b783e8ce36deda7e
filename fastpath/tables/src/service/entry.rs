//! One service, with its backends ready for choosing.

use std::sync::Arc;

use margay_model::{Backend, Selection, Service, TrafficPolicy};

use crate::addr::{Addr, Prefix};
use crate::flow::BackendId;
use crate::maglev::Maglev;

/// A service with its backends ready for choosing.
#[derive(Debug)]
pub struct ServiceEntry {
    /// What the control plane said.
    pub service: Arc<Service>,
    /// A hash of its name: the same in every process and on every node.
    pub hash: u64,
    cluster: Backends,
    local: Backends,
    /// Ordered.
    kept: Box<[(Addr, u16)]>,
    sources: Box<[Prefix]>,
}

/// A chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port: u16,
}

/// Backends that one scope may choose from.
#[derive(Debug, Default)]
struct Backends {
    /// Ordered.
    list: Box<[(Addr, u16)]>,
    maglev: Option<Maglev>,
    /// By name, for clients that stay with theirs; empty without session affinity.
    names: Box<[(BackendId, u32)]>,
}

// === impl ServiceEntry ===

impl ServiceEntry {
    pub(super) fn new(service: &Arc<Service>) -> Self {
        let hash = hash(&service.key);
        let named = service.affinity.map(|_| hash);
        let chosen_from = |list| Backends::new(list, service.selection, named);
        Self {
            cluster: chosen_from(&service.cluster_backends),
            local: chosen_from(&service.local_backends),
            kept: ordered(&service.kept_backends),
            sources: service.load_balancer_sources.iter().map(|net| (*net).into()).collect(),
            service: service.clone(),
            hash,
        }
    }

    /// Whether nodes are to choose alike: by a hash of [`Self::hash`] and the client alone.
    pub fn is_shared(&self) -> bool {
        self.service.selection == Selection::Maglev
    }

    /// The backend for a connection with this hash; `None` if the scope has none.
    #[inline]
    pub fn pick(&self, hash: u64, scope: TrafficPolicy) -> Option<Picked> {
        self.backends(scope).pick(hash)
    }

    /// The backend of the scope that has this name: what a client is to stay with. Only a service
    /// with session affinity knows names.
    pub fn named(&self, name: BackendId, scope: TrafficPolicy) -> Option<Picked> {
        self.backends(scope).named(name)
    }

    /// The name of a backend of this service.
    pub fn name_of(&self, backend: Picked) -> BackendId {
        BackendId::new(self.hash, backend.addr, backend.port)
    }

    /// Names of the backends that clients may stay with, and that this later state of the service
    /// does not have any more.
    pub fn names_lost(&self, later: Option<&Arc<Self>>) -> impl Iterator<Item = BackendId> {
        let names = self.cluster.names.iter().chain(&self.local.names).map(|(name, _)| *name);
        let stays = move |name: &BackendId| {
            later.is_some_and(|l| l.cluster.has_name(*name) || l.local.has_name(*name))
        };
        names.filter(move |name| !stays(name))
    }

    /// Whether the scope has a backend.
    pub fn has_backends(&self, scope: TrafficPolicy) -> bool {
        !self.backends(scope).list.is_empty()
    }

    /// Whether this is one of its backends, if only for connections that it has.
    pub fn serves(&self, addr: Addr, port: u16) -> bool {
        let lists = [&self.cluster.list, &self.local.list, &self.kept];
        lists.into_iter().any(|list| list.binary_search(&(addr, port)).is_ok())
    }

    /// Whether a client may use the load-balancer addresses.
    pub fn admits(&self, client: Addr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|net| net.contains(client))
    }

    fn backends(&self, scope: TrafficPolicy) -> &Backends {
        match scope {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }
}

/// A hash of a name that needs no seed: it tells services apart, nobody gains by a collision.
fn hash(name: &str) -> u64 {
    name.as_bytes().chunks(16).fold(name.len() as u64, |seed, chunk| {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        Addr::from_bits(u128::from_le_bytes(bytes)).hash(seed)
    })
}

fn ordered(backends: &[Backend]) -> Box<[(Addr, u16)]> {
    let mut list: Vec<_> = backends.iter().map(|b| (Addr::from(b.addr), b.port)).collect();
    list.sort_unstable();
    list.dedup();
    list.into()
}

// === impl Backends ===

impl Backends {
    /// `named` is the service's hash where backends are asked for by name.
    fn new(backends: &[Backend], selection: Selection, named: Option<u64>) -> Self {
        let list = ordered(backends);
        let maglev = (selection == Selection::Maglev && list.len() > 1)
            .then(|| Maglev::new(list.iter().map(|(addr, port)| addr.hash((*port).into()))));
        let mut names: Vec<_> = match named {
            Some(hash) => {
                let name = |(addr, port): &(Addr, u16)| BackendId::new(hash, *addr, *port);
                list.iter().map(name).zip(0..).collect()
            }
            None => Vec::new(),
        };
        names.sort_unstable();
        Self { list, maglev, names: names.into() }
    }

    fn pick(&self, hash: u64) -> Option<Picked> {
        let at = match &self.maglev {
            Some(maglev) => usize::from(maglev.lookup(hash)),
            // Multiply and shift: even for every number of backends, no division.
            None => ((u128::from(hash) * self.list.len() as u128) >> 64) as usize,
        };
        self.at(at)
    }

    fn named(&self, name: BackendId) -> Option<Picked> {
        let place = self.names.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        self.at(self.names.get(place)?.1 as usize)
    }

    fn has_name(&self, name: BackendId) -> bool {
        self.names.binary_search_by_key(&name, |(name, _)| *name).is_ok()
    }

    fn at(&self, index: usize) -> Option<Picked> {
        self.list.get(index).map(|(addr, port)| Picked { addr: *addr, port: *port })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::tests::{ip, service};
    use super::*;

    fn entry(service: Service) -> ServiceEntry {
        ServiceEntry::new(&Arc::new(service))
    }

    #[test]
    fn backends_are_chosen_evenly_and_by_scope() {
        for selection in [Selection::Even, Selection::Maglev] {
            let entry = entry(Service { selection, ..service("a", "10.96.0.1") });
            let mut counts = BTreeMap::<_, u32>::new();
            for n in 0..4000u32 {
                let hash = Addr::from_v4_bits(n).hash(1);
                let picked = entry.pick(hash, TrafficPolicy::Cluster).unwrap();
                *counts.entry(picked.addr).or_default() += 1;
                let local = entry.pick(hash, TrafficPolicy::Local);
                assert_eq!(local, Some(Picked { addr: ip("10.0.0.1").into(), port: 8080 }));
            }
            assert_eq!(counts.len(), 4);
            assert!(counts.values().all(|count| (900..1100).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn backends_and_clients_are_recognised() {
        let mut web = service("web", "10.96.0.1");
        web.load_balancer_sources.push("192.0.2.0/24".parse().unwrap());
        web.kept_backends.push(Backend { addr: ip("10.0.0.7"), port: 8080 });
        let entry = entry(web);
        assert!(entry.serves(ip("10.0.0.7").into(), 8080));
        assert!(entry.serves(ip("10.0.0.3").into(), 8080));
        assert!(
            !entry.serves(ip("10.0.0.3").into(), 80) && !entry.serves(ip("10.0.0.9").into(), 8080)
        );
        assert!(entry.admits(ip("192.0.2.7").into()) && !entry.admits(ip("10.0.0.1").into()));
    }

    #[test]
    fn a_backend_answers_to_its_name_where_clients_stay_and_in_its_scope() {
        let plain = entry(service("a", "10.96.0.1"));
        let sticky = entry(Service { affinity: Some(10), ..service("a", "10.96.0.1") });
        for backend in &sticky.service.cluster_backends {
            let picked = Picked { addr: backend.addr.into(), port: backend.port };
            let name = sticky.name_of(picked);
            assert_eq!(sticky.named(name, TrafficPolicy::Cluster), Some(picked));
            assert_eq!(plain.named(name, TrafficPolicy::Cluster), None);
            let here = sticky.named(name, TrafficPolicy::Local);
            assert_eq!(here.is_some(), backend.addr == ip("10.0.0.1"));
        }
    }

    #[test]
    fn the_names_that_are_lost_are_those_of_the_backends_that_left() {
        let before = Service { affinity: Some(10), ..service("a", "10.96.0.1") };
        let mut after = before.clone();
        let left = after.cluster_backends.pop().unwrap();
        let (before, after) = (Arc::new(entry(before)), Arc::new(entry(after)));
        let name = before.name_of(Picked { addr: left.addr.into(), port: left.port });
        assert_eq!(before.names_lost(Some(&after)).collect::<Vec<_>>(), [name]);
        assert_eq!(after.names_lost(Some(&before)).count(), 0);
        let all: BTreeSet<_> = before.names_lost(None).collect();
        assert_eq!(all.len(), 4, "with the service all are lost");
    }

    #[test]
    fn names_of_services_and_their_beginnings_have_hashes_of_their_own() {
        let names = ["", "a", "a\0", "default/web:80/TCP/IPv4", "default/web:80/TCP/IPv6"];
        let hashes: BTreeSet<_> = names.map(hash).into();
        assert_eq!(hashes.len(), names.len());
    }
}
