//! By what services are reached on this node: those of now, and those of before as long as connections
//! are left that came by them. kube-proxy ends no connection of TCP either when its service goes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use margay_engine::conntrack;
use margay_model::State;
use margay_tables::flow::{Cursor, Dir, FlowRef, FlowTable, FlowWorker};

/// Records that are looked at between two quiescent points.
const STEP: u32 = 1024;

/// Addresses and node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fronts {
    /// Cluster addresses.
    pub cluster: BTreeSet<IpAddr>,
    /// External addresses and load balancers' with protocol and port.
    pub outside: BTreeSet<(IpAddr, u8, u16)>,
    /// Protocol and port of node ports.
    pub node_ports: BTreeSet<(u8, u16)>,
}

// === impl Fronts ===

impl Fronts {
    /// Those of a state.
    pub(crate) fn of(state: &State) -> Self {
        let mut fronts = Self::default();
        for service in state.services.values() {
            fronts.cluster.extend(&service.cluster_ips);
            let outside = service.external_ips.iter().chain(&service.load_balancer_ips);
            fronts.outside.extend(outside.map(|addr| (*addr, service.protocol, service.port)));
            fronts.node_ports.extend(service.node_port.map(|port| (service.protocol, port)));
        }
        fronts
    }

    /// Those by which translated connections of the table came, of services that nothing is known of.
    pub(crate) fn of_connections(table: &Arc<FlowTable>, is_own: impl Fn(IpAddr) -> bool) -> Self {
        let mut fronts = Self::default();
        each_front(table, |addr, protocol, port| match is_own(addr) {
            true => drop(fronts.node_ports.insert((protocol, port))),
            false => drop(fronts.outside.insert((addr, protocol, port))),
        });
        fronts
    }

    /// Those of now, and those of `self` that are not among them and by which a connection came.
    pub(crate) fn followed_by(
        self,
        now: Self,
        table: &Arc<FlowTable>,
        is_own: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let mut left = self;
        left.cluster.retain(|front| !now.cluster.contains(front));
        left.outside.retain(|front| !now.outside.contains(front));
        left.node_ports.retain(|front| !now.node_ports.contains(front));
        if left == Self::default() {
            return now;
        }
        let mut all = now;
        each_front(table, |addr, protocol, port| {
            if left.cluster.contains(&addr) {
                all.cluster.insert(addr);
            }
            if left.outside.contains(&(addr, protocol, port)) {
                all.outside.insert((addr, protocol, port));
            }
            if left.node_ports.contains(&(protocol, port)) && is_own(addr) {
                all.node_ports.insert((protocol, port));
            }
        });
        all
    }

    /// All addresses that are no node's.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.cluster.iter().copied().chain(self.outside.iter().map(|(addr, ..)| *addr))
    }
}

/// Destination, protocol and port that each connection with a translated destination was opened to,
/// as long as it has begun and not ended.
fn each_front(table: &Arc<FlowTable>, mut each: impl FnMut(IpAddr, u8, u16)) {
    let Some(mut guest) = FlowWorker::new(table.clone()) else {
        tracing::warn!("connections of services that are gone may end: no seat at the flow table");
        return;
    };
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        guest.quiesce();
        cursor = guest.list(from, STEP, |flow| {
            let (asked, sent) = (flow.tuple(), flow.rewrite());
            let translated = (asked.dst, asked.dst_port) != (sent.dst, sent.dst_port);
            if flow.dir() == Dir::Orig && translated && is_alive(*flow) {
                each(asked.dst.into(), asked.protocol, asked.dst_port);
            }
        });
    }
    guest.quiesce();
}

fn is_alive(flow: FlowRef<'_>) -> bool {
    let (own, peer) = (flow.conntrack(), flow.peer().conntrack());
    let state = conntrack::state(flow.tuple().protocol, flow.marks(), own, peer);
    !flow.is_denial() && !state.is_half_open()
}
