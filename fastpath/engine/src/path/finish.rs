//! Arrives: a finished packet and its next hop. Leaves: a frame for the port of the next hop, with
//! outer headers (RFC 2003, RFC 7348) and Ethernet header.
//!
//! Drops: no_headroom.

use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::{at, at_mut, checksum, protocol, vxlan};

use crate::batch::Frame;
use crate::snapshot::{Adjacency, Outer, OuterIp, Vxlan};

/// Writes everything that stands before the packet. `hash` is the flow's: it spreads the tunnel's
/// packets over paths and queues. `None` where the chunk has no room.
pub(crate) fn finish(frame: &mut Frame<'_>, hop: &Adjacency, v4: bool, hash: u64) -> Option<()> {
    let own = own_ethertype(v4);
    let outermost = match &hop.outer {
        Outer::None => own,
        Outer::Arrival => {
            let dst = Ethernet(at(frame.bytes(), 0)?).dst();
            return emit_ethernet(frame, dst, hop.src_mac, own);
        }
        Outer::Departure => {
            let neighbour = Ethernet(at(frame.bytes(), 0)?).src();
            return emit_ethernet(frame, neighbour, hop.src_mac, own);
        }
        Outer::Ipip(tunnel) => in_ipip(frame, &tunnel.ip, hash)?,
        Outer::Vxlan(tunnel) => in_vxlan(frame, tunnel, v4, hash)?,
    };
    emit_ethernet(frame, hop.dst_mac, hop.src_mac, outermost)
}

fn emit_ethernet(frame: &mut Frame<'_>, dst: [u8; 6], src: [u8; 6], kind: u16) -> Option<()> {
    Ethernet(at_mut(frame.bytes_mut(), 0)?).emit(dst, src, kind);
    Some(())
}

/// The Ethertype of a packet without outer headers.
#[inline]
pub(crate) fn own_ethertype(v4: bool) -> u16 {
    if v4 { ethertype::IPV4 } else { ethertype::IPV6 }
}

/// What of the inner header goes into the outer one: class (the mark copied, RFC 6040 §4.1 normal
/// mode), DF (RFC 2003 §3.1).
struct Inner {
    class: u8,
    dont_fragment: bool,
    /// With DF it says nothing and is 0; without, another for each packet of a tunnel, as far as the
    /// inner packets have (RFC 6864 §4): routers between the nodes may cut them.
    identification: u16,
}

impl Inner {
    fn read(frame: &Frame<'_>, v4: bool, hash: u64) -> Option<Self> {
        let bytes = frame.bytes();
        if !v4 {
            // Over IPv6, where neither is told.
            let class = Ipv6(at(bytes, ethernet::LEN)?).traffic_class();
            return Some(Self { class, dont_fragment: false, identification: 0 });
        }
        let view = Ipv4(at(bytes, ethernet::LEN)?);
        let dont_fragment = view.dont_fragment();
        // Fragments of one packet share its identification, packets of two pods may.
        let own = view.identification().wrapping_add(view.fragment_offset());
        let identification = if dont_fragment { 0 } else { own ^ hash as u16 };
        Some(Self { class: view.traffic_class(), dont_fragment, identification })
    }

    fn fill_in(&self, outer: &mut [u8; ipv4::LEN], total_len: u16) {
        Ipv4(outer).fill_in(self.class, total_len, self.identification, self.dont_fragment);
    }
}

/// Takes `len` bytes of headroom into the frame.
fn push(frame: &mut Frame<'_>, len: usize) -> Option<()> {
    frame.start = frame.start.checked_sub(len)?;
    frame.len += len;
    Some(())
}

/// Puts the packet into IPIP; the EtherType of that.
fn in_ipip(frame: &mut Frame<'_>, header: &[u8; ipv4::LEN], hash: u64) -> Option<u16> {
    let inner = Inner::read(frame, true, hash)?;
    let total_len = u16::try_from(frame.len - ethernet::LEN + ipv4::LEN).ok()?;
    push(frame, ipv4::LEN)?;
    let ip = at_mut(frame.bytes_mut(), ethernet::LEN)?;
    *ip = *header;
    inner.fill_in(ip, total_len);
    Some(ethertype::IPV4)
}

/// Puts the packet into VXLAN; the EtherType of that.
///
/// A VTEP must not fragment (RFC 7348 §4.3): what is too big has been told so, or cut, before. As with
/// IPIP, DF is the inner packet's. The UDP checksum over IPv6 is filled in, as receivers without
/// RFC 6935 demand.
fn in_vxlan(frame: &mut Frame<'_>, tunnel: &Vxlan, v4: bool, hash: u64) -> Option<u16> {
    let inner = Inner::read(frame, v4, hash)?;
    let source = vxlan::source_port((hash ^ (hash >> 32)) as u32);
    match &tunnel.ip {
        OuterIp::V4(header) => {
            push(frame, ethernet::LEN + ipv4::LEN + vxlan::UDP_LEN + vxlan::LEN)?;
            let total_len = u16::try_from(frame.len - ethernet::LEN).ok()?;
            // One look at the length for all of them.
            let headers = at_mut::<{ ipv4::LEN + Vxlan::INNER }>(frame.bytes_mut(), ethernet::LEN)?;
            let (ip, udp) = headers.split_first_chunk_mut()?;
            *ip = *header;
            inner.fill_in(ip, total_len);
            write_under(udp, tunnel, v4, source, total_len - ipv4::LEN as u16)?;
            Some(ethertype::IPV4)
        }
        OuterIp::V6(header) => {
            push(frame, ethernet::LEN + ipv6::LEN + vxlan::UDP_LEN + vxlan::LEN)?;
            let payload_len = u16::try_from(frame.len - ethernet::LEN - ipv6::LEN).ok()?;
            let (ip, udp) = frame.bytes_mut().get_mut(ethernet::LEN..)?.split_first_chunk_mut()?;
            *ip = *header;
            let mut ip = Ipv6(ip);
            ip.set_traffic_class(inner.class);
            ip.set_payload_len(payload_len);
            write_under(udp, tunnel, v4, source, payload_len)?;
            let pseudo =
                checksum::pseudo_header(&ip.src(), &ip.dst(), protocol::UDP, payload_len.into());
            let sum = pseudo.bytes(udp).finish();
            *at_mut(udp, 6)? = if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() };
            Some(ethertype::IPV6)
        }
    }
}

/// Writes what stands in VXLAN between the IP headers.
#[inline]
fn write_under(udp: &mut [u8], tunnel: &Vxlan, v4: bool, source: u16, udp_len: u16) -> Option<()> {
    let (headers, rest) = udp.split_first_chunk_mut()?;
    *headers = tunnel.udp;
    vxlan::fill_in(headers, source, udp_len);
    let inner = rest.first_chunk_mut()?;
    *inner = tunnel.ethernet;
    Ethernet(inner).set_ethertype(own_ethertype(v4));
    Some(())
}
