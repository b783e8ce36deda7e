//! Arrives: a packet with its final destination. Leaves: its next hop, and the pods at both ends.
//!
//! Drops: no_service, spoof (the wire claims a local pod's address). Punts: unreachable.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;

use super::Way;
use crate::batch::{Fate, Packet, Side, Why};
use crate::path::parse::{dropped, punt};
use crate::snapshot::{AdjacencyId, Place, PortKind, Snapshot};

/// Finds where the packet goes and whom it concerns.
pub(crate) fn route(snapshot: &Snapshot, packet: &Packet, way: &mut Way) -> ControlFlow<Fate> {
    way.src_pod = source_pod(snapshot, packet)?;
    find(snapshot, packet, way)
}

/// Finds where the packet goes, whoever sent it.
pub(crate) fn find(snapshot: &Snapshot, packet: &Packet, way: &mut Way) -> ControlFlow<Fate> {
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
        Some(Place::Hops { hops, source }) => {
            let nth = packet.hash as usize % hops.len().max(1);
            let Some(hop) = hops.get(nth) else {
                return punt(packet, Why::Unreachable { host: false });
            };
            way.hop = *hop;
            way.source = *source;
        }
        Some(Place::Unused) => return punt(packet, Why::Unreachable { host: true }),
        Some(Place::ServiceRange) => return dropped(DropReason::NoService),
        None => return punt(packet, Why::Unreachable { host: false }),
    }
    Continue(())
}

/// The local pod that sent the packet. What comes from elsewhere and carries a local pod's address
/// is a lie.
fn source_pod(snapshot: &Snapshot, packet: &Packet) -> ControlFlow<Fate, Option<u32>> {
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
