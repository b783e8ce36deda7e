//! Arrives: an allowed packet. Leaves: the source address it is to carry, and whether its port may
//! stay; the port is chosen with the flow, which is what knows the taken ones.
//!
//! Drops and punts: none.

use margay_tables::addr::Addr;

use super::Way;
use crate::batch::{Packet, Side};
use crate::conntrack;
use crate::snapshot::{Adjacency, HAIRPIN_V4, HAIRPIN_V6, HopKey, Snapshot};

/// Chooses the source address.
pub(super) fn snat(snapshot: &Snapshot, packet: &Packet, way: &mut Way) {
    if way.is_kernels {
        // It has the source that the kernel, or its sender, gave it.
        return;
    }
    // What ends at the node comes back through the host port whoever sent it, unless the node
    // itself did: then it needs a source that is not the node's.
    let own = packet.side == Side::Host && snapshot.is_own(way.to.src);
    if way.to_host {
        if own && way.translated {
            way.to.src = hairpin(way.to.dst);
        }
        return;
    }
    let Some(source) = way.source.or_else(|| snapshot.node_address(way.to.dst)) else { return };
    // The node's own packets carry the address that their answers come back to: the tunnel's,
    // where every way between nodes is a tunnel.
    let wrong_end = own && way.source.is_some_and(|tunnel| tunnel != way.to.src);
    // An answer from outside the pools is told from the node's other traffic by its port alone.
    way.fresh_port = own && way.translated && !snapshot.pool(way.to.dst).pooled;
    if wrong_end || (way.masquerade && !own) || leaves_pools(snapshot, way) {
        way.to.src = source;
    }
}

/// A source for packets of the node to a service that the node itself serves: the answers to it
/// are routed to the host port, where an address of the node's own would keep them in the kernel.
fn hairpin(dst: Addr) -> Addr {
    if dst.is_v4() { HAIRPIN_V4.into() } else { HAIRPIN_V6.into() }
}

/// Whether answers will come to the node's own address by an uplink, with nothing but their addresses
/// to tell whose they are.
pub(super) fn is_answered_without_ports(snapshot: &Snapshot, packet: &Packet, way: &Way) -> bool {
    let by_uplink = |hop: &Adjacency| matches!(hop.key, HopKey::Neighbour(..) | HopKey::Link(_));
    conntrack::is_portless(way.to.protocol)
        && way.to.src != packet.tuple.src
        && snapshot.adjacency(way.hop).is_some_and(by_uplink)
}

/// Whether the packet leaves all pools from one with natOutgoing.
fn leaves_pools(snapshot: &Snapshot, way: &Way) -> bool {
    snapshot.pool(way.to.src).nat_outgoing && !snapshot.pool(way.to.dst).pooled
}
