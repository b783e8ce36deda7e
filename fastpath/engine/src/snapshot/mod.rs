//! The immutable state that workers forward by.
//!
//! A snapshot is assembled from what the control plane says ([`margay_model::State`]) and what the
//! node's kernel says ([`Underlay`]): [`assemble`](assemble::Assembler). Workers hold one snapshot
//! for a batch; the next one replaces it whole. Numbers of adjacencies and ports keep their
//! meaning from one snapshot to the next, so that decisions cached in flows survive changes that do
//! not concern them (a neighbour's new Ethernet address, say).

mod adjacency;
mod assemble;
mod bound;
mod guard;
mod limit;
mod names;
mod outer;
mod port;
mod trunk;
mod resolve;
mod underlay;

pub use adjacency::{Adjacency, AdjacencyId, DIRECT_VNI, HopKey, State as HopState};
pub use assemble::Assembler;
pub use bound::BoundPorts;
pub(crate) use guard::is_failsafe;
pub use guard::{Guard, host_endpoint};
pub(crate) use limit::{Buckets, Connections, PortLimits};
pub use outer::Outer;
pub(crate) use outer::{OuterIp, Vxlan};
pub use port::{
    ARRIVAL_MAC_PREFIX, DeviceId, HAIRPIN_V4, HAIRPIN_V6, POD_GATEWAY_MAC, Port, PortId, PortKind,
    TRUNK_MAC_PREFIX, arrival_mac, trunk_index, trunk_mac,
};
pub use trunk::Trunk;
pub use underlay::{KernelRoute, NextHop, PortInfo, Underlay};

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{Dscp, Endpoint, Settings, TrafficPolicy};
use margay_tables::addr::{Addr, Tuple};
use margay_tables::classifier::{Classifier, EndpointPolicy};
use margay_tables::lpm::Lpm;
use margay_tables::service::ServiceTable;
use margay_wire::protocol;

use crate::batch::Punt;

/// Where an address lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the node's own.
    Host,
    /// A pod of this node has it; index into [`Snapshot::endpoints`].
    Pod(u32),
    /// Behind next hops, of which a flow's hash chooses one. `tunnel_always` says that the node's
    /// own traffic carries the tunnel's address.
    Hops {
        /// The next hops; none where a route of the kernel refuses.
        hops: Box<[AdjacencyId]>,
        /// Source address for the node's own and masqueraded packets.
        source: Option<Addr>,
        /// The way of what the node there is to answer itself; `None` where none is known.
        direct: Option<AdjacencyId>,
    },
    /// In a block of this node that no pod has taken it from.
    Unused,
    /// In a service range; no service has it as an address.
    ServiceRange,
}

/// A pod of this node.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What the control plane said.
    pub endpoint: Arc<Endpoint>,
    /// Its port.
    pub port: PortId,
    /// The way to it.
    pub adjacency: AdjacencyId,
    /// The compiled policies of both directions.
    pub policy: EndpointPolicy,
    /// What they would be if all staged policies were enforced, if any of these concerns it.
    pub pending: Option<EndpointPolicy>,
    /// The connections that are limited.
    pub(crate) connections: limit::BothWays,
}

/// What an address is to pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFacts {
    /// It lies in a pool.
    pub pooled: bool,
    /// Its pool masquerades traffic that leaves all pools.
    pub nat_outgoing: bool,
    /// Between nodes its pool's packets are always in a tunnel.
    pub tunneled: bool,
}

/// Everything a worker needs to decide a packet.
#[derive(Clone)]
pub struct Snapshot {
    /// The generation that decisions are stamped with. It grows whenever a cached decision might
    /// have become wrong.
    pub generation: u32,
    /// The last generation of the process before this one: what was decided by it or earlier has
    /// numbers of rules that mean nothing any more.
    pub inherited: u32,
    /// Whether a complete state of the control plane is in it.
    pub ready: bool,
    /// Ports by number.
    pub ports: Vec<Option<Port>>,
    /// Ports whose frames come by the trunk, by the index of their interface.
    pub trunk: Trunk,
    /// Places by number: what [`Self::routes`] leads to.
    pub places: Arc<[Place]>,
    /// Routes by longest prefix, to an index into [`Self::places`].
    pub routes: Arc<Lpm>,
    /// Pools by longest prefix: bit 0 pooled, bit 1 natOutgoing.
    pub pools: Arc<Lpm>,
    /// Next hops by number.
    pub adjacencies: Arc<[Adjacency]>,
    /// Pods of this node.
    pub endpoints: Arc<[Workload]>,
    /// Host endpoints that an interface has.
    pub guards: Arc<[Guard]>,
    /// The host endpoint for all interfaces; index into [`Self::guards`].
    pub everywhere: Option<u32>,
    /// Whether any of them looks at every single packet.
    pub untracked: bool,
    /// What the limits of pods are kept by.
    limits: limit::ByPort,
    /// Whether anything is limited or marked.
    limited: bool,
    /// Policies.
    pub classifier: Classifier,
    /// Services.
    pub services: ServiceTable,
    /// Nodes whose tunnels are accepted, by outer source.
    pub tunnel_peers: Arc<HashMap<Addr, ()>>,
    /// Addresses that tunnels to this node end at.
    pub tunnel_ends: Vec<Addr>,
    /// The node's own IPv4 and IPv6 address.
    pub node_v4: Option<Addr>,
    /// The node's own IPv6 address.
    pub node_v6: Option<Addr>,
    /// Addresses that the node has in common with others.
    pub broadcasts: Arc<[Addr]>,
    /// Settings.
    pub settings: Settings,
    /// Ports of the node's own processes.
    pub bound: Arc<BoundPorts>,
    /// Name servers whose answers to pods are believed, by the addresses and ports that pods ask.
    /// Empty while no policy names domains: then nothing is read along.
    pub name_servers: Arc<HashMap<(Addr, u16), ()>>,
    /// Another number whenever addresses of domain names were learned.
    pub names_epoch: u16,
}

// === impl Snapshot ===

impl Snapshot {
    /// The same with other next hops.
    fn with_adjacencies(&self, adjacencies: Arc<[Adjacency]>) -> Self {
        Self { adjacencies, ..self.clone() }
    }

    /// The same with what the classifier has learned of domain names.
    fn with_classifier(&self, classifier: Classifier) -> Self {
        Self { classifier, names_epoch: self.names_epoch.wrapping_add(1), ..self.clone() }
    }

    /// Whether a pod's connection, by its first packet's tuple, goes to a name server that is to be
    /// believed.
    pub fn reads_along(&self, asked: &Tuple) -> bool {
        !self.name_servers.is_empty()
            && matches!(asked.protocol, protocol::UDP | protocol::TCP)
            && self.name_servers.contains_key(&(asked.dst, asked.dst_port))
            && matches!(self.place(asked.src), Some(Place::Pod(_)))
    }

    /// Where `addr` lives.
    pub fn place(&self, addr: Addr) -> Option<&Place> {
        self.places.get(self.routes.lookup(addr)? as usize)
    }

    /// What `addr` is to pools.
    pub fn pool(&self, addr: Addr) -> PoolFacts {
        let bits = self.pools.lookup(addr).unwrap_or(0);
        PoolFacts { pooled: bits & 1 != 0, nat_outgoing: bits & 2 != 0, tunneled: bits & 4 != 0 }
    }

    /// The port with this number.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    /// Whether a port is an uplink.
    pub fn is_uplink(&self, id: PortId) -> bool {
        self.port(id).is_some_and(|port| port.kind == PortKind::Uplink)
    }

    /// The next hop with this number.
    pub fn adjacency(&self, id: AdjacencyId) -> Option<&Adjacency> {
        self.adjacencies.get(id.0 as usize)
    }

    /// The pod with this index.
    pub fn workload(&self, index: u32) -> Option<&Workload> {
        self.endpoints.get(index as usize)
    }

    /// The host endpoint with this index.
    pub fn guard(&self, index: u32) -> Option<&Guard> {
        self.guards.get(index as usize)
    }

    /// The node's own address of the family of `peer`.
    pub fn node_address(&self, peer: Addr) -> Option<Addr> {
        if peer.is_v4() { self.node_v4 } else { self.node_v6 }
    }

    /// Whether some pod has limits, or packets of somebody are marked.
    #[inline]
    pub(crate) fn limited(&self) -> bool {
        self.limited
    }

    /// What the node's own packets out of the cluster are marked with where they leave by a port.
    pub(crate) fn dscp_of_host(&self, port: PortId) -> Option<Dscp> {
        self.guard(self.port(port)?.guard?)?.endpoint.dscp
    }

    /// The limits of a pod's port.
    #[inline]
    pub(crate) fn limits_of(&self, port: PortId) -> Option<&PortLimits> {
        self.limits.get(usize::from(port.0))?.as_deref()
    }

    /// Whether the service that `tuple` is addressed to still has this backend, or has none at all
    /// (what serves nobody ends nothing).
    pub fn still_serves(&self, tuple: &Tuple, backend: Addr, port: u16) -> bool {
        let v6 = !tuple.dst.is_v4();
        let frontend = (self.services)
            .frontend(tuple.dst, tuple.protocol, tuple.dst_port)
            .or_else(|| self.services.node_port(v6, tuple.protocol, tuple.dst_port));
        frontend.is_some_and(|frontend| {
            let entry = frontend.service;
            !entry.has_backends(TrafficPolicy::Cluster) || entry.serves(backend, port)
        })
    }

    /// Whether the node that has a backend is to answer a client itself.
    pub fn is_answered_directly(&self, client: Addr, backend: Addr) -> bool {
        let settings = &self.settings;
        let client = IpAddr::from(client);
        settings.direct_return
            && !settings.direct_return_except.iter().any(|net| net.contains(&client))
            && matches!(self.place(backend), Some(Place::Hops { direct: Some(_), .. }))
    }

    /// Whether a punted ICMP error about a packet with these addresses may be about one of the node's
    /// tunnels: it came from between the nodes. Pods have no say in what a tunnel's way takes.
    pub fn hears_of_tunnel(&self, error: &Punt, src: Addr, dst: Addr) -> bool {
        !error.tunneled
            && self.is_uplink(error.port)
            && self.tunnel_ends.contains(&src)
            && self.tunnel_peers.contains_key(&dst)
    }

    /// Whether `addr` is one of the node's.
    pub fn is_own(&self, addr: Addr) -> bool {
        matches!(self.place(addr), Some(Place::Host))
    }

    /// The port of a pod's or uplink's interface.
    pub fn port_named(&self, name: &str) -> Option<PortId> {
        self.ports.iter().flatten().find(|p| &*p.name == name).map(|p| p.id)
    }
}
