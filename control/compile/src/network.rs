//! The node, its peers, the pools, and the routes between the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use margay_model::node::TunnelAddress;
use margay_model::{Encap, LocalNode, Mac, Pool, RemoteNode, Route, RouteTarget, Settings, Update};

use crate::profiles::LabelMap;

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) v4: Option<(Ipv4Addr, u8)>,
    pub(crate) v6: Option<(Ipv6Addr, u8)>,
    /// All addresses that the node is known by, tunnels' included.
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) labels: LabelMap,
    pub(crate) tunnel_addresses: Vec<TunnelAddress>,
    pub(crate) vtep_mac: Mac,
    /// Its networks for pods as Kubernetes handed them out: what `host-local` gives addresses of.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Whether it is going: load balancers are to send it nothing new.
    pub(crate) leaving: bool,
}

/// An address pool with its encapsulation; at most one of the two modes is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolFacts {
    pub(crate) cidr: IpNet,
    pub(crate) nat_outgoing: bool,
    pub(crate) encap: Encap,
    pub(crate) always: bool,
}

/// A block of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockFacts {
    pub(crate) cidr: IpNet,
    /// The node that it belongs to.
    pub(crate) node: Option<Arc<str>>,
    /// Addresses that are on another node.
    pub(crate) borrowed: Vec<(IpAddr, Arc<str>)>,
}

/// The node for which routes are made, as its agent was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name of its Node object.
    pub name: Arc<str>,
    /// Its IPv4 address and the length of its subnet; the Node object's where there is none.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 address and the length of its subnet; the Node object's where there is none.
    pub v6: Option<(Ipv6Addr, u8)>,
    /// MTU of pods whose endpoint does not name one.
    pub mtu: u16,
    /// Which of its addresses answer on node ports.
    pub node_ports: NodePorts,
    /// How connections are treated.
    pub connections: Connections,
}

/// Which addresses of a node answer on node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePorts {
    /// All of them, as in kube-proxy's iptables mode.
    #[default]
    All,
    /// The one of each family that its Node object names, as in kube-proxy's nftables mode.
    Primary,
    /// Those in one of these networks.
    Of(Vec<IpNet>),
}

/// How a node treats connections, where it is told to depart from the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Connections that are there go on, whatever policies say meanwhile.
    pub outlive_policies: bool,
    /// A TCP connection must be seen from its SYN on.
    pub tcp_strict: bool,
    /// SYNs are told a maximum segment size that fits their way.
    pub clamp_mss: bool,
    /// Connections of pods to cluster addresses of services are masqueraded.
    pub masquerade_all: bool,
    /// Masqueraded connections keep their source ports where they can.
    pub keep_source_ports: bool,
    /// ICMP errors a second that each port may cause, at most; `None` for the default.
    pub icmp_errors_per_second: Option<u32>,
}

/// What a route stems from. Of several for one destination the first counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Origin {
    Block(IpNet),
    Tunnel(Arc<str>),
    PodCidrs(Arc<str>),
}

/// The network between the nodes.
#[derive(Debug, Default)]
pub(crate) struct Network {
    config: Option<NodeConfig>,
    settings: Settings,
    nodes: BTreeMap<Arc<str>, NodeFacts>,
    pools: HashMap<Arc<str>, PoolFacts>,
    blocks: BTreeMap<IpNet, BlockFacts>,
    wanted: BTreeMap<IpNet, BTreeMap<Origin, RouteTarget>>,
    of_origin: HashMap<Origin, Vec<IpNet>>,
    dirty: BTreeSet<Origin>,
    local: Arc<LocalNode>,
    remotes: BTreeMap<Arc<str>, Arc<RemoteNode>>,
    published_pools: BTreeMap<IpNet, Pool>,
    routes: BTreeMap<IpNet, RouteTarget>,
    changed: bool,
}

/// Changes since the last flush.
#[derive(Debug, Default)]
pub(crate) struct NetworkChanges {
    /// The node, peers and pools.
    pub(crate) places: Vec<Update>,
    pub(crate) routes: Vec<Update>,
    pub(crate) routes_gone: Vec<Update>,
    /// Pools and peers.
    pub(crate) places_gone: Vec<Update>,
}

// === impl Network ===

impl Network {
    /// Without a configuration, the network has neither routes nor a node of its own.
    pub(crate) fn new(config: Option<NodeConfig>) -> Self {
        Self { config, changed: true, ..Self::default() }
    }

    /// A node by name.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.get(name)
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &NodeFacts)> {
        self.nodes.iter()
    }

    /// The settings in force on the node.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        let config = self.config.as_ref();
        let connections = config.map(|config| config.connections).unwrap_or_default();
        let settings = Settings {
            cut_flows_on_policy_change: !connections.outlive_policies,
            tcp_strict: connections.tcp_strict,
            clamp_mss: connections.clamp_mss,
            masquerade_all: connections.masquerade_all,
            keep_source_ports: connections.keep_source_ports,
            icmp_errors_per_second: (connections.icmp_errors_per_second)
                .unwrap_or(settings.icmp_errors_per_second),
            ..settings
        };
        self.changed |= self.settings != settings;
        self.settings = settings;
    }

    /// Adds, replaces or removes a node.
    pub(crate) fn set_node(&mut self, name: &Arc<str>, node: Option<NodeFacts>) {
        let old = match node.clone() {
            Some(node) => self.nodes.insert(name.clone(), node),
            None => self.nodes.remove(name),
        };
        if old == node {
            return;
        }
        self.changed = true;
        self.dirty.insert(Origin::Tunnel(name.clone()));
        self.dirty.insert(Origin::PodCidrs(name.clone()));
        let is_own = self.config.as_ref().is_some_and(|c| c.name == *name);
        if is_own {
            self.touch_all();
            return;
        }
        let concerns = |b: &&BlockFacts| {
            b.node.as_ref() == Some(name) || b.borrowed.iter().any(|(_, n)| n == name)
        };
        let blocks = self.blocks.values().filter(concerns);
        self.dirty.extend(blocks.map(|b| Origin::Block(b.cidr)));
    }

    /// Adds, replaces or removes a pool.
    pub(crate) fn set_pool(&mut self, name: &Arc<str>, pool: Option<PoolFacts>) {
        let old = match pool {
            Some(pool) => self.pools.insert(name.clone(), pool),
            None => self.pools.remove(name),
        };
        if old != pool {
            self.changed = true;
            self.touch_all();
        }
    }

    /// Adds, replaces or removes a block.
    pub(crate) fn set_block(&mut self, cidr: IpNet, block: Option<BlockFacts>) {
        let old = match block.clone() {
            Some(block) => self.blocks.insert(cidr, block),
            None => self.blocks.remove(&cidr),
        };
        if old != block {
            self.dirty.insert(Origin::Block(cidr));
        }
    }

    fn touch_all(&mut self) {
        self.dirty.extend(self.blocks.keys().map(|cidr| Origin::Block(*cidr)));
        self.dirty.extend(self.nodes.keys().map(|name| Origin::Tunnel(name.clone())));
        self.dirty.extend(self.nodes.keys().map(|name| Origin::PodCidrs(name.clone())));
    }

    /// The changes since the last flush.
    pub(crate) fn flush(&mut self) -> NetworkChanges {
        let mut changes = NetworkChanges::default();
        if std::mem::take(&mut self.changed) {
            self.flush_places(&mut changes);
        }
        self.flush_routes(&mut changes);
        changes
    }

    fn flush_places(&mut self, changes: &mut NetworkChanges) {
        let local = Arc::new(self.local_node());
        if self.local != local {
            self.local = local;
            changes.places.push(Update::Node(self.local.clone()));
        }
        let own = self.config.as_ref().map(|c| c.name.clone());
        let remotes: BTreeMap<_, _> = match &own {
            None => BTreeMap::new(),
            Some(own) => {
                let others = self.nodes.iter().filter(|(name, _)| *name != own);
                others.map(|(name, node)| (name.clone(), Arc::new(remote(name, node)))).collect()
            }
        };
        let pools: BTreeMap<_, _> = self.pools.values().map(|p| (p.cidr, p.into())).collect();
        let new = remotes.iter().filter(|(n, r)| self.remotes.get(*n) != Some(r));
        changes.places.extend(new.map(|(_, r)| Update::Remote(r.clone())));
        let new = pools.iter().filter(|(c, p)| self.published_pools.get(*c) != Some(p));
        changes.places.extend(new.map(|(_, p): (_, &Pool)| Update::Pool(*p)));
        let gone = self.published_pools.keys().filter(|c| !pools.contains_key(*c));
        changes.places_gone.extend(gone.map(|c| Update::PoolGone(*c)));
        let gone = self.remotes.keys().filter(|n| !remotes.contains_key(*n));
        changes.places_gone.extend(gone.map(|n| Update::RemoteGone(n.clone())));
        self.remotes = remotes;
        self.published_pools = pools;
    }

    fn local_node(&self) -> LocalNode {
        let Some(config) = &self.config else {
            return LocalNode { settings: self.settings.clone(), ..LocalNode::default() };
        };
        let node = self.nodes.get(&config.name).cloned().unwrap_or_default();
        let (v4, v6) = (config.v4.or(node.v4), config.v6.or(node.v6));
        let node_port_addresses = match &config.node_ports {
            NodePorts::All => Vec::new(),
            NodePorts::Of(networks) => networks.clone(),
            NodePorts::Primary => {
                let v4 = IpAddr::V4(v4.map_or(Ipv4Addr::UNSPECIFIED, |(addr, _)| addr));
                let v6 = IpAddr::V6(v6.map_or(Ipv6Addr::UNSPECIFIED, |(addr, _)| addr));
                vec![v4.into(), v6.into()]
            }
        };
        LocalNode {
            name: config.name.clone(),
            v4,
            v6,
            tunnel_addresses: node.tunnel_addresses,
            vtep_mac: node.vtep_mac,
            settings: Settings { node_port_addresses, ..self.settings.clone() },
        }
    }

    fn flush_routes(&mut self, changes: &mut NetworkChanges) {
        let mut touched = BTreeSet::new();
        for origin in std::mem::take(&mut self.dirty) {
            for dst in self.of_origin.remove(&origin).into_iter().flatten() {
                touched.insert(dst);
                if let Some(targets) = self.wanted.get_mut(&dst) {
                    targets.remove(&origin);
                    if targets.is_empty() {
                        self.wanted.remove(&dst);
                    }
                }
            }
            for (dst, target) in self.routes_of(&origin) {
                touched.insert(dst);
                self.wanted.entry(dst).or_default().insert(origin.clone(), target);
                self.of_origin.entry(origin.clone()).or_default().push(dst);
            }
        }
        for dst in touched {
            let wanted = self.wanted.get(&dst).and_then(|t| t.values().next()).cloned();
            if self.routes.get(&dst) == wanted.as_ref() {
                continue;
            }
            match wanted {
                Some(target) => {
                    self.routes.insert(dst, target.clone());
                    changes.routes.push(Update::Route(Route { dst, target }));
                }
                None => {
                    self.routes.remove(&dst);
                    changes.routes_gone.push(Update::RouteGone(dst));
                }
            }
        }
    }

    fn routes_of(&self, origin: &Origin) -> Vec<(IpNet, RouteTarget)> {
        let Some(config) = &self.config else { return Vec::new() };
        match origin {
            Origin::Block(cidr) => {
                self.blocks.get(cidr).map(|b| self.routes_of_block(b, config)).unwrap_or_default()
            }
            Origin::PodCidrs(name) => {
                let networks = self.nodes.get(name).into_iter().flat_map(|n| &n.pod_cidrs);
                let target = |net| match *name == config.name {
                    true => Some(RouteTarget::LocalBlock),
                    false => self.to_node(name, net),
                };
                networks.filter_map(|net| Some((*net, target(net)?))).collect()
            }
            Origin::Tunnel(name) if *name == config.name => Vec::new(),
            Origin::Tunnel(name) => {
                let addresses = self.nodes.get(name).into_iter().flat_map(|n| &n.tunnel_addresses);
                let routes = addresses.filter_map(|t| {
                    let dst = IpNet::from(t.address);
                    Some((dst, self.to_node(name, &dst)?))
                });
                routes.collect()
            }
        }
    }

    fn routes_of_block(
        &self,
        block: &BlockFacts,
        config: &NodeConfig,
    ) -> Vec<(IpNet, RouteTarget)> {
        let own = |name: &Arc<str>| *name == config.name;
        let mut routes = Vec::new();
        match &block.node {
            Some(node) if own(node) => routes.push((block.cidr, RouteTarget::LocalBlock)),
            Some(node) => routes.extend(self.to_node(node, &block.cidr).map(|t| (block.cidr, t))),
            None => {}
        }
        // What this node borrowed is its endpoints' own route.
        for (address, node) in block.borrowed.iter().filter(|(_, node)| !own(node)) {
            let dst = IpNet::from(*address);
            routes.extend(self.to_node(node, &dst).map(|t| (dst, t)));
        }
        routes
    }

    /// The way to a node, for what is in the pool of `dst`.
    fn to_node(&self, name: &Arc<str>, dst: &IpNet) -> Option<RouteTarget> {
        let node = self.nodes.get(name)?;
        let LocalNode { v4, v6, .. } = self.local_node();
        let encap = self.encap(dst, || is_in_subnet(v4, v6, node, dst));
        Some(RouteTarget::Node { node: name.clone(), encap })
    }

    /// How packets to `dst`, an address of the node `to`, travel from the node `from`.
    pub(crate) fn encap_between(&self, from: &str, to: &str, dst: IpAddr) -> Encap {
        let (Some(from), Some(to)) = (self.nodes.get(from), self.nodes.get(to)) else {
            return Encap::None;
        };
        let dst = IpNet::from(dst);
        self.encap(&dst, || is_in_subnet(from.v4, from.v6, to, &dst))
    }

    /// How packets travel to what is in the pool of `dst`.
    fn encap(&self, dst: &IpNet, is_near: impl FnOnce() -> bool) -> Encap {
        let pool = self.pools.values().filter(|p| p.cidr.contains(dst));
        match pool.max_by_key(|p| p.cidr.prefix_len()) {
            Some(pool) if pool.always || !is_near() => pool.encap,
            _ => Encap::None,
        }
    }
}

/// Whether a node's underlay address of the family of `dst` is in the subnet of another one.
fn is_in_subnet(
    v4: Option<(Ipv4Addr, u8)>,
    v6: Option<(Ipv6Addr, u8)>,
    node: &NodeFacts,
    dst: &IpNet,
) -> bool {
    match dst {
        IpNet::V4(_) => {
            let subnet = v4.and_then(|(a, len)| Ipv4Net::new(a, len).ok());
            subnet.zip(node.v4).is_some_and(|(subnet, (a, _))| subnet.contains(&a))
        }
        IpNet::V6(_) => {
            let subnet = v6.and_then(|(a, len)| Ipv6Net::new(a, len).ok());
            subnet.zip(node.v6).is_some_and(|(subnet, (a, _))| subnet.contains(&a))
        }
    }
}

fn remote(name: &Arc<str>, node: &NodeFacts) -> RemoteNode {
    RemoteNode {
        name: name.clone(),
        v4: node.v4.map(|(a, _)| a),
        v6: node.v6.map(|(a, _)| a),
        vtep_mac: node.vtep_mac,
    }
}

impl From<&PoolFacts> for Pool {
    fn from(pool: &PoolFacts) -> Self {
        Self {
            cidr: pool.cidr,
            nat_outgoing: pool.nat_outgoing,
            encap: pool.encap,
            encap_always: pool.always,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn node_ports_may_be_the_primary_addresses_alone() {
        let own =
            |node_ports| NodeConfig { name: "n1".into(), node_ports, ..NodeConfig::default() };
        let answers_on = |node_ports| {
            let mut network = Network::new(Some(own(node_ports)));
            let primary = Some((Ipv4Addr::new(192, 0, 2, 7), 24));
            let facts = NodeFacts { v4: primary, ..NodeFacts::default() };
            network.set_node(&"n1".into(), Some(facts));
            network.local_node().settings.node_port_addresses
        };
        assert_eq!(answers_on(NodePorts::All), []);
        // No packet is to the unspecified address: of IPv6 none answers.
        assert_eq!(answers_on(NodePorts::Primary), [net("192.0.2.7/32"), net("::/128")]);
        assert_eq!(answers_on(NodePorts::Of(vec![net("10.0.0.0/8")])), [net("10.0.0.0/8")]);
    }

    #[test]
    fn networks_that_kubernetes_handed_to_nodes_are_routes_and_blocks_count_first() {
        let name = |text: &str| Arc::<str>::from(text);
        let own = NodeConfig { name: name("n1"), ..NodeConfig::default() };
        let mut network = Network::new(Some(own));
        for (node, cidr) in [("n1", "10.3.1.0/24"), ("n2", "10.3.2.0/24"), ("n3", "10.3.3.0/24")] {
            let facts = NodeFacts { pod_cidrs: vec![net(cidr)], ..NodeFacts::default() };
            network.set_node(&name(node), Some(facts));
        }
        // A block that another node has claimed of the very network.
        let cidr = net("10.3.3.0/24");
        let block = BlockFacts { cidr, node: Some(name("n2")), borrowed: Vec::new() };
        network.set_block(cidr, Some(block));
        network.flush();
        let to = |node: &str| RouteTarget::Node { node: name(node), encap: Encap::None };
        let expected = [
            (net("10.3.1.0/24"), RouteTarget::LocalBlock),
            (net("10.3.2.0/24"), to("n2")),
            (net("10.3.3.0/24"), to("n2")),
        ];
        assert_eq!(network.routes, expected.clone().into());
        network.set_block(cidr, None);
        network.set_node(&name("n2"), None);
        network.flush();
        assert_eq!(network.routes, [expected[0].clone(), (cidr, to("n3"))].into());
    }
}
