//! What the benches do to headers: they are read, mended, written.

#![allow(dead_code, reason = "each bench uses a part")]

use margay_wire::checksum::{Delta, Sum, pseudo_header};
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::transport::{self, TCP_LEN, TcpFacts};
use margay_wire::{at, protocol, vxlan};

/// Lengths that are summed in full: an IP header, and what frames of usual sizes carry.
pub(crate) const LENGTHS: [usize; 5] = [20, 64, 512, 1_500, 9_000];

/// What is read of a segment on its way: its Ethernet type, addresses, ports, facts.
pub(crate) type Read<A> = (u16, A, A, (u16, u16), TcpFacts);

/// An Ethernet frame with a segment that carries nothing.
pub(crate) fn frame(v6: bool) -> Vec<u8> {
    let mut ethernet = [0; ethernet::LEN];
    let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    Ethernet(&mut ethernet).emit([2; 6], [4; 6], kind);
    let ip = if v6 { inner_v6().emit().to_vec() } else { outer_v4().emit().to_vec() };
    let tcp = [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
    [&ethernet[..], &ip, &tcp].concat()
}

/// Header by header, as a packet without options is read; `None` if it is none.
pub(crate) fn read_v4(frame: &[u8]) -> Option<Read<[u8; 4]>> {
    let kind = Ethernet(at(frame, 0)?).ethertype();
    let header = at::<{ ipv4::LEN }>(frame, ethernet::LEN)?;
    let ip = Ipv4(header);
    if ip.version() != 4 || ip.is_fragment() || !ipv4::checksum_ok(header) {
        return None;
    }
    let behind = ethernet::LEN + ip.header_len();
    let tcp = at::<TCP_LEN>(frame, behind)?;
    let ports = transport::ports(at(frame, behind)?);
    Some((kind, ip.src(), ip.dst(), ports, TcpFacts::parse(tcp)))
}

/// The same of IPv6, over whatever extension headers.
pub(crate) fn read_v6(frame: &[u8]) -> Option<Read<[u8; 16]>> {
    let kind = Ethernet(at(frame, 0)?).ethertype();
    let packet = frame.get(ethernet::LEN..)?;
    let ip = Ipv6(at::<{ ipv6::LEN }>(packet, 0)?);
    let behind = ipv6::payload(packet)?.offset;
    let tcp = at::<TCP_LEN>(packet, behind)?;
    let ports = transport::ports(at(packet, behind)?);
    Some((kind, ip.src(), ip.dst(), ports, TcpFacts::parse(tcp)))
}

/// The sum of so many bytes from the start.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    Sum::default().bytes(bytes).finish()
}

/// The sum of a segment after its destination and its port were translated, by the difference.
pub(crate) fn mended(sum: u16, new: [u8; 4]) -> u16 {
    Delta::default().replace(&[10, 0, 0, 1], &new).replace16(80, 8_080).apply(sum)
}

/// An outer header of IPv4.
pub(crate) fn outer_v4() -> ipv4::Repr {
    ipv4::Repr {
        traffic_class: 0,
        total_len: 40,
        identification: 1,
        dont_fragment: true,
        ttl: 64,
        protocol: protocol::TCP,
        src: [192, 0, 2, 1],
        dst: [192, 0, 2, 2],
    }
}

/// A header of IPv6.
pub(crate) fn inner_v6() -> ipv6::Repr {
    ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        payload_len: 20,
        next_header: protocol::TCP,
        hop_limit: 64,
        src: [1; 16],
        dst: [2; 16],
    }
}

/// All that VXLAN puts before a frame.
pub(crate) fn vxlan_around(port: u16) -> ([u8; ethernet::LEN], [u8; ipv4::LEN], [u8; 16]) {
    let mut ethernet = [0; ethernet::LEN];
    Ethernet(&mut ethernet).emit([2; 6], [4; 6], ethertype::IPV4);
    (ethernet, outer_v4().emit(), vxlan::emit(port, 4_789, 70, 4_096))
}

/// The sum of a pseudo-header of IPv4.
pub(crate) fn pseudo_v4(dst: [u8; 4]) -> u16 {
    pseudo_header(&[10, 0, 0, 1], &dst, protocol::TCP, 1_460).finish()
}
