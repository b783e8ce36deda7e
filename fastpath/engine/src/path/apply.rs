//! Arrives: a packet with its decision. Leaves: the packet as the destination is to see it: TTL
//! lowered, addresses and ports translated, checksums right. Nothing is written unless all of it
//! can be.
//!
//! Drops: malformed (cannot happen behind parse; it is the closed end of every length check).

use margay_tables::addr::{Addr, Tuple};
use margay_tables::flow::KeyV4;
use margay_wire::checksum::Delta;
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::transport::{self, IcmpClass};
use margay_wire::{at, at_mut, protocol};

/// Lowers TTL or hop limit by one.
pub(crate) fn lower_ttl(ip: &mut [u8], v4: bool) -> Option<()> {
    if v4 {
        at_mut::<{ ipv4::LEN }>(ip, 0).map(|h| Ipv4(h).lower_ttl())
    } else {
        at_mut::<{ ipv6::LEN }>(ip, 0).map(|h| Ipv6(h).lower_hop_limit())
    }
}

/// Translates the packet at `ip` from `old` to `new`, which are of one family and protocol.
/// `transport` is the offset of the transport header.
pub(crate) fn translate(ip: &mut [u8], transport: usize, old: &Tuple, new: &Tuple) -> Option<()> {
    let addresses = set_addresses(ip, new.src, new.dst)?;
    let body = ip.get_mut(transport..)?;
    translate_body(body, old, new, addresses)
}

/// The same of a TCP segment or UDP datagram behind an IPv4 header without options.
#[inline(always)]
pub(crate) fn translate_v4(ip: &mut [u8], old: KeyV4, new: KeyV4) -> Option<()> {
    let ((src, dst), (new_src, new_dst)) = (old.addresses(), new.addresses());
    let addresses = Delta::default().replace32(src, new_src).replace32(dst, new_dst);
    let change = addresses.replace32(old.ports(), new.ports());
    let (header, body) = ip.split_first_chunk_mut::<{ ipv4::LEN }>()?;
    let sum = at_mut::<2>(body, transport::checksum_offset(old.protocol())?)?;
    let was = u16::from_be_bytes(*sum);
    let is =
        if old.protocol() == protocol::UDP { change.apply_udp(was) } else { change.apply(was) };
    *sum = is.to_be_bytes();
    *body.first_chunk_mut()? = new.ports().to_be_bytes();
    Ipv4(header).set_addresses(new_src.to_be_bytes(), new_dst.to_be_bytes());
    Some(())
}

/// Sets both addresses of an IP header; returns what that makes of a checksum over a
/// pseudo-header.
pub(crate) fn set_addresses(ip: &mut [u8], src: Addr, dst: Addr) -> Option<Delta> {
    if let (Some(src), Some(dst)) = (src.to_v4_bytes(), dst.to_v4_bytes()) {
        let mut view = at_mut(ip, 0).map(Ipv4)?;
        let delta = Delta::default().replace(&view.src(), &src).replace(&view.dst(), &dst);
        view.set_addresses(src, dst);
        Some(delta)
    } else {
        let (src, dst) = (src.to_v6_bytes(), dst.to_v6_bytes());
        let mut view = at_mut(ip, 0).map(Ipv6)?;
        let delta = Delta::default().replace(&view.src(), &src).replace(&view.dst(), &dst);
        view.set_addresses(src, dst);
        Some(delta)
    }
}

/// Translates ports or identifier and mends the transport checksum. `addresses` is the change of
/// the pseudo-header. `body` may be cut short behind the ports (a quotation in an ICMP error):
/// a checksum that is not there needs no mending.
pub(crate) fn translate_body(
    body: &mut [u8],
    old: &Tuple,
    new: &Tuple,
    addresses: Delta,
) -> Option<()> {
    let icmp = matches!(old.protocol, protocol::ICMP | protocol::ICMPV6);
    if icmp {
        return translate_query(body, old, new, addresses);
    }
    let ports =
        addresses.replace16(old.src_port, new.src_port).replace16(old.dst_port, new.dst_port);
    if transport::has_ports(old.protocol) {
        let field = at_mut::<4>(body, 0)?;
        let ([s0, s1], [d0, d1]) = (new.src_port.to_be_bytes(), new.dst_port.to_be_bytes());
        *field = [s0, s1, d0, d1];
    }
    match old.protocol {
        protocol::SCTP if (old.src_port, old.dst_port) != (new.src_port, new.dst_port) => {
            sctp_checksum(body);
        }
        // UDP-Lite has no absent checksum, and writes a sum of zero as UDP does (RFC 3828 §3.1).
        protocol::UDP | protocol::UDPLITE => {
            if let Some(sum) = at_mut::<2>(body, 6) {
                *sum = ports.apply_udp(u16::from_be_bytes(*sum)).to_be_bytes();
            }
        }
        other => {
            if let Some(sum) = transport::checksum_offset(other).and_then(|o| at_mut(body, o)) {
                *sum = ports.apply(u16::from_be_bytes(*sum)).to_be_bytes();
            }
        }
    }
    Some(())
}

/// Lowers the maximum segment size that a SYN tells to `most` (RFC 9293 §3.7.1), if it tells a larger
/// one. `tcp` begins with the TCP header, whose length was checked.
pub(crate) fn clamp_mss(tcp: &mut [u8], header_len: usize, most: u16) -> Option<()> {
    let at = transport::tcp_option(tcp.get(..header_len)?, 2, 2)?;
    let field = at_mut::<2>(tcp, at)?;
    let told = u16::from_be_bytes(*field);
    if told <= most {
        return Some(());
    }
    *field = most.to_be_bytes();
    // A field at an odd offset lies across two words of the sum.
    let word = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
    let sum = at_mut::<2>(tcp, transport::checksum_offset(protocol::TCP)?)?;
    let changed = Delta::default().replace16(word(told), word(most));
    *sum = changed.apply(u16::from_be_bytes(*sum)).to_be_bytes();
    Some(())
}

/// ICMP queries: the identifier is the "port" of the side that asked.
fn translate_query(body: &mut [u8], old: &Tuple, new: &Tuple, addresses: Delta) -> Option<()> {
    let &[kind, ..] = at::<8>(body, 0)?;
    let ids = match transport::icmp_class(old.protocol, kind) {
        IcmpClass::Request => (old.src_port, new.src_port),
        IcmpClass::Reply => (old.dst_port, new.dst_port),
        _ => (0, 0),
    };
    // ICMP for IPv4 has no pseudo-header.
    let base = if old.protocol == protocol::ICMPV6 { addresses } else { Delta::default() };
    let sum = at_mut::<2>(body, 2)?;
    *sum = base.replace16(ids.0, ids.1).apply(u16::from_be_bytes(*sum)).to_be_bytes();
    if ids.0 != ids.1 {
        *at_mut::<2>(body, 4)? = ids.1.to_be_bytes();
    }
    // Of nothing but zeros the sum is zero, which a difference cannot tell from minus zero (RFC 1624
    // §3): an answer without data to the first question of identifier 0.
    if body.iter().all(|byte| *byte == 0) {
        *at_mut(body, 2)? = [0xff; 2];
    }
    Some(())
}

/// Writes SCTP's CRC32c. It covers the ports, so a changed port needs it anew (RFC 9260 §6.8).
pub(super) fn sctp_checksum(body: &mut [u8]) {
    let Some(field) = at_mut::<4>(body, 8) else { return };
    *field = [0; 4];
    let sum = crc32c::crc32c(body);
    if let Some(field) = at_mut::<4>(body, 8) {
        *field = sum.to_le_bytes();
    }
}
