//! Views and headers that the machines share; the codecs themselves are smoltcp's.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet,
    Ipv6ExtHeader, Ipv6FragmentHeader, Ipv6Packet, UdpPacket,
};

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Length of an IPv6 header without extensions.
pub const IPV6_LEN: usize = 40;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// More extension headers than this are taken for an attack.
const MAX_EXTENSIONS: usize = 8;

/// Which part of a datagram a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Identification.
    pub ident: u32,
    /// Offset of `payload` in the datagram's, in bytes.
    pub offset: usize,
    /// Whether more follows.
    pub more: bool,
}

/// A checked IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpView<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol number of `payload`, behind IPv6 extension headers.
    pub protocol: u8,
    /// The packet without what the Ethernet frame carries behind it; a quotation may be shorter
    /// than its headers say.
    pub whole: &'a [u8],
    /// Offset in `whole` of `payload`.
    pub payload_start: usize,
    /// `None` for a whole datagram. An IPv6 packet with a fragment header is always a part, though
    /// it may be the only one.
    pub part: Option<Part>,
    /// IPv6 with a fragment header: its offset in `whole`, and that of the byte that names it.
    pub fragment_header: Option<(usize, usize)>,
}

// === impl IpView ===

impl<'a> IpView<'a> {
    /// The packet at the start of `bytes`; `None` where it is cut short or contradicts itself.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::read(bytes, false)
    }

    /// The same for the quotation in an ICMP error, which may end early.
    pub fn parse_quoted(bytes: &'a [u8]) -> Option<Self> {
        Self::read(bytes, true)
    }

    /// What follows the IP headers.
    pub fn payload(&self) -> &'a [u8] {
        self.whole.get(self.payload_start..).unwrap_or_default()
    }

    /// Whether this is a fragment other than its datagram's first.
    pub fn is_later_fragment(&self) -> bool {
        self.part.is_some_and(|p| p.offset != 0)
    }

    fn read(bytes: &'a [u8], quoted: bool) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::read_v4(bytes, quoted),
            6 => Self::read_v6(bytes, quoted),
            _ => None,
        }
    }

    fn read_v4(bytes: &'a [u8], quoted: bool) -> Option<Self> {
        let header_len = usize::from(bytes.first()? & 0xf) * 4;
        if header_len < 20 || bytes.len() < header_len {
            return None;
        }
        let packet = Ipv4Packet::new_unchecked(bytes);
        let total = usize::from(packet.total_len());
        if total < header_len || (!quoted && total > bytes.len()) {
            return None;
        }
        let offset = usize::from(packet.frag_offset());
        let more = packet.more_frags();
        let ident = u32::from(packet.ident());
        Some(Self {
            src: packet.src_addr().into(),
            dst: packet.dst_addr().into(),
            protocol: packet.next_header().into(),
            whole: bytes.get(..total.min(bytes.len()))?,
            payload_start: header_len,
            part: (offset != 0 || more).then_some(Part { ident, offset, more }),
            fragment_header: None,
        })
    }

    fn read_v6(bytes: &'a [u8], quoted: bool) -> Option<Self> {
        if bytes.len() < IPV6_LEN {
            return None;
        }
        let packet = Ipv6Packet::new_unchecked(bytes);
        let total = packet.total_len();
        if !quoted && total > bytes.len() {
            return None;
        }
        let mut view = Self {
            src: packet.src_addr().into(),
            dst: packet.dst_addr().into(),
            protocol: packet.next_header().into(),
            whole: bytes.get(..total.min(bytes.len()))?,
            payload_start: IPV6_LEN,
            part: None,
            fragment_header: None,
        };
        view.walk_extensions()?;
        Some(view)
    }

    /// Moves `protocol` and `payload_start` behind the extension headers (RFC 8200, section 4).
    fn walk_extensions(&mut self) -> Option<()> {
        let mut named_at = 6;
        for _ in 0..MAX_EXTENSIONS {
            let rest = self.payload();
            match IpProtocol::from(self.protocol) {
                IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                    let header = Ipv6ExtHeader::new_checked(rest).ok()?;
                    named_at = self.payload_start;
                    self.payload_start += 8 + 8 * usize::from(header.header_len());
                    self.protocol = header.next_header().into();
                }
                IpProtocol::Ipv6Frag if self.part.is_none() => {
                    // The extension header's first two bytes, then the fragment's own six.
                    let next = *rest.first()?;
                    let header = Ipv6FragmentHeader::new_checked(rest.get(2..8)?).ok()?;
                    self.part = Some(Part {
                        ident: header.ident(),
                        offset: usize::from(header.frag_offset()) * 8,
                        more: header.more_frags(),
                    });
                    self.fragment_header = Some((self.payload_start, named_at));
                    named_at = self.payload_start;
                    self.payload_start += 8;
                    self.protocol = next;
                    if self.is_later_fragment() {
                        return Some(());
                    }
                }
                IpProtocol::Ipv6Frag => return None,
                _ => return Some(()),
            }
        }
        None
    }
}

/// The Ethernet address a frame comes from; all zero where the frame is too short to say.
pub fn source_mac(frame: &[u8]) -> EthernetAddress {
    EthernetFrame::new_checked(frame).map(|f| f.src_addr()).unwrap_or_default()
}

/// An IP packet with a fresh header; `fill` writes its payload of `len` bytes. `None` where the
/// addresses are of two families or the packet would be too long.
pub fn emit(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    hop_limit: u8,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<Vec<u8>> {
    if src.is_ipv4() != dst.is_ipv4() || len > usize::from(u16::MAX) - 20 {
        return None;
    }
    let (src, dst) = (IpAddress::from(src), IpAddress::from(dst));
    let header = IpRepr::new(src, dst, IpProtocol::from(protocol), len, hop_limit);
    let mut packet = vec![0; header.buffer_len()];
    header.emit(&mut packet, &ChecksumCapabilities::default());
    fill(packet.get_mut(header.header_len()..)?);
    Some(packet)
}

/// `inner` behind a copy of `outer` (an Ethernet header, perhaps with the headers of a tunnel
/// behind it) whose lengths and checksums are made right. `None` where `outer` is not of that form
/// or the whole does not fit its length fields.
pub fn wrap(outer: &[u8], inner: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::with_capacity(outer.len() + inner.len());
    frame.extend_from_slice(outer);
    frame.extend_from_slice(inner);
    if outer.len() == ETHERNET_LEN {
        return Some(frame);
    }
    let ethertype = EthernetFrame::new_checked(outer).ok()?.ethertype();
    let headers_len = outer.len() - ETHERNET_LEN;
    let packet = frame.get_mut(ETHERNET_LEN..)?;
    match ethertype {
        EthernetProtocol::Ipv4 => wrap_v4(packet, headers_len)?,
        EthernetProtocol::Ipv6 => wrap_v6(packet, headers_len)?,
        _ => return None,
    }
    Some(frame)
}

fn wrap_v4(packet: &mut [u8], headers_len: usize) -> Option<()> {
    let total = u16::try_from(packet.len()).ok()?;
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    if header_len < 20 || header_len > headers_len {
        return None;
    }
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_total_len(total);
    ip.fill_checksum();
    let (src, dst) = (ip.src_addr().into(), ip.dst_addr().into());
    if ip.next_header() == IpProtocol::Udp {
        wrap_udp(ip.into_inner().get_mut(header_len..)?, headers_len - header_len, src, dst)?;
    }
    Some(())
}

fn wrap_v6(packet: &mut [u8], headers_len: usize) -> Option<()> {
    let payload_len = u16::try_from(packet.len().checked_sub(IPV6_LEN)?).ok()?;
    let mut ip = Ipv6Packet::new_unchecked(packet);
    ip.set_payload_len(payload_len);
    let (src, dst) = (ip.src_addr().into(), ip.dst_addr().into());
    if ip.next_header() == IpProtocol::Udp {
        let rest = headers_len.checked_sub(IPV6_LEN)?;
        wrap_udp(ip.into_inner().get_mut(IPV6_LEN..)?, rest, src, dst)?;
    }
    Some(())
}

/// A checksum of zero (none, RFC 7348) stays zero; another is computed anew.
fn wrap_udp(datagram: &mut [u8], headers_len: usize, src: IpAddr, dst: IpAddr) -> Option<()> {
    if headers_len < 8 {
        return None;
    }
    let len = u16::try_from(datagram.len()).ok()?;
    let mut udp = UdpPacket::new_unchecked(datagram);
    udp.set_len(len);
    if udp.checksum() != 0 {
        udp.fill_checksum(&src.into(), &dst.into());
    }
    Some(())
}

/// Whether an address can be the source of a packet that deserves an answer (RFC 1812, section
/// 5.3.7; RFC 4443, section 2.4 (e)).
pub fn is_one_host(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => {
            let reserved = a.octets()[0] >= 240 || a.octets()[0] == 0;
            !(a.is_loopback() || a.is_multicast() || reserved)
        }
        IpAddr::V6(a) => !(a.is_loopback() || a.is_multicast() || a.is_unspecified()),
    }
}

/// Whether a packet to the address reaches many.
pub fn is_many(addr: IpAddr) -> bool {
    addr.is_multicast() || addr == IpAddr::V4(Ipv4Addr::BROADCAST)
}
