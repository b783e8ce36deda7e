//! Arrives: a packet as its sender addressed it. Leaves: for a service, its backend's address; and
//! whether the source has to become the node's for the answers to come back here.
//!
//! Which backends, and whether to masquerade, is kube-proxy's table (rows: who asks; columns: what
//! is asked and under which policy):
//!
//! | from     | cluster address      | elsewhere, Cluster | elsewhere, Local     |
//! |----------|----------------------|--------------------|----------------------|
//! | pod      | internal policy's    | all, masquerade    | all                  |
//! | node     | the same, masquerade | all, masquerade    | all, masquerade      |
//! | external | the same, masquerade | all, masquerade    | local, source kept   |
//!
//! A pod that is its own backend is always masqueraded.
//!
//! Where backends answer directly, an external client is not masqueraded whose backend is on another
//! node: its packets go there as they are. That node has them of no other client than an external one,
//! for an address and port that the first node answers on, and chooses among its own backends; if it
//! has none any more, among all, and masquerades.
//!
//! With session affinity a client stays with the backend that it was last sent to, for as long as
//! that serves and no longer than the service says since its last new connection.
//!
//! Drops: no_service, no_local_backend, source_range. Punts: reject.

use std::net::IpAddr;
use std::ops::ControlFlow::{self, Continue};

use margay_model::{DropReason, TrafficPolicy};
use margay_tables::addr::{Addr, Tuple};
use margay_tables::service::{Frontend, FrontendKind, Picked, ServiceEntry};

use super::Way;
use crate::Engine;
use crate::batch::{Fate, Packet, Side, Why};
use crate::conntrack::tcp;
use crate::path::parse::{dropped, punt};
use crate::snapshot::Snapshot;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Pod,
    Node,
    External,
}

/// Translates the destination if it is a service's.
pub(super) fn dnat(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    packet: &Packet,
    way: &mut Way,
) -> ControlFlow<Fate> {
    if packet.departs.is_some() {
        // The kernel has chosen an uplink for it: services are behind the host port.
        return Continue(());
    }
    let Some(frontend) = find(snapshot, packet) else {
        // The wrong port on a live address is refused; what no service has, the route decides.
        let live = snapshot.services.has_address(packet.tuple.dst);
        return if live && !snapshot.is_own(packet.tuple.dst) {
            punt(packet, Why::Reject)
        } else {
            Continue(())
        };
    };
    let (kind, entry) = (frontend.kind, frontend.service);
    if kind == FrontendKind::LoadBalancer && !entry.admits(packet.tuple.src) {
        return dropped(DropReason::SourceRange);
    }
    let (internal, external) = (entry.service.internal, entry.service.external);
    let all = TrafficPolicy::Cluster;
    let (scope, masquerade) = match (kind, client(snapshot, packet)) {
        (FrontendKind::Cluster, client) => {
            (internal, client != Client::Pod || snapshot.settings.masquerade_all)
        }
        (_, Client::Pod) => (all, external == all),
        (_, Client::Node) => (all, true),
        (_, Client::External) if packet.handed_on => match entry.has_backends(TrafficPolicy::Local)
        {
            true => (TrafficPolicy::Local, false),
            false => (all, true),
        },
        (_, Client::External) => (external, external == all),
    };
    let Some(Picked { addr, port }) = choose(engine, entry, packet, scope, way) else {
        // Served elsewhere, but not here: silence. Served by nobody: said.
        return if scope != all && entry.has_backends(all) {
            dropped(DropReason::NoLocalBackend)
        } else {
            punt(packet, Why::Reject)
        };
    };
    (way.to.dst, way.to.dst_port) = (addr, port);
    way.translated = true;
    way.handed_on = masquerade
        && kind != FrontendKind::Cluster
        && packet.side == Side::Wire
        && !packet.tunneled
        && snapshot.is_answered_directly(packet.tuple.src, addr);
    way.masquerade = (masquerade && !way.handed_on) || addr == packet.tuple.src;
    Continue(())
}

/// The backend for a connection; with session affinity the client's own, if it still has one.
fn choose(
    engine: &Engine<'_>,
    entry: &ServiceEntry,
    packet: &Packet,
    scope: TrafficPolicy,
    way: &mut Way,
) -> Option<Picked> {
    let Some(seconds) = entry.service.affinity else {
        return entry.pick(connection(entry, packet), scope);
    };
    let timeout = seconds.saturating_mul(1_000).max(1);
    // Who is sent to the whole cluster on one way and to this node alone on another has two.
    let key = engine.affinities().key(packet.tuple.src, entry.hash.wrapping_add(scope as u64));
    let known = engine.affinities().find(key, engine.now, timeout);
    let picked = known.and_then(|name| entry.named(name, scope)).or_else(|| {
        // Connections that begin on several workers at once choose alike. What an idle client
        // chose before, it need not choose again, unless all nodes are to choose alike.
        let round = if entry.is_shared() { 0 } else { engine.now / timeout };
        entry.pick(packet.tuple.src.hash(entry.hash ^ u64::from(round)), scope)
    })?;
    way.stays = Some((key, entry.name_of(picked)));
    Some(picked)
}

/// What chooses a connection's backend: the flow's hash, which has a secret in it; or one that
/// every node comes to, whichever of the service's addresses was asked.
fn connection(entry: &ServiceEntry, packet: &Packet) -> u64 {
    if !entry.is_shared() {
        return packet.hash;
    }
    let Tuple { src, src_port, protocol, .. } = packet.tuple;
    Tuple { src, src_port, protocol, ..Tuple::default() }.hash(entry.hash)
}

/// Whether a packet is addressed to a service.
pub(crate) fn is_service(snapshot: &Snapshot, packet: &Packet) -> bool {
    packet.departs.is_none() && find(snapshot, packet).is_some()
}

/// The service that a packet is for: by its address and port, or by its port on one of the node's
/// addresses.
fn find<'s>(snapshot: &'s Snapshot, packet: &Packet) -> Option<Frontend<'s>> {
    let tuple = &packet.tuple;
    let services = &snapshot.services;
    if packet.tcp.is_some_and(|facts| tcp::answers(&facts)) && snapshot.is_own(tuple.dst) {
        // Nobody asks a service so: a connection of the node's own has that port here.
        return None;
    }
    services.frontend(tuple.dst, tuple.protocol, tuple.dst_port).or_else(|| {
        services
            .node_port(!tuple.dst.is_v4(), tuple.protocol, tuple.dst_port)
            .filter(|_| packet.handed_on || answers_node_ports(snapshot, tuple.dst))
    })
}

/// Whether node ports answer on an address: all of the node's, or those that the settings name.
fn answers_node_ports(snapshot: &Snapshot, addr: Addr) -> bool {
    let ranges = &snapshot.settings.node_port_addresses;
    let named = ranges.is_empty() || ranges.iter().any(|range| range.contains(&IpAddr::from(addr)));
    named && snapshot.is_own(addr)
}

/// A remote pod that reaches a service through this node is a pod too.
fn client(snapshot: &Snapshot, packet: &Packet) -> Client {
    match packet.side {
        Side::Pod => Client::Pod,
        Side::Host => Client::Node,
        Side::Wire if snapshot.pool(packet.tuple.src).pooled => Client::Pod,
        Side::Wire => Client::External,
    }
}
