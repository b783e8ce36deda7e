//! Arrives: an IP packet that the slow path made in the node's name (an error, a refusal, an error
//! of somebody else's translated), behind room for an Ethernet header. Leaves: the packet on its
//! way, without policy, translation or flow: it belongs to connections that were judged.
//!
//! Drops: malformed, martian, no_route, no_headroom. Punts: neighbour, fragment.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_wire::at;
use margay_wire::ethernet;
use margay_wire::ipv4::{self, Ipv4};

use super::{finish, fragment, hop_for, miss, parse};
use crate::batch::{Fate, Frame, Packet, Side};
use crate::snapshot::Snapshot;

/// Sends a packet of the node's own.
pub(super) fn own(snapshot: &Snapshot, frame: &mut Frame<'_>) -> ControlFlow<Fate, Fate> {
    let mut packet = Packet { side: Side::Host, ..Packet::default() };
    let first = at::<{ ipv4::LEN }>(frame.bytes(), ethernet::LEN).map(|b| Ipv4(b).version());
    let parsed = match first {
        Some(4) => parse::ipv4(frame, &mut packet),
        Some(6) => parse::ipv6(frame, &mut packet),
        _ => return parse::dropped(DropReason::Malformed),
    };
    // What the slow path sends may quote anything: only the IP header has to be good.
    if let ControlFlow::Break(Fate::Drop(reason)) = parsed {
        return parse::dropped(reason);
    }
    if parse::is_martian(packet.tuple.dst) {
        return parse::dropped(DropReason::Martian);
    }
    let mut way = miss::Way::new(&packet);
    miss::find(snapshot, &packet, &mut way)?;
    let hop = hop_for(snapshot, way.hop, &packet)?;
    let too_big = packet.ip_len > hop.mtu;
    match finish::finish(frame, hop, packet.tuple.is_v4(), packet.hash) {
        Some(()) if too_big => Continue(fragment(hop, frame, &packet)),
        Some(()) => Continue(Fate::Forward(hop.port)),
        None => parse::dropped(DropReason::NoHeadroom),
    }
}
