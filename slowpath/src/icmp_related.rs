//! ICMP errors of others about connections of ours: the quotation is translated back, so that the
//! sender of the quoted packet knows its own (RFC 5508, section 4).
//!
//! Arrives: [`Request::IcmpError`](crate::Request::IcmpError). Leaves: the translated error on its
//! way to the quoted packet's sender; a smaller path MTU where the quoted packet is a tunnel's; or
//! a drop.

use std::net::IpAddr;

use margay_model::flow::FlowTuple;
use margay_model::reason::DropReason;
use margay_wire::transport::{IcmpClass, icmp_class};
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use crate::icmp_error;
use crate::packet::{ICMP, ICMPV6, IPV6_LEN, IpView, TCP, UDP};

/// Length of an ICMP error's own header, of both families.
const ICMP_LEN: usize = 8;
/// What to do about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Related {
    /// An IP packet to be routed, its TTL already one less.
    Forward(Vec<u8>),
    /// The quoted packet is the outer one of a tunnel: its path takes less.
    PathMtu {
        /// The tunnel's far end.
        peer: IpAddr,
        /// Largest outer IP packet, in bytes.
        mtu: u16,
    },
    /// It is about nothing of ours, or makes no sense.
    Refused(DropReason),
}

/// Source and destination of the packet that the ICMP error at the start of `bytes` quotes.
pub fn quoted_ends(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let quoted = quotation(&IpView::parse(bytes)?)?;
    Some((quoted.src, quoted.dst))
}

/// Translates the ICMP error in the IP packet at the start of `bytes`. With a `vxlan_port` it may be
/// about a packet of this node's tunnels: of IP in IP, or of UDP to that port.
///
/// `flows` answers for packets as they arrive: the quoted packet was sent by this node or through
/// it, so an answer to it would arrive with the reverse of its tuple, and that answer's translation,
/// reversed again, is the quoted packet as its sender knows it.
pub fn translate(
    bytes: &[u8],
    vxlan_port: Option<u16>,
    flows: &dyn Fn(&FlowTuple) -> Option<FlowTuple>,
) -> Related {
    let Some(outer) = IpView::parse(bytes) else { return Related::Refused(DropReason::Malformed) };
    let Some(quoted) = quotation(&outer) else { return Related::Refused(DropReason::Malformed) };
    if !is_intact(&outer) {
        return Related::Refused(DropReason::Malformed);
    }
    if let Some(mtu) = vxlan_port.and_then(|port| tunnel_mtu(&outer, &quoted, port)) {
        return Related::PathMtu { peer: quoted.dst, mtu };
    }
    let Some(sent) = tuple(&quoted) else { return Related::Refused(DropReason::InvalidState) };
    let arriving = reversed(&sent);
    let Some(delivered) = flows(&arriving) else {
        return Related::Refused(DropReason::InvalidState);
    };
    let same_family = delivered.src.is_ipv4() == outer.src.is_ipv4()
        && delivered.dst.is_ipv4() == outer.src.is_ipv4();
    if !same_family {
        return Related::Refused(DropReason::InvalidState);
    }
    // An error by the far end itself is told in the name of the address its peer knows it by; a
    // router between them keeps its own.
    let src = if outer.src == arriving.src { delivered.src } else { outer.src };
    match rewrite(&outer, &quoted, src, &reversed(&delivered)) {
        Some(packet) => Related::Forward(packet),
        None => Related::Refused(DropReason::TtlExpired),
    }
}

/// The packet that an ICMP error quotes.
fn quotation<'a>(outer: &IpView<'a>) -> Option<IpView<'a>> {
    let family_fits = match outer.src {
        IpAddr::V4(_) => outer.protocol == ICMP,
        IpAddr::V6(_) => outer.protocol == ICMPV6,
    };
    if !family_fits || outer.part.is_some() || !icmp_error::is_error(outer) {
        return None;
    }
    let quoted = IpView::parse_quoted(outer.payload().get(ICMP_LEN..)?)?;
    (quoted.src.is_ipv4() == outer.src.is_ipv4()).then_some(quoted)
}

/// Whether the error's checksum is right: one computed anew would hide that it was not (RFC 5508,
/// section 4.2).
fn is_intact(outer: &IpView<'_>) -> bool {
    match (outer.src, outer.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            Icmpv6Packet::new_checked(outer.payload()).is_ok_and(|p| p.verify_checksum(&src, &dst))
        }
        _ => Icmpv4Packet::new_checked(outer.payload()).is_ok_and(|p| p.verify_checksum()),
    }
}

/// The MTU told about the outer packet of an IPIP or VXLAN tunnel.
fn tunnel_mtu(outer: &IpView<'_>, quoted: &IpView<'_>, vxlan_port: u16) -> Option<u16> {
    let port = || Some(u16::from_be_bytes(quoted.payload().get(2..4)?.try_into().ok()?));
    let is_tunnel = match IpProtocol::from(quoted.protocol) {
        // IP in IP (RFC 2003), for which smoltcp has no name.
        IpProtocol::Unknown(4) => true,
        IpProtocol::Udp => port() == Some(vxlan_port),
        _ => false,
    };
    // Who is told is who sent it.
    if !is_tunnel || quoted.is_later_fragment() || outer.dst != quoted.src {
        return None;
    }
    let icmp = outer.payload();
    match outer.src {
        IpAddr::V4(_) => {
            let packet = Icmpv4Packet::new_checked(icmp).ok()?;
            let too_big =
                packet.msg_type() == Icmpv4Message::DstUnreachable && packet.msg_code() == 4;
            let mtu = u16::from_be_bytes(icmp.get(6..8)?.try_into().ok()?);
            too_big.then_some(mtu).filter(|mtu| *mtu > 0)
        }
        IpAddr::V6(_) => {
            let packet = Icmpv6Packet::new_checked(icmp).ok()?;
            let too_big = packet.msg_type() == Icmpv6Message::PktTooBig;
            too_big.then(|| u16::try_from(packet.pkt_too_big_mtu()).unwrap_or(u16::MAX))
        }
    }
}

/// The tuple of a quoted packet, of which eight bytes behind the IP header are enough.
fn tuple(quoted: &IpView<'_>) -> Option<FlowTuple> {
    if quoted.is_later_fragment() {
        return None;
    }
    let word = |at: usize| {
        let bytes = quoted.payload().get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let (src_port, dst_port) = match quoted.protocol {
        TCP | UDP | SCTP | UDP_LITE => (word(0)?, word(2)?),
        ICMP | ICMPV6 => match icmp_class(quoted.protocol, *quoted.payload().first()?) {
            IcmpClass::Request => (word(4)?, 0),
            IcmpClass::Reply => (0, word(4)?),
            _ => return None,
        },
        _ => (0, 0),
    };
    let (src, dst, protocol) = (quoted.src, quoted.dst, quoted.protocol);
    Some(FlowTuple { src, dst, protocol, src_port, dst_port })
}

const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// The tuple of an answer.
pub fn reversed(tuple: &FlowTuple) -> FlowTuple {
    FlowTuple {
        src: tuple.dst,
        dst: tuple.src,
        protocol: tuple.protocol,
        src_port: tuple.dst_port,
        dst_port: tuple.src_port,
    }
}

/// The error with `src` and the quoted packet's sender as addresses, quoting the packet with the
/// tuple `sent`. `None` where the TTL runs out.
fn rewrite(
    outer: &IpView<'_>,
    quoted: &IpView<'_>,
    src: IpAddr,
    sent: &FlowTuple,
) -> Option<Vec<u8>> {
    let mut packet = outer.whole.to_vec();
    let quote_start = outer.payload_start + ICMP_LEN;
    rewrite_quoted(packet.get_mut(quote_start..)?, quoted, sent)?;
    match (src, sent.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            Icmpv4Packet::new_unchecked(packet.get_mut(outer.payload_start..)?).fill_checksum();
            let mut ip = Ipv4Packet::new_unchecked(&mut packet);
            ip.set_hop_limit(ip.hop_limit().checked_sub(1).filter(|ttl| *ttl > 0)?);
            ip.set_src_addr(src);
            ip.set_dst_addr(dst);
            ip.fill_checksum();
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            Icmpv6Packet::new_unchecked(packet.get_mut(outer.payload_start..)?)
                .fill_checksum(&src, &dst);
            let mut ip = Ipv6Packet::new_unchecked(&mut packet);
            ip.set_hop_limit(ip.hop_limit().checked_sub(1).filter(|hops| *hops > 0)?);
            ip.set_src_addr(src);
            ip.set_dst_addr(dst);
        }
        _ => return None,
    }
    Some(packet)
}

/// Gives the quotation its sender's addresses and ports, and adjusts its checksums: the IPv4
/// header's by computing it, the transport's by difference (RFC 1624), as its data may be missing.
fn rewrite_quoted(bytes: &mut [u8], quoted: &IpView<'_>, sent: &FlowTuple) -> Option<()> {
    let mut change = Difference::default();
    let start = quoted.payload_start;
    match (quoted.src, quoted.dst, sent.src, sent.dst) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(new_a), IpAddr::V4(new_b)) => {
            change.replace(&a.octets(), &new_a.octets());
            change.replace(&b.octets(), &new_b.octets());
            let mut ip = Ipv4Packet::new_unchecked(&mut *bytes);
            ip.set_src_addr(new_a);
            ip.set_dst_addr(new_b);
            ip.fill_checksum();
        }
        (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(new_a), IpAddr::V6(new_b)) => {
            change.replace(&a.octets(), &new_a.octets());
            change.replace(&b.octets(), &new_b.octets());
            bytes.get(..IPV6_LEN)?;
            let mut ip = Ipv6Packet::new_unchecked(&mut *bytes);
            ip.set_src_addr(new_a);
            ip.set_dst_addr(new_b);
        }
        _ => return None,
    }
    if quoted.protocol == ICMP {
        // ICMP's checksum covers no addresses.
        change = Difference::default();
    }
    let transport = bytes.get_mut(start..)?;
    let (ports, checksum_at) = match quoted.protocol {
        TCP => (2, Some(16)),
        UDP | UDP_LITE => (2, Some(6)),
        // The checksum of SCTP covers no addresses and cannot be adjusted by difference; whoever
        // reads a quotation of SCTP looks at ports and verification tag (RFC 9260, appendix C).
        SCTP => (2, None),
        ICMP | ICMPV6 => (1, Some(2)),
        _ => (0, None),
    };
    let fields: &[(usize, u16)] = match ports {
        2 => &[(0, sent.src_port), (2, sent.dst_port)],
        // The identifier: a request has it as its source, a reply as its destination.
        1 => &[(4, sent.src_port.max(sent.dst_port))],
        _ => &[],
    };
    for (at, value) in fields {
        let field = transport.get_mut(*at..at + 2)?;
        change.replace(field, &value.to_be_bytes());
        field.copy_from_slice(&value.to_be_bytes());
    }
    if let Some(field) = checksum_at.and_then(|at: usize| transport.get_mut(at..at + 2)) {
        let old = u16::from_be_bytes([*field.first()?, *field.get(1)?]);
        // UDP over IPv4 without a checksum stays so.
        if !(quoted.protocol == UDP && old == 0) {
            field.copy_from_slice(&change.apply(old).to_be_bytes());
        }
    }
    Some(())
}

/// The sum of what is taken from and put to a one's complement sum (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default)]
struct Difference(u32);

impl Difference {
    /// Words of `old` are replaced by those of `new`, of the same even length.
    fn replace(&mut self, old: &[u8], new: &[u8]) {
        for pair in old.chunks_exact(2) {
            self.0 += u32::from(!u16::from_be_bytes([pair[0], pair[1]]));
        }
        for pair in new.chunks_exact(2) {
            self.0 += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
    }

    /// The checksum after the replacements.
    fn apply(self, checksum: u16) -> u16 {
        let mut sum = u32::from(!checksum) + self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}
