//! Arrives: a packet from the wire that ends at this node and is a tunnel's. Leaves: the inner
//! frame, its congestion marks merged with the outer ones (RFC 6040 §4.2).
//!
//! Drops: unknown_tunnel_peer, tunnel_malformed, tunnel_ecn.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_tables::addr::Addr;
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::{at, at_mut, protocol, vxlan};

use super::parse::dropped;
use crate::batch::{Fate, Frame, Ingress, Kind, Packet, set_handed_on};
use crate::snapshot::{DIRECT_VNI, PortId, Snapshot};

/// A kind of tunnel that can end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tunnel {
    Ipip,
    Vxlan,
}

impl Tunnel {
    /// Length of what stands between the outer IP header and the inner one.
    const fn headers(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Vxlan => vxlan::UDP_LEN + vxlan::LEN + ethernet::LEN,
        }
    }
}

/// Whether the packet is a tunnel's that ends at this node.
pub(crate) fn tunnel(snapshot: &Snapshot, packet: &Packet) -> Option<Tunnel> {
    let tuple = &packet.tuple;
    if packet.kind != Kind::Tracked || !snapshot.tunnel_ends.contains(&tuple.dst) {
        return None;
    }
    match tuple.protocol {
        protocol::IPIP => Some(Tunnel::Ipip),
        protocol::UDP if tuple.dst_port == snapshot.settings.vxlan_port => Some(Tunnel::Vxlan),
        _ => None,
    }
}

/// Takes the packet out of its tunnel: afterwards the frame starts at the inner Ethernet header
/// (of IPIP: at room for one).
pub(crate) fn decap(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &Packet,
    tunnel: Tunnel,
) -> ControlFlow<Fate> {
    if !snapshot.tunnel_peers.contains_key(&packet.tuple.src) {
        return dropped(DropReason::UnknownTunnelPeer);
    }
    let outer = ethernet::LEN + usize::from(packet.transport);
    let ecn = outer_class(frame, packet) & 3;
    let handed_on = match tunnel {
        Tunnel::Ipip => false,
        Tunnel::Vxlan => match at(frame.bytes(), outer + vxlan::UDP_LEN).and_then(vxlan::vni) {
            Some(vni) if vni == snapshot.settings.vxlan_vni => false,
            Some(DIRECT_VNI) => true,
            _ => return dropped(DropReason::TunnelMalformed),
        },
    };
    if uncover(frame, tunnel, outer + tunnel.headers(), handed_on).is_none() {
        return dropped(DropReason::TunnelMalformed);
    }
    merge_ecn(frame, ecn)
}

/// The same of a packet that came by a port from outside, whose IP header has neither options nor
/// extensions. Whatever may be wrong with it is left to be found by who knows what to say: it is as it
/// came then.
pub(super) fn open(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    port: PortId,
    tunnel: Tunnel,
) -> Option<()> {
    let outer = OuterIp::read(frame.bytes())?;
    let bytes = frame.bytes().get(..outer.end)?;
    let inner = outer.transport + tunnel.headers();
    let kind = match tunnel {
        Tunnel::Ipip => ethertype::IPV4,
        Tunnel::Vxlan => {
            let vni = vxlan::vni(at(bytes, outer.transport + vxlan::UDP_LEN)?)?;
            let kind = Ethernet(at(bytes, inner - ethernet::LEN)?).ethertype();
            (vni == snapshot.settings.vxlan_vni).then_some(kind)?
        }
    };
    // Marks that are to be merged are seldom.
    let marked = (outer.class ^ class_at(bytes, inner, kind)?) & 3 != 0;
    if marked || !snapshot.tunnel_ends.contains(&outer.dst) {
        return None;
    }
    snapshot.tunnel_peers.get(&outer.src)?;
    (frame.len, frame.ingress) = (outer.end, Ingress::Tunnel(port));
    uncover(frame, tunnel, inner, false)
}

/// The IP header of a tunnel's packet, as far as it matters.
struct OuterIp {
    src: Addr,
    dst: Addr,
    class: u8,
    /// Offset of what follows it in the frame.
    transport: usize,
    /// Offset of what follows the packet.
    end: usize,
}

impl OuterIp {
    #[inline(always)]
    fn read(bytes: &[u8]) -> Option<Self> {
        let kind = Ethernet(at(bytes, 0)?).ethertype();
        let class = class_at(bytes, ethernet::LEN, kind)?;
        let (src, dst, header, len) = if kind == ethertype::IPV4 {
            let ip = Ipv4(at::<{ ipv4::LEN }>(bytes, ethernet::LEN)?);
            let len = usize::from(ip.total_len());
            (Addr::from(ip.src()), Addr::from(ip.dst()), ipv4::LEN, len)
        } else {
            let ip = Ipv6(at::<{ ipv6::LEN }>(bytes, ethernet::LEN)?);
            let len = ipv6::LEN + usize::from(ip.payload_len());
            let (src, dst) = (Addr::from(ip.src()), Addr::from(ip.dst()));
            // An IPv4 address in IPv6 clothes would be taken for a tunnel's end.
            (!src.is_v4() && !dst.is_v4()).then_some((src, dst, ipv6::LEN, len))?
        };
        let (transport, end) = (ethernet::LEN + header, ethernet::LEN + len);
        Some(Self { src, dst, class, transport, end })
    }
}

/// The traffic class of the IP header at an offset, by its Ethertype.
fn class_at(bytes: &[u8], offset: usize, kind: u16) -> Option<u8> {
    match kind {
        ethertype::IPV4 => Some(Ipv4(at::<{ ipv4::LEN }>(bytes, offset)?).traffic_class()),
        ethertype::IPV6 => Some(Ipv6(at::<{ ipv6::LEN }>(bytes, offset)?).traffic_class()),
        _ => None,
    }
}

/// Has a frame begin with the Ethernet header before the inner IP header, which is at `inner`, and say
/// whether another node handed it on. `None` where there is no such header.
#[inline(always)]
fn uncover(frame: &mut Frame<'_>, tunnel: Tunnel, inner: usize, handed_on: bool) -> Option<()> {
    let skip = inner - ethernet::LEN;
    frame.start += skip;
    frame.len = frame.len.checked_sub(skip)?;
    match tunnel {
        Tunnel::Ipip => {
            Ethernet(at_mut(frame.bytes_mut(), 0)?).emit([0; 6], [0; 6], ethertype::IPV4);
            Some(())
        }
        Tunnel::Vxlan => set_handed_on(frame.bytes_mut(), handed_on),
    }
}

fn outer_class(frame: &Frame<'_>, packet: &Packet) -> u8 {
    let bytes = frame.bytes();
    if packet.tuple.src.is_v4() {
        at::<{ ipv4::LEN }>(bytes, ethernet::LEN).map_or(0, |h| Ipv4(h).traffic_class())
    } else {
        at::<{ ipv6::LEN }>(bytes, ethernet::LEN).map_or(0, |h| Ipv6(h).traffic_class())
    }
}

/// RFC 6040 figure 4: what the inner mark becomes, by inner and outer mark.
fn merge_ecn(frame: &mut Frame<'_>, outer: u8) -> ControlFlow<Fate> {
    const CE: u8 = 3;
    const ECT1: u8 = 1;
    let merged = |inner: u8| match (inner & 3, outer) {
        (0, CE) => None,
        (0, _) => Some(inner),
        (_, CE) => Some(inner | CE),
        (2, ECT1) => Some(inner & !3 | ECT1),
        _ => Some(inner),
    };
    let bytes = frame.bytes_mut();
    let Some(kind) = at(bytes, 0).map(|h| Ethernet(h).ethertype()) else {
        return dropped(DropReason::TunnelMalformed);
    };
    match kind {
        ethertype::IPV4 => {
            let Some(mut view) = at_mut(bytes, ethernet::LEN).map(Ipv4) else {
                return dropped(DropReason::TunnelMalformed);
            };
            let Some(class) = merged(view.traffic_class()) else {
                return dropped(DropReason::TunnelEcn);
            };
            if class != view.traffic_class() {
                view.set_traffic_class(class);
            }
        }
        ethertype::IPV6 => {
            let Some(mut view) = at_mut(bytes, ethernet::LEN).map(Ipv6) else {
                return dropped(DropReason::TunnelMalformed);
            };
            let Some(class) = merged(view.traffic_class()) else {
                return dropped(DropReason::TunnelEcn);
            };
            view.set_traffic_class(class);
        }
        _ => return dropped(DropReason::TunnelMalformed),
    }
    Continue(())
}
