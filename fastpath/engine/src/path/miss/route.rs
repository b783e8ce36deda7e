//! Arrives: a packet with its final destination. Leaves: its next hop, and the pod at its end; before
//! all else, the pod that sent it.
//!
//! Drops: no_route (where the node is gone that was to answer itself), no_service, spoof (the wire
//! claims a pod's address that does not come this way), martian (the kernel sends out what is for the
//! node itself; networks' broadcast addresses). Punts: unreachable, reject.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_model::node::ServiceLoops;
use margay_tables::addr::{Addr, Tuple};

use super::Way;
use crate::batch::{Fate, Packet, Side, Why};
use crate::path::parse::{dropped, is_martian, punt};
use crate::snapshot::{AdjacencyId, Place, Port, PortKind, Snapshot};

/// Finds where the packet goes and whom it concerns.
pub(crate) fn route(snapshot: &Snapshot, packet: &Packet, way: &mut Way) -> ControlFlow<Fate> {
    // Its answer would pass for an answer of the node's that a host endpoint had allowed.
    if packet.departs.is_some() && matches!(snapshot.place(packet.tuple.dst), Some(Place::Host)) {
        return dropped(DropReason::Martian);
    }
    find(snapshot, packet, way)
}

/// Finds where the packet goes, whoever sent it.
pub(crate) fn find(snapshot: &Snapshot, packet: &Packet, way: &mut Way) -> ControlFlow<Fate> {
    if kernels(snapshot, packet, way) {
        return Continue(());
    }
    // Nobody on the network is asked to answer for all of it (RFC 2644).
    if packet.side != Side::Host && is_broadcast(snapshot, way.to.dst) {
        return dropped(DropReason::Martian);
    }
    match snapshot.place(way.to.dst) {
        Some(Place::Host) => {
            way.to_host = true;
            way.hop = AdjacencyId::HOST;
        }
        Some(Place::Pod(index)) => {
            let Some(workload) = snapshot.workload(*index) else {
                return dropped(DropReason::NoEndpoint);
            };
            way.dst_pod = Some(*index);
            way.hop = workload.adjacency;
        }
        Some(Place::Hops { direct, .. }) if way.handed_on => match direct {
            Some(hop) => way.hop = *hop,
            None => return dropped(DropReason::NoRoute),
        },
        Some(Place::Hops { hops, source, .. }) => {
            let nth = packet.hash as usize % hops.len().max(1);
            let Some(hop) = hops.get(nth) else {
                return punt(packet, Why::Unreachable { host: false });
            };
            way.hop = *hop;
            way.source = *source;
        }
        Some(Place::Unused) => return punt(packet, Why::Unreachable { host: true }),
        Some(Place::ServiceRange) => {
            return match snapshot.settings.service_loops {
                ServiceLoops::Reject => punt(packet, Why::Reject),
                ServiceLoops::Drop | ServiceLoops::Route => dropped(DropReason::NoService),
            };
        }
        None => return punt(packet, Why::Unreachable { host: false }),
    }
    Continue(())
}

/// Whether the packet is the kernel's and the dataplane only judges it: what the kernel had sent out
/// of an uplink, and what comes by an uplink with a host endpoint and is neither for a pod or service
/// nor from one. Without the host endpoint the dataplane would not see it.
///
/// The answer of the node's own node port comes from the node's own address. A kernel takes such a
/// packet from the host port alone (`accept_local`).
fn kernels(snapshot: &Snapshot, packet: &Packet, way: &mut Way) -> bool {
    let port = packet.departs.unwrap_or(packet.port);
    let Some(Port { guard, kernel: [arrival, departure], .. }) = snapshot.port(port) else {
        return false;
    };
    if packet.departs.is_some() {
        (way.hop, way.is_kernels) = (*departure, true);
        return true;
    }
    if guard.is_none() || packet.side != Side::Wire || packet.tunneled {
        return false;
    }
    if snapshot.is_own(way.to.src) {
        return false;
    }
    let dst = way.to.dst;
    let translated = dst != packet.tuple.dst;
    way.to_host = match snapshot.place(dst) {
        Some(Place::Host) => true,
        _ if translated => return false,
        _ if is_martian(dst) || is_martian(packet.tuple.src) => true,
        _ if snapshot.pool(dst).pooled || snapshot.pool(packet.tuple.src).pooled => return false,
        Some(Place::Pod(_) | Place::Unused | Place::ServiceRange) => return false,
        Some(Place::Hops { .. }) | None => snapshot.broadcasts.contains(&dst),
    };
    (way.hop, way.is_kernels) = (*arrival, true);
    true
}

/// Whether an address is the IPv4 broadcast address, old or new, of a network of the node's.
fn is_broadcast(snapshot: &Snapshot, addr: Addr) -> bool {
    addr.is_v4() && snapshot.broadcasts.contains(&addr)
}

/// Whether the wire may bring a packet with this source at all: an answer to it would leave the same
/// way (RFC 3704 §2.2). Packets between addresses of pools whose nodes are always reached by tunnel
/// come out of one; who sends them plainly is no node, and would be taken for the pod whose address
/// he has chosen. Only new connections are asked: while a pool's encapsulation is being changed, nodes
/// do not agree about it.
pub(super) fn reverse_path(snapshot: &Snapshot, packet: &Packet) -> ControlFlow<Fate> {
    let Tuple { src, dst, .. } = packet.tuple;
    if packet.side != Side::Wire {
        return Continue(());
    }
    if is_broadcast(snapshot, src) {
        return dropped(DropReason::Martian);
    }
    let tunneled = |addr| snapshot.pool(addr).tunneled;
    if !packet.tunneled && tunneled(src) && tunneled(dst) {
        return dropped(DropReason::Spoof);
    }
    Continue(())
}

/// The local pod that sent the packet. What comes from elsewhere and carries a local pod's address
/// is a lie.
pub(crate) fn source_pod(snapshot: &Snapshot, packet: &Packet) -> ControlFlow<Fate, Option<u32>> {
    if packet.side == Side::Pod {
        let kind = snapshot.port(packet.port).map(|port| port.kind);
        let Some(PortKind::Pod(index)) = kind else { return dropped(DropReason::UnknownPort) };
        return Continue(Some(index));
    }
    match snapshot.place(packet.tuple.src) {
        Some(Place::Pod(_)) => dropped(DropReason::Spoof),
        Some(Place::Host) if packet.side == Side::Wire => dropped(DropReason::Spoof),
        _ => Continue(None),
    }
}
