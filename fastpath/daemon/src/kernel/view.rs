//! What the kernel says, as one plain value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use margay_model::node::Mac;

/// Links, addresses, routes and neighbours at one moment. Cheap to copy; equal parts are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelView {
    /// Links by index.
    pub links: Arc<BTreeMap<u32, Link>>,
    /// Addresses of the node with their links' indexes.
    pub addresses: Arc<BTreeSet<(u32, IpNet)>>,
    /// Routes that take part in the lookup of an ordinary packet, each family's in the order of
    /// [`KernelView::route`]; those of the local table and Margay's own are left out.
    pub routes: Arc<Vec<Route>>,
    /// Neighbours by link and address.
    pub neighbours: Arc<BTreeMap<(u32, IpAddr), NeighbourState>>,
    /// How often a route or rule of Margay's own was removed, by itself or by others.
    pub own_removed: u64,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: Arc<str>,
    /// Ethernet address; all zero for a link without.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Receive queues.
    pub rx_queues: u32,
    /// Transmit queues.
    pub tx_queues: u32,
    /// Index of a veth's other end where that is in the same namespace, or of the link below.
    pub peer: Option<u32>,
    /// Whether it is a veth.
    pub veth: bool,
    /// Whether it has an XDP program.
    pub xdp: bool,
}

/// Where the lookup of a destination ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Position of its table in the order of lookup.
    pub rank: u32,
    /// Destination.
    pub dst: IpNet,
    /// The least wins.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Ways that are alive; empty unless `kind` is [`RouteKind::Unicast`].
    pub next_hops: Vec<NextHop>,
    /// Source address for packets of the node.
    pub source: Option<IpAddr>,
    /// Path MTU that the route states.
    pub mtu: Option<u32>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Leads on.
    Unicast,
    /// Drops in silence.
    Blackhole,
    /// Drops and tells: host unreachable.
    Unreachable,
    /// Drops and tells: forbidden.
    Prohibit,
    /// Ends the lookup in its table; the next is asked.
    Throw,
}

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// Link to leave by.
    pub index: u32,
    /// Whom to send to; `None` for the destination itself.
    pub gateway: Option<IpAddr>,
    /// Share among several, at least 1.
    pub weight: u16,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Its Ethernet address.
    Known(Mac),
    /// Its Ethernet address, set by an administrator or following from its kind: never asked for.
    Fixed(Mac),
    /// It is being asked.
    Asking,
    /// It did not answer.
    Failed,
}

// === impl KernelView ===

impl KernelView {
    /// The link of a name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| &*link.name == name)
    }

    /// The route that the kernel would take: tables in their order; in a table the longest prefix,
    /// then the least metric. A scan, for what is rare; the dataplane compiles the routes.
    pub fn route(&self, dst: IpAddr) -> Option<&Route> {
        let mut ended = None;
        self.routes.iter().find(|route| {
            let matches = ended != Some(route.rank) && route.dst.contains(&dst);
            if matches && route.kind == RouteKind::Throw {
                ended = Some(route.rank);
            }
            matches && route.kind != RouteKind::Throw
        })
    }

    /// The Ethernet address of a neighbour, where it is known.
    pub fn mac(&self, index: u32, addr: IpAddr) -> Option<Mac> {
        match self.neighbours.get(&(index, addr))? {
            NeighbourState::Known(mac) | NeighbourState::Fixed(mac) => Some(*mac),
            NeighbourState::Asking | NeighbourState::Failed => None,
        }
    }

    /// Whether the node has an address.
    pub fn has_address(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|(_, net)| net.addr() == addr)
    }
}

// === impl Route ===

impl Route {
    /// The order in which routes are tried: table, prefix from long to short, metric.
    pub(super) fn order(&self) -> (u32, std::cmp::Reverse<u8>, IpNet, u32) {
        (self.rank, std::cmp::Reverse(self.dst.prefix_len()), self.dst, self.metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(rank: u32, dst: &str, metric: u32, kind: RouteKind) -> Route {
        let dst = dst.parse().unwrap();
        Route { rank, dst, metric, kind, next_hops: Vec::new(), source: None, mtu: None }
    }

    fn lookup(routes: &[Route], dst: &str) -> Option<(u32, IpNet, u32)> {
        let mut routes = routes.to_vec();
        routes.sort_by_key(Route::order);
        let view = KernelView { routes: Arc::new(routes), ..KernelView::default() };
        view.route(dst.parse().unwrap()).map(|r| (r.rank, r.dst, r.metric))
    }

    #[test]
    fn the_longest_prefix_then_the_least_metric_of_the_first_table_wins() {
        use RouteKind::Unicast;
        let routes = [
            route(1, "0.0.0.0/0", 0, Unicast),
            route(1, "10.0.0.0/8", 20, Unicast),
            route(1, "10.0.0.0/8", 10, Unicast),
            route(0, "10.1.0.0/16", 0, Unicast),
            route(1, "10.1.1.0/24", 0, Unicast),
        ];
        assert_eq!(lookup(&routes, "10.1.1.1"), Some((0, "10.1.0.0/16".parse().unwrap(), 0)));
        assert_eq!(lookup(&routes, "10.2.0.1"), Some((1, "10.0.0.0/8".parse().unwrap(), 10)));
        assert_eq!(lookup(&routes, "192.0.2.1"), Some((1, "0.0.0.0/0".parse().unwrap(), 0)));
        assert_eq!(lookup(&routes, "2001:db8::1"), None);
    }

    #[test]
    fn throw_hands_the_lookup_to_the_next_table() {
        let routes = [
            route(0, "10.0.0.0/8", 0, RouteKind::Unicast),
            route(0, "10.1.0.0/16", 0, RouteKind::Throw),
            route(1, "0.0.0.0/0", 0, RouteKind::Blackhole),
        ];
        assert_eq!(lookup(&routes, "10.1.0.1"), Some((1, "0.0.0.0/0".parse().unwrap(), 0)));
        assert_eq!(lookup(&routes, "10.2.0.1"), Some((0, "10.0.0.0/8".parse().unwrap(), 0)));
    }
}
