//! From what the control plane and the kernel say to a [`Snapshot`].
//!
//! The assembler keeps what must not change its meaning (numbers of next hops) and what is costly
//! to make (policies, services), and renews only what a change concerns.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::node::ServiceLoops;
use margay_model::{Encap, HostEndpoint, Pool, RemoteNode, RouteTarget, SetId, State, Update};
use margay_tables::addr::{Addr, Prefix};
use margay_tables::classifier::{PolicyBook, Standing};
use margay_tables::flow::BackendId;
use margay_tables::lpm::Lpm;
use margay_tables::service::{ServiceEntry, ServiceTable};

use super::adjacency::{Adjacency, AdjacencyId, HopKey, State as HopState};
use super::bound::BoundPorts;
use super::guard::{Guard, everywhere, of_port, of_uplinks};
use super::limit;
use super::names;
use super::outer::Outer;
use super::port::{DeviceId, POD_GATEWAY_MAC, Port, PortId, PortKind, trunk_mac};
use super::resolve::{Inputs, on_link, resolve, underlay_hop, underlay_v6};
use super::trunk::Trunk;
use super::underlay::{KernelRoute, NextHop, Underlay};
use super::{Place, Snapshot, Workload};

/// Assembles snapshots, one after the other.
pub struct Assembler {
    generation: u32,
    inherited: u32,
    ready: bool,
    policies: PolicyBook,
    services: ServiceTable,
    lost: Vec<BackendId>,
    ways: Option<Ways>,
    adjacencies: Vec<Adjacency>,
    numbers: HashMap<HopKey, AdjacencyId>,
    limits: limit::Keep,
    bound: Arc<BoundPorts>,
    names_epoch: u16,
}

/// The ways to all places of the last snapshot: they stay while what they are made of does, which is the
/// control plane's state ([`leaves_ways`]) and this.
struct Ways {
    underlay: Underlay,
    owners: HashMap<Addr, u32>,
    places: Arc<[Place]>,
    routes: Arc<Lpm>,
}

// === impl Assembler ===

impl Assembler {
    /// An assembler whose first snapshot has the generation after `generation`: one that no flow
    /// that was taken over can have been decided by.
    pub fn new(generation: u32) -> Self {
        let mut assembler = Self {
            generation,
            inherited: generation,
            ready: false,
            policies: PolicyBook::default(),
            services: ServiceTable::default(),
            lost: Vec::new(),
            ways: None,
            adjacencies: Vec::new(),
            numbers: HashMap::new(),
            limits: limit::Keep::default(),
            bound: Arc::default(),
            names_epoch: 0,
        };
        assembler.number(HopKey::Host);
        assembler
    }

    /// Notes a change of the control plane's state; it is in the next snapshot.
    pub fn note(&mut self, update: &Update) {
        let old = self.services.note(update);
        if let Some(old) = &old {
            self.lost.extend(old.names_lost(self.services.get(&old.service.key)));
        }
        self.policies.note(update);
        if !leaves_ways(update, old.as_deref()) {
            self.ways = None;
        }
    }

    /// Backends that left services whose clients stay with theirs, in ascending order: to be
    /// forgotten ([`margay_tables::flow::Affinities::forget`]) once no worker sends to them.
    pub fn take_lost(&mut self) -> Vec<BackendId> {
        let mut lost = std::mem::take(&mut self.lost);
        lost.sort_unstable();
        lost
    }

    /// The ports of the node's own processes, of all snapshots: to be kept up to date.
    pub fn bound_ports(&self) -> Arc<BoundPorts> {
        self.bound.clone()
    }

    /// Says that the control plane's state is complete: packets are decided from now on.
    pub fn set_ready(&mut self) {
        self.ready = true;
    }

    /// The generation of the last snapshot.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Assembles a snapshot with a generation of its own.
    pub fn assemble(&mut self, state: &State, underlay: &Underlay) -> Snapshot {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let inputs = Inputs::new(state, underlay);
        let workloads = self.workloads(&inputs);
        let (places, routes) = self.ways(&inputs, &workloads);
        let guards = self.guards(&inputs);
        let ports = self.ports(&inputs, &workloads, &guards);
        let limits = self.limits.buckets(&workloads);
        let snapshot = Snapshot {
            generation: self.generation,
            inherited: self.inherited,
            ready: self.ready,
            ports,
            trunk: trunk(underlay),
            places,
            routes,
            pools: Arc::new(pools(state)),
            endpoints: workloads.into(),
            everywhere: guard_index(&guards, everywhere(state)),
            untracked: guards.iter().any(Guard::is_untracked),
            limited: !limits.is_empty() || guards.iter().any(|guard| guard.endpoint.dscp.is_some()),
            limits,
            guards: guards.into(),
            classifier: self.policies.classifier(),
            services: self.services.clone(),
            tunnel_peers: Arc::new(tunnel_peers(state)),
            tunnel_ends: own_underlay(state).collect(),
            node_v4: state.node.v4.map(|(a, _)| a.into()),
            node_v6: state.node.v6.map(|(a, _)| a.into()),
            broadcasts: underlay.broadcasts.iter().copied().map(Addr::from).collect(),
            settings: state.node.settings.clone(),
            bound: self.bound.clone(),
            name_servers: Arc::new(names::servers(state)),
            names_epoch: self.names_epoch,
            adjacencies: Arc::default(),
        };
        Snapshot { adjacencies: self.adjacencies(&inputs), ..snapshot }
    }

    /// The last snapshot with its next hops as the kernel sees them now: no decision changes, so
    /// the generation stays.
    pub fn refresh_hops(
        &mut self,
        last: &Snapshot,
        state: &State,
        underlay: &Underlay,
    ) -> Snapshot {
        let inputs = Inputs::new(state, underlay);
        last.with_adjacencies(self.adjacencies(&inputs))
    }

    /// Notes what is known of an address that was learned for a domain name of a set; it is in the
    /// next snapshot.
    pub fn note_learned(&mut self, set: &SetId, addr: Addr, standing: Standing) {
        self.policies.note_learned(set, addr, standing);
    }

    /// The last snapshot with what was learned of domain names since: nothing that is allowed is
    /// denied by it, so the generation stays, and denials are looked at again by the epoch.
    pub fn refresh_names(&mut self, last: &Snapshot) -> Snapshot {
        let snapshot = last.with_classifier(self.policies.classifier());
        self.names_epoch = snapshot.names_epoch;
        snapshot
    }

    /// The number of a next hop; a new one gets the next free number.
    fn number(&mut self, key: HopKey) -> AdjacencyId {
        if let Some(id) = self.numbers.get(&key) {
            return *id;
        }
        let id = AdjacencyId(self.adjacencies.len() as u32);
        self.adjacencies.push(Adjacency {
            key: key.clone(),
            port: PortId::HOST,
            neighbour: None,
            state: HopState::Gone,
            src_mac: [0; 6],
            dst_mac: [0; 6],
            outer: Outer::None,
            mtu: 0,
        });
        self.numbers.insert(key, id);
        id
    }

    /// Pods whose interface is there, with their policies.
    fn workloads(&mut self, inputs: &Inputs<'_>) -> Vec<Workload> {
        let mut out = Vec::with_capacity(inputs.state.endpoints.len());
        let mut connections = self.limits.take_connections();
        for endpoint in inputs.state.endpoints.values() {
            let Some(port) = inputs.port(&endpoint.interface) else { continue };
            out.push(Workload {
                endpoint: endpoint.clone(),
                port: port.id,
                adjacency: self.number(HopKey::Pod(port.id)),
                policy: self.policies.endpoint(endpoint),
                pending: self.policies.pending(endpoint),
                connections: self.limits.connections(&mut connections, port.id, endpoint),
            });
        }
        out
    }

    /// Host endpoints that an interface has.
    fn guards(&mut self, inputs: &Inputs<'_>) -> Vec<Guard> {
        let mut guards: Vec<Guard> = Vec::new();
        for host in of_uplinks(inputs.state, inputs.underlay).chain(everywhere(inputs.state)) {
            if guard_index(&guards, Some(host)).is_none() {
                let lists = self.policies.host(host);
                guards.push(Guard { endpoint: host.clone(), lists });
            }
        }
        guards
    }

    /// Every port; a pod's interface without endpoint is an orphan.
    fn ports(
        &mut self,
        inputs: &Inputs<'_>,
        workloads: &[Workload],
        guards: &[Guard],
    ) -> Vec<Option<Port>> {
        let mut ports = ports(inputs, workloads);
        for info in inputs.underlay.ports.iter().filter(|info| info.uplink) {
            if let Some(Some(port)) = ports.get_mut(usize::from(info.id.0)) {
                port.guard = guard_index(guards, of_port(inputs.state, info));
                port.kernel =
                    [HopKey::Arrival(info.id), HopKey::Departure(info.id)].map(|k| self.number(k));
            }
        }
        ports
    }

    /// All places and the way to them: the last ones where they stay, as there may be many.
    fn ways(&mut self, inputs: &Inputs<'_>, workloads: &[Workload]) -> (Arc<[Place]>, Arc<Lpm>) {
        let owners = owners(workloads);
        if let Some(last) = &self.ways
            && last.owners == owners
            && last.underlay == *inputs.underlay
        {
            return (last.places.clone(), last.routes.clone());
        }
        let (places, routes) = self.routes(inputs, &owners);
        let (places, routes): (Arc<[Place]>, _) = (places.into(), Arc::new(routes));
        let underlay = inputs.underlay.clone();
        let ways = (places.clone(), routes.clone());
        self.ways = Some(Ways { underlay, owners, places, routes });
        ways
    }

    /// All places and the way to them. Of equal prefixes the node's own address wins, then a pod,
    /// then the control plane's route, then the kernel's.
    fn routes(&mut self, inputs: &Inputs<'_>, owners: &HashMap<Addr, u32>) -> (Vec<Place>, Lpm) {
        let mut places = Vec::new();
        let mut routes: HashMap<Prefix, u32> = HashMap::new();
        let mut add = |prefix: Prefix, place: Place| {
            let next = places.len() as u32;
            routes.insert(prefix, next);
            places.push(place);
        };
        // Of the kernel's routes to one prefix the first counts: it is put in last.
        for route in inputs.underlay.routes.iter().rev() {
            let hops = self.kernel_hops(route);
            add(route.dst.into(), Place::Hops { hops, source: None, direct: None });
        }
        for (port, neighbour) in inputs.underlay.neighbours.keys() {
            if on_link(inputs, *port, (*neighbour).into()) {
                let hop = self.number(HopKey::Neighbour(*port, (*neighbour).into()));
                let place = Place::Hops { hops: Box::new([hop]), source: None, direct: None };
                add(Addr::from(*neighbour).into(), place);
            }
        }
        let settings = &inputs.state.node.settings;
        if settings.service_loops != ServiceLoops::Route {
            for range in &settings.service_ranges {
                add((*range).into(), Place::ServiceRange);
            }
        }
        for addr in self.services.addresses() {
            add(addr.into(), Place::ServiceRange);
        }
        for (dst, target) in &inputs.state.routes {
            match target {
                RouteTarget::LocalBlock => add((*dst).into(), Place::Unused),
                RouteTarget::Node { node, encap } => {
                    if let Some(hops) = self.node_hops(inputs, node, *encap, dst) {
                        let source = tunnel_source(inputs.state, dst, *encap);
                        let direct = self.direct_hop(inputs, node, dst);
                        add((*dst).into(), Place::Hops { hops, source, direct });
                    }
                }
            }
        }
        for (addr, index) in owners {
            add((*addr).into(), Place::Pod(*index));
        }
        for addr in own_addresses(inputs) {
            add(addr.into(), Place::Host);
        }
        (places, routes.into_iter().collect())
    }

    fn kernel_hops(&mut self, route: &KernelRoute) -> Box<[AdjacencyId]> {
        let key = |hop: &NextHop| match hop.gateway {
            Some(gateway) => HopKey::Neighbour(hop.port, gateway.into()),
            None => HopKey::Link(hop.port),
        };
        route.hops.iter().map(|hop| self.number(key(hop))).collect()
    }

    /// The way to another node: through a tunnel, or by whatever way its address has.
    fn node_hops(
        &mut self,
        inputs: &Inputs<'_>,
        name: &Arc<str>,
        encap: Encap,
        dst: &IpNet,
    ) -> Option<Box<[AdjacencyId]>> {
        let remote = inputs.state.remotes.get(name)?;
        let key = match encap {
            Encap::Ipip => HopKey::Ipip(name.clone()),
            Encap::Vxlan => HopKey::Vxlan(name.clone(), underlay_v6(inputs.state, remote, dst)?),
            Encap::None => {
                let address = match dst {
                    IpNet::V4(_) => IpAddr::from(remote.v4?),
                    IpNet::V6(_) => IpAddr::from(remote.v6?),
                };
                let (port, neighbour) = underlay_hop(inputs, address.into())?;
                HopKey::Neighbour(port, neighbour)
            }
        };
        Some(Box::new([self.number(key)]))
    }

    /// The way to another node of what that one is to answer itself.
    fn direct_hop(
        &mut self,
        inputs: &Inputs<'_>,
        name: &Arc<str>,
        dst: &IpNet,
    ) -> Option<AdjacencyId> {
        let v6 = underlay_v6(inputs.state, inputs.state.remotes.get(name)?, dst)?;
        Some(self.number(HopKey::Direct(name.clone(), v6)))
    }

    /// Every next hop as things stand.
    fn adjacencies(&mut self, inputs: &Inputs<'_>) -> Arc<[Adjacency]> {
        for hop in &mut self.adjacencies {
            *hop = resolve(inputs, hop.key.clone());
        }
        self.adjacencies.as_slice().into()
    }
}

/// Whether a change of the control plane's state leaves the ways to all places as they are; who has
/// which pod's address is looked at when a snapshot is assembled. `old` is the service before.
fn leaves_ways(update: &Update, old: Option<&ServiceEntry>) -> bool {
    match update {
        Update::Policy(_) | Update::PolicyGone(_) => true,
        Update::Set(..) | Update::SetMembers { .. } | Update::SetGone(_) => true,
        Update::Endpoint(_) | Update::EndpointGone(_) => true,
        Update::Service(new) => old.is_some_and(|old| old.service.addresses().eq(new.addresses())),
        _ => false,
    }
}

/// Every port as it is without host endpoints.
fn ports(inputs: &Inputs<'_>, workloads: &[Workload]) -> Vec<Option<Port>> {
    let count = inputs.underlay.ports.iter().map(|p| usize::from(p.id.0) + 1).max().unwrap_or(1);
    let mut ports = vec![None; count];
    ports[0] = Some(Port {
        id: PortId::HOST,
        name: "margay0".into(),
        kind: PortKind::Host,
        device: DeviceId::TRUNK,
        mac: trunk_mac(0),
        sources: Default::default(),
        mtu: inputs.underlay.trunk_mtu,
        guard: None,
        kernel: [AdjacencyId::HOST; 2],
    });
    for info in &inputs.underlay.ports {
        let workload = workloads.iter().position(|w| w.port == info.id);
        let (kind, sources) = match workload.and_then(|i| Some((i, workloads.get(i)?))) {
            Some((index, workload)) => (PortKind::Pod(index as u32), sources(workload)),
            None if info.uplink => (PortKind::Uplink, Default::default()),
            None => (PortKind::Orphan, Default::default()),
        };
        let mac = match (info.uplink, info.device) {
            (true, _) => info.mac.0,
            (false, DeviceId::TRUNK) => trunk_mac(info.ifindex),
            (false, _) => POD_GATEWAY_MAC,
        };
        let Some(slot) = ports.get_mut(usize::from(info.id.0)) else { continue };
        let (id, name, device, mtu) = (info.id, info.name.clone(), info.device, info.mtu);
        let (guard, kernel) = (None, [AdjacencyId::HOST; 2]);
        *slot = Some(Port { id, name, kind, device, mac, sources, mtu, guard, kernel });
    }
    ports
}

/// Where a host endpoint is among the guards.
fn guard_index(guards: &[Guard], host: Option<&Arc<HostEndpoint>>) -> Option<u32> {
    let at = guards.iter().position(|guard| Some(&guard.endpoint.key) == host.map(|h| &h.key))?;
    u32::try_from(at).ok()
}

/// The addresses that most of a pod's packets come from: its first of either family.
fn sources(workload: &Workload) -> [Addr; 2] {
    let first = |v4: bool| {
        let addresses = workload.endpoint.addresses.iter();
        addresses.copied().find(|a| a.is_ipv4() == v4).map(Addr::from).unwrap_or_default()
    };
    [first(true), first(false)]
}

/// Pods on the trunk by the index of their interface; and the uplinks, by which the kernel's own
/// frames are known that were to leave by them.
fn trunk(underlay: &Underlay) -> Trunk {
    let ports = underlay.ports.iter().filter(|p| p.uplink || p.device == DeviceId::TRUNK);
    ports.map(|p| (p.ifindex, p.id)).collect()
}

/// Who has each address: of several pods the one with the highest priority, then the first name.
fn owners(workloads: &[Workload]) -> HashMap<Addr, u32> {
    let mut owners: HashMap<Addr, u32> = HashMap::new();
    let rank = |index: u32| workloads.get(index as usize).map_or(0, |w| w.endpoint.priority);
    for (index, workload) in (0u32..).zip(workloads) {
        for address in &workload.endpoint.addresses {
            let owner = owners.entry((*address).into()).or_insert(index);
            if rank(index) > rank(*owner) {
                *owner = index;
            }
        }
    }
    owners
}

/// Every address of the node: as its kernel has them, and as the control plane says.
fn own_addresses(inputs: &Inputs<'_>) -> impl Iterator<Item = Addr> {
    let told: Vec<_> = inputs.state.node.addresses().collect();
    inputs.underlay.addresses.iter().copied().chain(told).map(Addr::from)
}

fn pools(state: &State) -> Lpm {
    let tunneled = |pool: &Pool| pool.encap_always && pool.encap != Encap::None;
    let bits = |pool: &Pool| 1 | u32::from(pool.nat_outgoing) << 1 | u32::from(tunneled(pool)) << 2;
    state.pools.values().map(|pool| (Prefix::from(pool.cidr), bits(pool))).collect()
}

fn tunnel_peers(state: &State) -> HashMap<Addr, ()> {
    let addresses = |remote: &Arc<RemoteNode>| {
        [remote.v4.map(Addr::from), remote.v6.map(Addr::from)].into_iter().flatten()
    };
    state.remotes.values().flat_map(addresses).map(|a| (a, ())).collect()
}

fn own_underlay(state: &State) -> impl Iterator<Item = Addr> + use<> {
    let node = &state.node;
    [node.v4.map(|(a, _)| a.into()), node.v6.map(|(a, _)| a.into())].into_iter().flatten()
}

/// The address that the node's own packets carry into a pool that is always reached by tunnel.
fn tunnel_source(state: &State, dst: &IpNet, encap: Encap) -> Option<Addr> {
    let pool = state.pools.values().find(|pool| pool.cidr.contains(dst))?;
    if !pool.encap_always || encap == Encap::None {
        return None;
    }
    let mut own = state.node.tunnel_addresses.iter();
    let v4 = matches!(dst, IpNet::V4(_));
    own.find(|t| t.encap == encap && t.address.is_ipv4() == v4).map(|t| t.address.into())
}
