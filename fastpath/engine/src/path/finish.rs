//! Arrives: a finished packet and its next hop. Leaves: a frame for the port of the next hop, with
//! outer headers (RFC 2003, RFC 7348) and Ethernet header.
//!
//! Drops: no_headroom.

use margay_tables::addr::Addr;
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::{at, at_mut, protocol, vxlan};

use crate::batch::Frame;
use crate::snapshot::{Adjacency, Outer};

/// TTL of outer headers, as Linux's tunnels have it.
const OUTER_TTL: u8 = 64;

/// Writes everything that stands before the packet. `hash` is the flow's: it spreads the tunnel's
/// packets over paths and queues. `None` where the chunk has no room.
pub(crate) fn finish(frame: &mut Frame<'_>, hop: &Adjacency, v4: bool, hash: u64) -> Option<()> {
    let own = own_ethertype(v4);
    let outermost = match hop.outer {
        Outer::None => own,
        Outer::Arrival => {
            let dst = Ethernet(at(frame.bytes(), 0)?).dst();
            return emit_ethernet(frame, dst, hop.src_mac, own);
        }
        Outer::Departure => {
            let neighbour = Ethernet(at(frame.bytes(), 0)?).src();
            return emit_ethernet(frame, neighbour, hop.src_mac, own);
        }
        Outer::Ipip { src, dst } => {
            ipip(frame, src, dst, hash)?;
            ethertype::IPV4
        }
        Outer::Vxlan { src, dst, port, vni, inner_src, inner_dst } => {
            emit_ethernet(frame, inner_dst, inner_src, own)?;
            let inner = Inner::read(frame, v4, hash)?;
            let source = vxlan::source_port((hash ^ (hash >> 32)) as u32);
            let udp_len = u16::try_from(frame.len + vxlan::LEN + vxlan::UDP_LEN).ok()?;
            push(frame, vxlan::UDP_LEN + vxlan::LEN)?;
            *at_mut(frame.bytes_mut(), 0)? = vxlan::emit(source, port, udp_len, vni);
            outer_ip(frame, src, dst, &inner)?;
            push(frame, ethernet::LEN)?;
            if src.is_v4() { ethertype::IPV4 } else { ethertype::IPV6 }
        }
    };
    emit_ethernet(frame, hop.dst_mac, hop.src_mac, outermost)
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
}

fn emit_ethernet(frame: &mut Frame<'_>, dst: [u8; 6], src: [u8; 6], kind: u16) -> Option<()> {
    Ethernet(at_mut(frame.bytes_mut(), 0)?).emit(dst, src, kind);
    Some(())
}

/// Takes `len` bytes of headroom into the frame.
fn push(frame: &mut Frame<'_>, len: usize) -> Option<()> {
    frame.start = frame.start.checked_sub(len)?;
    frame.len += len;
    Some(())
}

fn ipip(frame: &mut Frame<'_>, src: [u8; 4], dst: [u8; 4], hash: u64) -> Option<()> {
    let inner = Inner::read(frame, true, hash)?;
    let total = u16::try_from(frame.len - ethernet::LEN + ipv4::LEN).ok()?;
    push(frame, ipv4::LEN)?;
    let header = ipv4::Repr {
        traffic_class: inner.class,
        total_len: total,
        identification: inner.identification,
        dont_fragment: inner.dont_fragment,
        ttl: OUTER_TTL,
        protocol: protocol::IPIP,
        src,
        dst,
    };
    *at_mut(frame.bytes_mut(), ethernet::LEN)? = header.emit();
    Some(())
}

/// The IP header before UDP. A VTEP must not fragment (RFC 7348 §4.3): what is too big has been
/// told so, or cut, before. As with IPIP, DF is the inner packet's. The UDP checksum over IPv6 is
/// filled in, as receivers without RFC 6935 demand.
fn outer_ip(frame: &mut Frame<'_>, src: Addr, dst: Addr, inner: &Inner) -> Option<()> {
    let payload_len = u16::try_from(frame.len).ok()?;
    if let (Some(src), Some(dst)) = (src.to_v4_bytes(), dst.to_v4_bytes()) {
        push(frame, ipv4::LEN)?;
        let header = ipv4::Repr {
            traffic_class: inner.class,
            total_len: payload_len.checked_add(ipv4::LEN as u16)?,
            identification: inner.identification,
            dont_fragment: inner.dont_fragment,
            ttl: OUTER_TTL,
            protocol: protocol::UDP,
            src,
            dst,
        };
        *at_mut(frame.bytes_mut(), 0)? = header.emit();
        return Some(());
    }
    let (src, dst) = (src.to_v6_bytes(), dst.to_v6_bytes());
    let sum = margay_wire::checksum::pseudo_header(&src, &dst, protocol::UDP, payload_len.into())
        .bytes(frame.bytes())
        .finish();
    *at_mut(frame.bytes_mut(), 6)? = if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() };
    push(frame, ipv6::LEN)?;
    let header = ipv6::Repr {
        traffic_class: inner.class,
        flow_label: 0,
        payload_len,
        next_header: protocol::UDP,
        hop_limit: OUTER_TTL,
        src,
        dst,
    };
    *at_mut(frame.bytes_mut(), 0)? = header.emit();
    Some(())
}
