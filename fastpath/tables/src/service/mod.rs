//! Services: from the address and port that a client asks for to a backend.
//!
//! The table keeps no connection: the flow table remembers which backend a connection has. It is
//! persistent like the other tables: a copy is a few reference counts, one changed service touches
//! that service.

mod entry;

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{Service, ServiceKey, State, Update};
use smallvec::SmallVec;

use crate::addr::Addr;
use crate::cow::{CowMap, CowVec};

pub use entry::{Picked, ServiceEntry};

/// All services. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    entries: CowVec<Option<Arc<ServiceEntry>>>,
    frontends: CowMap<(Addr, u8, u16), Claims>,
    /// By family, protocol and port in one word.
    node_ports: CowMap<u32, Claims>,
    /// How many frontends an address has.
    addresses: CowMap<Addr, u32>,
    numbers: Arc<Numbers>,
}

/// Which of a service's addresses a client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// A cluster address.
    Cluster,
    /// An external address.
    External,
    /// A load-balancer address.
    LoadBalancer,
    /// A port of the node.
    NodePort,
}

/// A service that answers.
#[derive(Clone, Copy, Debug)]
pub struct Frontend<'t> {
    /// Which of its addresses was used.
    pub kind: FrontendKind,
    /// The service.
    pub service: &'t Arc<ServiceEntry>,
}

/// Services that claim one address and port; the first one has it.
type Claims = SmallVec<[Claim; 1]>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// Claims are ordered by name, so that the winner depends on the state alone.
    key: ServiceKey,
    kind: FrontendKind,
    entry: u32,
}

/// Used by the control side only, and therefore not cheap to change while copies are out: a change
/// of a service that has its number already leaves it alone.
#[derive(Clone, Debug, Default)]
struct Numbers {
    by_key: HashMap<ServiceKey, u32>,
    vacant: Vec<u32>,
}

// === impl ServiceTable ===

impl ServiceTable {
    /// The services of a state.
    pub fn build(state: &State) -> Self {
        let mut table = Self::default();
        for service in state.services.values() {
            table.insert(service);
        }
        table
    }

    /// Notes a change; those that do not concern services are ignored. What a service was before
    /// comes back.
    pub fn note(&mut self, update: &Update) -> Option<Arc<ServiceEntry>> {
        match update {
            Update::Service(service) => self.insert(service),
            Update::ServiceGone(key) => self.remove(key),
            _ => None,
        }
    }

    /// The service behind an address and port.
    #[inline]
    pub fn frontend(&self, addr: Addr, protocol: u8, port: u16) -> Option<Frontend<'_>> {
        self.first(self.frontends.get(&(addr, protocol, port))?)
    }

    /// The service behind a port of the node's addresses of one family.
    #[inline]
    pub fn node_port(&self, v6: bool, protocol: u8, port: u16) -> Option<Frontend<'_>> {
        if self.node_ports.is_empty() {
            return None;
        }
        self.first(self.node_ports.get(&node_port_key(v6, protocol, port))?)
    }

    /// Whether some service has the address, on whatever port.
    #[inline]
    pub fn has_address(&self, addr: Addr) -> bool {
        self.addresses.contains(&addr)
    }

    /// Every address of a service.
    pub fn addresses(&self) -> impl Iterator<Item = Addr> {
        self.addresses.iter().map(|(addr, _)| *addr)
    }

    /// The service with this name.
    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<ServiceEntry>> {
        self.entries.get(*self.numbers.by_key.get(key)? as usize)?.as_ref()
    }

    /// Every service.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        (0..self.entries.len()).filter_map(|n| self.entries.get(n)?.as_ref())
    }

    /// Adds or replaces a service; what it was before comes back.
    pub fn insert(&mut self, service: &Arc<Service>) -> Option<Arc<ServiceEntry>> {
        let entry = Arc::new(ServiceEntry::new(service));
        let number = self.number(&service.key);
        let old = self.entries.get_mut(number as usize).and_then(|slot| slot.replace(entry));
        let same = old.as_ref().is_some_and(|old| claims(&old.service).eq(claims(service)));
        if same {
            return old; // Only backends or policies have changed.
        }
        if let Some(old) = &old {
            self.withdraw(&old.service, number);
        }
        self.claim(service, number);
        old
    }

    /// Takes a service out and hands it over.
    pub fn remove(&mut self, key: &ServiceKey) -> Option<Arc<ServiceEntry>> {
        if !self.numbers.by_key.contains_key(key) {
            return None;
        }
        let numbers = Arc::make_mut(&mut self.numbers);
        let number = numbers.by_key.remove(key)?;
        numbers.vacant.push(number);
        let old = self.entries.get_mut(number as usize).and_then(Option::take)?;
        self.withdraw(&old.service, number);
        Some(old)
    }

    fn first(&self, claims: &Claims) -> Option<Frontend<'_>> {
        let claim = claims.first()?;
        let service = self.entries.get(claim.entry as usize)?.as_ref()?;
        Some(Frontend { kind: claim.kind, service })
    }

    fn number(&mut self, key: &ServiceKey) -> u32 {
        if let Some(number) = self.numbers.by_key.get(key) {
            return *number;
        }
        let numbers = Arc::make_mut(&mut self.numbers);
        let number = numbers.vacant.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        numbers.by_key.insert(key.clone(), number);
        number
    }

    fn claim(&mut self, service: &Service, entry: u32) {
        for (place, kind) in claims(service) {
            let claim = Claim { key: service.key.clone(), kind, entry };
            if let Some(claims) = self.claims_at(place) {
                let at = claims.binary_search(&claim).unwrap_or_else(|at| at);
                claims.insert(at, claim);
            }
            if let Place::Address(addr, ..) = place
                && let Some(count) = self.addresses.entry(addr, || 0)
            {
                *count += 1;
            }
        }
    }

    fn withdraw(&mut self, service: &Service, entry: u32) {
        for (place, kind) in claims(service) {
            let Some(claims) = self.claims_at(place) else { continue };
            if let Some(at) = claims.iter().position(|c| c.entry == entry && c.kind == kind) {
                claims.remove(at);
            }
            let empty = claims.is_empty();
            match place {
                Place::Address(addr, protocol, port) => {
                    if empty {
                        self.frontends.remove(&(addr, protocol, port));
                    }
                    self.leave(addr);
                }
                Place::NodePort(key) if empty => drop(self.node_ports.remove(&key)),
                Place::NodePort(_) => {}
            }
        }
    }

    fn leave(&mut self, addr: Addr) {
        let left = self.addresses.get_mut(&addr).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            self.addresses.remove(&addr);
        }
    }

    fn claims_at(&mut self, place: Place) -> Option<&mut Claims> {
        match place {
            Place::Address(addr, protocol, port) => {
                self.frontends.entry((addr, protocol, port), Claims::new)
            }
            Place::NodePort(key) => self.node_ports.entry(key, Claims::new),
        }
    }
}

/// Where a service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Address(Addr, u8, u16),
    NodePort(u32),
}

fn claims(service: &Service) -> impl Iterator<Item = (Place, FrontendKind)> + '_ {
    let kinds = [
        (&service.cluster_ips, FrontendKind::Cluster),
        (&service.external_ips, FrontendKind::External),
        (&service.load_balancer_ips, FrontendKind::LoadBalancer),
    ];
    let (protocol, port) = (service.protocol, service.port);
    let place = move |addr: &std::net::IpAddr| Place::Address((*addr).into(), protocol, port);
    let addresses = kinds
        .into_iter()
        .flat_map(move |(addresses, kind)| addresses.iter().map(move |addr| (place(addr), kind)));
    let families = [false, true].into_iter().filter(|v6| serves_family(service, *v6));
    let node_ports = families.filter_map(move |v6| {
        let key = node_port_key(v6, protocol, service.node_port?);
        Some((Place::NodePort(key), FrontendKind::NodePort))
    });
    addresses.chain(node_ports)
}

/// A service is of one family, which its addresses show; one without any address answers for both.
fn serves_family(service: &Service, v6: bool) -> bool {
    let backends = service.cluster_backends.iter().map(|backend| backend.addr);
    let mut all = service.addresses().chain(backends);
    all.next().is_none_or(|addr| addr.is_ipv6() == v6)
}

fn node_port_key(v6: bool, protocol: u8, port: u16) -> u32 {
    u32::from(v6) << 24 | u32::from(protocol) << 16 | u32::from(port)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::IpAddr;

    use margay_model::Backend;

    use super::*;

    pub(super) fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    pub(super) fn service(key: &str, cluster_ip: &str) -> Service {
        Service {
            key: key.into(),
            protocol: 6,
            port: 80,
            cluster_ips: vec![ip(cluster_ip)],
            cluster_backends: (1..=4)
                .map(|n| Backend { addr: ip(&format!("10.0.0.{n}")), port: 8080 })
                .collect(),
            local_backends: vec![Backend { addr: ip("10.0.0.1"), port: 8080 }],
            ..Service::default()
        }
    }

    fn name<'t>(frontend: Option<Frontend<'t>>) -> Option<(&'t str, FrontendKind)> {
        frontend.map(|f| (&*f.service.service.key, f.kind))
    }

    #[test]
    fn every_kind_of_address_leads_to_the_service_and_nothing_else_does() {
        let mut table = ServiceTable::default();
        let mut web = service("web", "10.96.0.1");
        web.external_ips.push(ip("1.1.1.1"));
        web.load_balancer_ips.push(ip("2.2.2.2"));
        web.node_port = Some(30_000);
        table.insert(&Arc::new(web));
        let at = |addr: &str, protocol, port| name(table.frontend(ip(addr).into(), protocol, port));
        assert_eq!(at("10.96.0.1", 6, 80), Some(("web", FrontendKind::Cluster)));
        assert_eq!(at("1.1.1.1", 6, 80), Some(("web", FrontendKind::External)));
        assert_eq!(at("2.2.2.2", 6, 80), Some(("web", FrontendKind::LoadBalancer)));
        assert_eq!(at("10.96.0.1", 17, 80), None);
        assert_eq!(at("10.96.0.1", 6, 81), None);
        assert_eq!(name(table.node_port(false, 6, 30_000)), Some(("web", FrontendKind::NodePort)));
        assert_eq!(name(table.node_port(true, 6, 30_000)), None);
        assert_eq!(name(table.node_port(false, 17, 30_000)), None);
        assert!(table.has_address(ip("2.2.2.2").into()));
        assert_eq!(table.addresses().count(), 3);
    }

    #[test]
    fn of_two_claims_the_first_name_wins_whatever_came_first() {
        let (a, b) = (Arc::new(service("a", "10.96.0.1")), Arc::new(service("b", "10.96.0.1")));
        for order in [[&a, &b], [&b, &a]] {
            let mut table = ServiceTable::default();
            for service in order {
                table.insert(service);
            }
            let at = |table: &ServiceTable| {
                name(table.frontend(ip("10.96.0.1").into(), 6, 80)).map(|(name, _)| name.to_owned())
            };
            assert_eq!(at(&table).as_deref(), Some("a"));
            table.remove(&a.key);
            assert_eq!(at(&table).as_deref(), Some("b"));
            table.remove(&b.key);
            assert_eq!(at(&table), None);
            assert!(!table.has_address(ip("10.96.0.1").into()));
        }
    }

    #[test]
    fn a_changed_service_answers_at_its_new_address_only_and_copies_keep_the_old() {
        let mut table = ServiceTable::default();
        table.insert(&Arc::new(service("a", "10.96.0.1")));
        let copy = table.clone();
        table.insert(&Arc::new(service("a", "10.96.0.2")));
        let there =
            |table: &ServiceTable, addr: &str| table.frontend(ip(addr).into(), 6, 80).is_some();
        assert_eq!((there(&table, "10.96.0.1"), there(&table, "10.96.0.2")), (false, true));
        assert_eq!((there(&copy, "10.96.0.1"), there(&copy, "10.96.0.2")), (true, false));
        assert_eq!(table.iter().count(), 1);
    }
}
