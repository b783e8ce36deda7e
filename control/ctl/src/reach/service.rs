//! Services as receivers: who may talk to their backends.
//!
//! A service is what its usable backends are, for a client of any node. A backend that one of two
//! compared clusters does not have changes nothing by itself as long as another one serves; a
//! service without any refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use margay_compile::Compiler;
use margay_model::Endpoint;

use super::ask::{Asked, ask, client_facts};
use super::class::{Class, Member};
use super::failsafe::Failsafes;
use super::outcome::{Outcome, Part, Said};
use super::probe::{self, Probe};
use crate::court::jury::Jury;
use crate::court::verdict::{Fate, Side};

/// So many addresses of backends are named.
const NAMED: usize = 3;

/// A service.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `NAMESPACE/NAME`.
    pub(crate) name: String,
    ports: Vec<Port>,
}

/// A port of a service.
#[derive(Clone, Debug)]
struct Port {
    protocol: u8,
    port: u16,
    /// The usable backends of each cluster, of both families.
    backends: Vec<BTreeSet<SocketAddr>>,
}

/// Who is looked for behind a backend's address, for those who are asked only once: a class, or the
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// With its addresses of IPv4, or of IPv6.
    Class(usize, bool),
    Address(IpAddr),
}

/// Who has which address, and so stands behind which service.
pub(super) struct Directory<'c> {
    class_of: HashMap<IpAddr, usize>,
    /// For each cluster.
    endpoints: Vec<HashMap<IpAddr, (&'c Endpoint, Option<Failsafes>)>>,
}

/// What a class is told at backends, by who that is, protocol and port.
type Told = HashMap<(Who, u8, u16), Said>;

/// The services that one of the clusters has, by name, if the namespace is chosen; all ports or
/// one of them.
pub(crate) fn targets(
    clusters: &[&Compiler],
    chosen: impl Fn(&str) -> bool,
    only: Option<Probe>,
) -> Vec<Target> {
    let mut ports: BTreeMap<(String, u8, u16), Vec<BTreeSet<SocketAddr>>> = BTreeMap::new();
    for (at, cluster) in clusters.iter().enumerate() {
        for (key, service) in &cluster.state().services {
            let name = key.split_once(':').map_or(&**key, |(name, _)| name);
            let namespace = name.split('/').next().unwrap_or_default();
            let asked = only.is_none_or(|probe| probe.is_to(service.protocol, service.port));
            if !chosen(namespace) || !asked {
                continue;
            }
            let port = ports.entry((name.to_owned(), service.protocol, service.port));
            let port = port.or_insert_with(|| vec![BTreeSet::new(); clusters.len()]);
            let usable = cluster.usable_backends(key, None).unwrap_or_default();
            if let Some(backends) = port.get_mut(at) {
                backends.extend(usable.cluster.iter().map(|b| SocketAddr::new(b.addr, b.port)));
            }
        }
    }
    let mut targets: Vec<Target> = Vec::new();
    for ((name, protocol, port), backends) in ports {
        let port = Port { protocol, port, backends };
        match targets.last_mut().filter(|target| target.name == name) {
            Some(target) => target.ports.push(port),
            None => targets.push(Target { name, ports: vec![port] }),
        }
    }
    targets
}

// === impl Directory ===

impl<'c> Directory<'c> {
    pub(super) fn new(
        classes: &[Class<'c>],
        members: &[Member],
        clusters: &[&'c Compiler],
    ) -> Self {
        let mut class_of = HashMap::new();
        for (at, class) in classes.iter().enumerate() {
            let members = class.members.iter().filter_map(|member| members.get(*member));
            class_of.extend(members.flat_map(|m| m.addresses.iter().map(|a| (*a, at))));
        }
        let endpoints = clusters.iter().map(|cluster| {
            let mut known = HashMap::new();
            // Host endpoints come first, and pods go before them.
            for (key, endpoint) in &cluster.state().endpoints {
                let seen = (&**endpoint, Failsafes::of(cluster, key));
                known.extend(endpoint.addresses.iter().map(|address| (*address, seen.clone())));
            }
            known
        });
        Self { class_of, endpoints: endpoints.collect() }
    }

    /// The outcome of a class and each target.
    pub(super) fn outcomes(
        &self,
        class: &Class<'c>,
        juries: &mut [Jury<'c>],
        targets: &[Target],
    ) -> impl Iterator<Item = Outcome> {
        let asked = juries.iter_mut().enumerate();
        let told: Vec<Told> = asked.map(|(at, jury)| self.ask(class, at, jury, targets)).collect();
        targets.iter().map(move |target| {
            let parts = target.ports.iter().flat_map(|port| self.parts(class, port, &told));
            Outcome { parts: parts.collect() }
        })
    }

    fn who(&self, backend: &SocketAddr) -> Who {
        let address = backend.ip();
        let class = self.class_of.get(&address);
        class.map_or(Who::Address(address), |class| Who::Class(*class, address.is_ipv4()))
    }

    /// What a cluster tells a class at all backends.
    fn ask(
        &self,
        class: &Class<'c>,
        cluster: usize,
        jury: &mut Jury<'c>,
        targets: &[Target],
    ) -> Told {
        let mut places: HashMap<(Who, u8, u16), usize> = HashMap::new();
        let mut asked: Vec<[Asked<'c>; 2]> = Vec::new();
        for port in targets.iter().flat_map(|target| &target.ports) {
            for backend in port.backends.get(cluster).into_iter().flatten() {
                let key = (self.who(backend), port.protocol, backend.port());
                if !places.contains_key(&key)
                    && let Some(questions) = self.questions(class, cluster, port.protocol, *backend)
                {
                    places.insert(key, asked.len());
                    asked.push(questions);
                }
            }
        }
        let questions: Vec<_> = asked.iter().flatten().filter_map(Asked::question).collect();
        let mut answers = jury.decide(&questions).into_iter();
        let said: Vec<_> = asked
            .iter()
            .map(|[egress, ingress]| {
                let (egress, ingress) = (egress.side(&mut answers), ingress.side(&mut answers));
                Said::new(egress, ingress)
            })
            .collect();
        places.into_iter().filter_map(|(key, at)| Some((key, said.get(at)?.clone()))).collect()
    }

    /// `None` where the two have no family in common.
    fn questions(
        &self,
        class: &Class<'c>,
        cluster: usize,
        protocol: u8,
        backend: SocketAddr,
    ) -> Option<[Asked<'c>; 2]> {
        let src = class.address(backend.is_ipv4())?;
        if class.members.len() == 1 && src == backend.ip() {
            // A pod may always talk to itself.
            return Some([Asked::Nobody; 2]);
        }
        let view = class.views.get(cluster)?;
        let to = self.endpoints.get(cluster).and_then(|known| known.get(&backend.ip()));
        let open = |failsafes: Option<&Failsafes>, ingress, far| {
            let port = (protocol, backend.port());
            failsafes.is_some_and(|failsafes| failsafes.open(ingress, far).any(|o| o == port))
        };
        let open_from = open(view.failsafes.as_ref(), false, backend.ip());
        let open_to = open(to.and_then(|(_, failsafes)| failsafes.as_ref()), true, src);
        let facts = client_facts(src, backend, protocol);
        Some(ask([view.endpoint, to.map(|(endpoint, _)| *endpoint)], [open_from, open_to], facts))
    }

    /// What becomes of a class' traffic to a port, backends that are told the same together.
    fn parts(&self, class: &Class<'c>, port: &Port, told: &[Told]) -> Vec<Part> {
        let refused = Said { verdict: Fate::Deny, egress: Side::NONE, ingress: Side::NONE };
        let what = probe::word(&Probe::of_port(port.protocol, port.port));
        let all: BTreeSet<SocketAddr> = port.backends.iter().flatten().copied().collect();
        if all.is_empty() {
            return vec![Part { what, said: vec![refused; told.len()] }];
        }
        let mut parts: Vec<(Vec<Said>, Vec<SocketAddr>)> = Vec::new();
        for backend in all.iter().filter(|backend| class.address(backend.is_ipv4()).is_some()) {
            let each: Vec<Option<Said>> = (port.backends.iter().zip(told))
                .map(|(backends, told)| match backends.contains(backend) {
                    true => told.get(&(self.who(backend), port.protocol, backend.port())).cloned(),
                    false => backends.is_empty().then(|| refused.clone()),
                })
                .collect();
            let Some(known) = each.iter().flatten().next().cloned() else { continue };
            let said: Vec<_> =
                each.into_iter().map(|said| said.unwrap_or_else(|| known.clone())).collect();
            match parts.iter_mut().find(|(other, _)| *other == said) {
                Some((_, backends)) => backends.push(*backend),
                None => parts.push((said, vec![*backend])),
            }
        }
        let alone = parts.len() == 1;
        let part = |(said, backends): (Vec<Said>, Vec<SocketAddr>)| {
            let by = if alone { String::new() } else { format!(" at {}", some(&backends)) };
            Part { what: format!("{what}{by}"), said }
        };
        parts.into_iter().map(part).collect()
    }
}

fn some(backends: &[SocketAddr]) -> String {
    let mut words: Vec<_> = backends.iter().take(NAMED).map(ToString::to_string).collect();
    if backends.len() > NAMED {
        words.push(format!("{} more", backends.len() - NAMED));
    }
    words.join(", ")
}
