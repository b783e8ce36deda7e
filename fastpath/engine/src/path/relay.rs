//! Arrives: an ICMP error that parse would have the slow path translate. Leaves: the same for the
//! slow path; or, about an answer that another node gave directly, the error as it is on its way to that
//! node, which knows what it is about.
//!
//! Drops: too_big, ttl_expired, no_route, no_headroom. Punts: neighbour, unreachable.

use std::ops::ControlFlow::{self, Break, Continue};

use margay_model::DropReason;
use margay_tables::addr::{Addr, Tuple};
use margay_tables::flow::{Dir, FlowRef};
use margay_wire::ethernet;
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::{at, transport};

use super::parse::dropped;
use super::{apply, finish, hop_for, miss};
use crate::Engine;
use crate::batch::{Fate, Frame, Packet, Side};
use crate::conntrack::HANDED_ON;
use crate::snapshot::{PortId, Snapshot};

/// Length of an ICMP header, of either family.
const ICMP_LEN: usize = 8;

/// Sends an error on to the node that gave the answer which it is about; `fate` where it is about
/// something else.
#[cold]
pub(super) fn relay(
    engine: &Engine<'_>,
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
    fate: Fate,
) -> ControlFlow<Fate, PortId> {
    let Some(flow) = concerned(engine, frame, packet) else { return Break(fate) };
    let about = Packet { tuple: flow.tuple(), hash: engine.hash(&flow.tuple()), ..*packet };
    let mut way = miss::Way::of(flow, &about);
    miss::find(snapshot, &about, &mut way)?;
    let hop = hop_for(snapshot, way.hop, packet)?;
    if packet.ip_len > hop.mtu {
        return dropped(DropReason::TooBig);
    }
    let v4 = packet.tuple.is_v4();
    let ip = frame.bytes_mut().get_mut(ethernet::LEN..);
    if packet.ttl <= 1 || ip.and_then(|ip| apply::lower_ttl(ip, v4)).is_none() {
        return dropped(DropReason::TtlExpired);
    }
    match finish::finish(frame, hop, v4, about.hash) {
        Some(()) => Continue(hop.port),
        None => dropped(DropReason::NoHeadroom),
    }
}

/// The connection that was handed on and whose answer an error from outside quotes, by the direction
/// that this node hears.
fn concerned<'t>(engine: &Engine<'t>, frame: &Frame<'_>, packet: &Packet) -> Option<FlowRef<'t>> {
    if packet.side != Side::Wire || packet.tunneled {
        return None;
    }
    let at = ethernet::LEN + usize::from(packet.transport) + ICMP_LEN;
    let asked = quoted(frame.bytes().get(at..)?)?.reversed();
    let flow = engine.lookup(&asked, engine.hash(&asked))?;
    let handed_on = flow.marks() & HANDED_ON != 0 && flow.dir() == Dir::Orig && !flow.is_denial();
    handed_on.then_some(flow)
}

/// The tuple of a quoted packet with ports, which may be cut short behind them.
fn quoted(ip: &[u8]) -> Option<Tuple> {
    let (src, dst, protocol, body) = match at(ip, 0).map(|b: &[u8; ipv4::LEN]| Ipv4(b)) {
        Some(v4) if v4.version() == 4 => {
            (v4.src().into(), v4.dst().into(), v4.protocol(), v4.header_len())
        }
        _ => {
            let v6 = Ipv6(at::<{ ipv6::LEN }>(ip, 0)?);
            let payload = ipv6::payload(ip)?;
            (Addr::from(v6.src()), v6.dst().into(), payload.protocol, payload.offset)
        }
    };
    if !transport::has_ports(protocol) {
        return None;
    }
    let (src_port, dst_port) = transport::ports(at(ip.get(body..)?, 0)?);
    Some(Tuple { src, dst, src_port, dst_port, protocol, zone: 0 })
}
