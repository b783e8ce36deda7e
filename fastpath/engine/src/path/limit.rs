//! Arrives: a packet that is about to leave for its next hop, where some pod of the node has limits.
//! Leaves: when it may go, and marked as its pod wants it.
//!
//! Only what would be forwarded uses up a limit, and uses it up once, whichever detours it took. A
//! packet between two limited pods waits for the stricter of both; refused by one it has cost the
//! other nothing.
//!
//! Drops: packet_rate, bandwidth.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_tables::addr::Addr;
use margay_wire::ipv4::Ipv4;
use margay_wire::ipv6::Ipv6;
use margay_wire::{at_mut, ethernet};

use super::parse::dropped;
use crate::batch::{Fate, Frame, Packet, Side};
use crate::bucket::Bucket;
use crate::snapshot::{Adjacency, Buckets, PortId, Snapshot};

/// How long after `now` (nanoseconds) the packet may leave, in nanoseconds.
#[inline]
pub(super) fn limit(
    snapshot: &Snapshot,
    now: u64,
    packet: &Packet,
    hop: &Adjacency,
) -> ControlFlow<Fate, u32> {
    let of = |port| snapshot.limits_of(port);
    match (of(packet.port), of(hop.port)) {
        (None, None) => Continue(0),
        (from, to) => {
            let (egress, ingress) = (from.map(|l| &l.egress), to.map(|l| &l.ingress));
            take(now, u64::from(packet.ip_len), egress, ingress)
        }
    }
}

/// Takes a packet of so many bytes out of the buckets of both ends. Of packets first: they are not
/// kept waiting.
#[cold]
fn take(
    now: u64,
    ip_len: u64,
    egress: Option<&Buckets>,
    ingress: Option<&Buckets>,
) -> ControlFlow<Fate, u32> {
    let bits = (ip_len + ethernet::LEN as u64) * 8;
    let ends = [egress, ingress];
    let packets = ends.map(|end| (end.and_then(|e| e.packets.as_ref()), 1, DropReason::PacketRate));
    let rate = ends.map(|end| (end.and_then(|e| e.bits.as_ref()), bits, DropReason::Bandwidth));
    let peak = ends.map(|end| (end.and_then(|e| e.peak.as_ref()), bits, DropReason::Bandwidth));
    let all = [packets, rate, peak];
    let mut due = now;
    for (nth, (bucket, amount, reason)) in asked(&all).enumerate() {
        match bucket.take(now, amount) {
            Some(at) => due = due.max(at),
            None => {
                asked(&all).take(nth).for_each(|(bucket, amount, _)| bucket.put_back(amount));
                return dropped(reason);
            }
        }
    }
    // No bucket lets anything wait for more than a second.
    Continue(u32::try_from(due - now).unwrap_or(u32::MAX))
}

/// A bucket that may be there, what is taken out of it, and why a packet is dropped where that fails.
type Asked<'m> = (Option<&'m Bucket>, u64, DropReason);

fn asked<'m>(all: &[[Asked<'m>; 2]; 3]) -> impl Iterator<Item = (&'m Bucket, u64, DropReason)> {
    let all = all.iter().flatten();
    all.filter_map(|(bucket, amount, reason)| Some(((*bucket)?, *amount, *reason)))
}

/// Marks a packet that a pod, or the node itself by an uplink with a host endpoint, sends out of the
/// cluster: not to a pool's addresses, nor to a node's. What is put around the packet afterwards takes
/// the mark over (RFC 2983 §3.1, uniform model). `src` and `dst` are what it leaves with.
pub(super) fn mark(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
    (src, dst): (Addr, Addr),
    hop: &Adjacency,
) {
    let dscp = match packet.side {
        Side::Host if snapshot.is_own(src) => snapshot.dscp_of_host(hop.port),
        Side::Host => None,
        _ => snapshot.limits_of(packet.port).and_then(|limits| limits.dscp),
    };
    if let Some(dscp) = dscp
        && is_outside(snapshot, dst)
    {
        set_dscp(frame, packet.tuple.is_v4(), dscp.get());
    }
}

fn is_outside(snapshot: &Snapshot, dst: Addr) -> bool {
    !snapshot.pool(dst).pooled && !snapshot.is_own(dst) && !snapshot.tunnel_peers.contains_key(&dst)
}

/// Sets the code point and leaves ECN as it is (RFC 2474 §3).
fn set_dscp(frame: &mut Frame<'_>, v4: bool, dscp: u8) {
    let class = |old: u8| dscp << 2 | old & 0b11;
    let bytes = frame.bytes_mut();
    // Parse has checked that there is a header.
    if v4 {
        if let Some(mut ip) = at_mut(bytes, ethernet::LEN).map(Ipv4) {
            ip.set_traffic_class(class(ip.traffic_class()));
        }
    } else if let Some(mut ip) = at_mut(bytes, ethernet::LEN).map(Ipv6) {
        ip.set_traffic_class(class(ip.traffic_class()));
    }
}

/// Where a packet goes that may leave after so many nanoseconds.
pub(super) fn when(port: PortId, delay: u32) -> ControlFlow<Fate, PortId> {
    if delay == 0 { Continue(port) } else { ControlFlow::Break(Fate::Later(port, delay)) }
}
