//! Which endpoints of a service are usable, as kube-proxy decides it: readiness, the terminating
//! fallback and topology hints.

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::Backend;

/// An endpoint of one port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceEndpoint {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) conditions: Conditions,
    pub(crate) hints: Hints,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conditions {
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
}

/// Where an endpoint should be used from; empty lists give no hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hints {
    pub(crate) nodes: Vec<Arc<str>>,
    pub(crate) zones: Vec<Arc<str>>,
}

/// From where a service is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) node: Arc<str>,
    pub(crate) zone: Option<Arc<str>>,
}

/// The usable endpoints of a service, each list ordered by address and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// Of the whole cluster.
    pub cluster: Vec<Backend>,
    /// On the viewer's node.
    pub local: Vec<Backend>,
    /// In neither list, and serving all the same: for connections that are there already.
    pub kept: Vec<Backend>,
}

// === impl ServiceEndpoint ===

impl ServiceEndpoint {
    fn drains(&self) -> bool {
        self.conditions.serving && self.conditions.terminating
    }

    fn serves(&self) -> bool {
        self.conditions.ready || self.conditions.serving
    }

    /// Whether new connections of its node's clients may go to it at all.
    pub(crate) fn is_ready_on(&self, node: &str) -> bool {
        self.conditions.ready && self.node.as_deref() == Some(node)
    }
}

// === impl Usable ===

impl Usable {
    /// Chooses for a viewer; without one hints are ignored and nothing is local.
    pub(crate) fn choose(endpoints: &[ServiceEndpoint], viewer: Option<&Viewer>) -> Self {
        let topology = viewer.map_or(Topology::Everywhere, |v| Topology::of(endpoints, v));
        let ready = |e: &&ServiceEndpoint| e.conditions.ready;
        let mut cluster = backends(endpoints.iter().filter(ready).filter(|e| topology.admits(e)));
        if cluster.is_empty() {
            // A best effort to keep connections: topology does not count here.
            cluster = backends(endpoints.iter().filter(|e| e.drains()));
        }
        let here = |e: &&ServiceEndpoint| viewer.is_some_and(|v| e.node.as_ref() == Some(&v.node));
        let mut local = backends(endpoints.iter().filter(here).filter(ready));
        if local.is_empty() {
            local = backends(endpoints.iter().filter(here).filter(|e| e.drains()));
        }
        let mut kept = backends(endpoints.iter().filter(|e| e.serves()));
        kept.retain(|b| cluster.binary_search(b).is_err() && local.binary_search(b).is_err());
        Self { cluster, local, kept }
    }
}

fn backends<'a>(endpoints: impl Iterator<Item = &'a ServiceEndpoint>) -> Vec<Backend> {
    let mut backends: Vec<_> = endpoints.map(|e| Backend { addr: e.addr, port: e.port }).collect();
    backends.sort_unstable();
    backends.dedup();
    backends
}

/// Which hints count. They do only if every ready endpoint has one and some endpoint is meant for
/// the viewer; the node's are asked before the zone's.
enum Topology<'a> {
    Everywhere,
    Node(&'a Arc<str>),
    Zone(&'a Arc<str>),
}

impl<'a> Topology<'a> {
    fn of(endpoints: &[ServiceEndpoint], viewer: &'a Viewer) -> Self {
        let counts = |hints: fn(&Hints) -> &Vec<Arc<str>>, place: &Arc<str>| {
            let mut ready =
                endpoints.iter().filter(|e| e.conditions.ready).map(|e| hints(&e.hints));
            ready.clone().all(|h| !h.is_empty()) && ready.any(|h| h.contains(place))
        };
        if counts(|h| &h.nodes, &viewer.node) {
            return Self::Node(&viewer.node);
        }
        match &viewer.zone {
            Some(zone) if counts(|h| &h.zones, zone) => Self::Zone(zone),
            _ => Self::Everywhere,
        }
    }

    fn admits(&self, endpoint: &ServiceEndpoint) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Node(node) => endpoint.hints.nodes.contains(node),
            Self::Zone(zone) => endpoint.hints.zones.contains(zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Conditions = Conditions { ready: true, serving: true, terminating: false };
    const DRAINING: Conditions = Conditions { ready: false, serving: true, terminating: true };
    const DOWN: Conditions = Conditions { ready: false, serving: false, terminating: false };

    fn endpoint(last: u8, node: &str, conditions: Conditions) -> ServiceEndpoint {
        ServiceEndpoint {
            addr: [10, 0, 0, last].into(),
            port: 80,
            node: Some(node.into()),
            conditions,
            hints: Hints::default(),
        }
    }

    fn hinted(last: u8, node: &str, nodes: &[&str], zones: &[&str]) -> ServiceEndpoint {
        let list = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect();
        let hints = Hints { nodes: list(nodes), zones: list(zones) };
        ServiceEndpoint { hints, ..endpoint(last, node, READY) }
    }

    fn on(node: &str, endpoints: &[ServiceEndpoint]) -> (Vec<u8>, Vec<u8>) {
        let viewer = Viewer { node: node.into(), zone: Some(format!("zone-{node}").into()) };
        let usable = Usable::choose(endpoints, Some(&viewer));
        let last = |b: &Backend| match b.addr {
            IpAddr::V4(a) => a.octets()[3],
            IpAddr::V6(_) => 0,
        };
        (usable.cluster.iter().map(last).collect(), usable.local.iter().map(last).collect())
    }

    #[test]
    fn only_ready_endpoints_serve_while_there_are_any() {
        let all = [endpoint(1, "a", READY), endpoint(2, "a", DRAINING), endpoint(3, "b", DOWN)];
        assert_eq!(on("a", &all), (vec![1], vec![1]));
        assert_eq!(on("b", &all), (vec![1], vec![]));
    }

    #[test]
    fn endpoints_that_drain_serve_when_none_is_ready() {
        let all = [endpoint(2, "a", DRAINING), endpoint(3, "b", DOWN)];
        assert_eq!(on("b", &all), (vec![2], vec![]));
    }

    #[test]
    fn the_fallback_of_local_endpoints_is_independent_of_the_clusters() {
        let all = [endpoint(1, "a", READY), endpoint(2, "b", DRAINING)];
        assert_eq!(on("b", &all), (vec![1], vec![2]));
    }

    #[test]
    fn node_hints_count_only_if_every_ready_endpoint_has_one() {
        let mut all = vec![hinted(1, "a", &["a"], &[]), hinted(2, "b", &["b"], &[])];
        assert_eq!(on("a", &all).0, [1]);
        assert_eq!(on("c", &all).0, [1, 2], "none is meant for c");
        all.push(endpoint(3, "a", READY));
        assert_eq!(on("a", &all).0, [1, 2, 3]);
    }

    #[test]
    fn zone_hints_count_where_no_endpoint_is_meant_for_the_node() {
        let all = [hinted(1, "a", &["a"], &["zone-a"]), hinted(2, "b", &["b"], &["zone-c"])];
        assert_eq!(on("c", &all).0, [2]);
    }

    #[test]
    fn what_serves_but_is_not_chosen_keeps_its_connections() {
        let kept = |node: &str, endpoints: &[ServiceEndpoint]| {
            let viewer = Viewer { node: node.into(), zone: None };
            Usable::choose(endpoints, Some(&viewer)).kept
        };
        let backend = |last: u8| Backend { addr: [10, 0, 0, last].into(), port: 80 };
        let all = [endpoint(1, "a", READY), endpoint(2, "b", DRAINING), endpoint(3, "b", DOWN)];
        assert_eq!(kept("a", &all), [backend(2)]);
        assert_eq!(kept("b", &all), [], "on its own node it is used");
        let hinted = [hinted(1, "a", &["a"], &[]), hinted(2, "b", &["b"], &[])];
        assert_eq!(kept("a", &hinted), [backend(2)]);
    }

    #[test]
    fn draining_endpoints_need_no_hint() {
        let all = [ServiceEndpoint { conditions: DRAINING, ..hinted(1, "a", &["a"], &["zone-a"]) }];
        assert_eq!(on("b", &all).0, [1]);
    }
}
