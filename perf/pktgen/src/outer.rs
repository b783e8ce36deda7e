//! What stands before the IP packet of a flow: an Ethernet header, and where a tunnel is asked for,
//! its outer headers (VXLAN, RFC 7348; IP in IP, RFC 2003).

use std::net::IpAddr;

use anyhow::Context;
use margay_wire::{
    checksum, ethernet,
    ethernet::{Ethernet, ethertype},
    ipv4, ipv6, protocol, vxlan,
};

use crate::arguments::{Traffic, Tunnel};

/// UDP port of VXLAN (RFC 7348 §5).
pub(crate) const VXLAN_PORT: u16 = 4789;
/// Room for what a tunnel puts around a packet: VXLAN over IPv6.
pub(crate) const LARGEST: usize = ipv6::LEN + vxlan::UDP_LEN + vxlan::LEN + ethernet::LEN;

const TTL: u8 = 64;

/// Ethernet addresses of a header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Macs {
    pub(crate) src: [u8; 6],
    pub(crate) dst: [u8; 6],
}

/// The headers before a flow's IP packet.
#[derive(Debug, Clone)]
pub(crate) struct Outer {
    macs: Macs,
    tunnel: Option<Envelope>,
}

/// A tunnel's header.
#[derive(Debug, Clone)]
struct Envelope {
    src: IpAddr,
    dst: IpAddr,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Vxlan { vni: u32, macs: Macs },
    Ipip,
}

// === impl Outer ===

impl Outer {
    /// As the command line asks, for inner packets of that family.
    pub(crate) fn new(traffic: &Traffic, src: [u8; 6], inner_v4: bool) -> anyhow::Result<Self> {
        let macs = Macs { src, dst: traffic.dst_mac };
        let Some(tunnel) = traffic.tunnel else { return Ok(Self { macs, tunnel: None }) };
        let (src, dst) = (traffic.tunnel_src.zip(traffic.tunnel_dst))
            .context("--tunnel: give the outer addresses with --tunnel-src and --tunnel-dst")?;
        anyhow::ensure!(
            src.is_ipv4() == dst.is_ipv4(),
            "--tunnel-src and --tunnel-dst: one is IPv4 and the other IPv6"
        );
        let kind = match tunnel {
            Tunnel::Vxlan => {
                let macs = Macs { src: traffic.inner_src_mac, dst: traffic.inner_dst_mac };
                Kind::Vxlan { vni: traffic.vni, macs }
            }
            Tunnel::Ipip => {
                anyhow::ensure!(src.is_ipv4() && inner_v4, "--tunnel ipip: only IPv4 in IPv4");
                Kind::Ipip
            }
        };
        Ok(Self { macs, tunnel: Some(Envelope { src, dst, kind }) })
    }

    /// An Ethernet header only.
    pub(crate) fn plain(macs: Macs) -> Self {
        Self { macs, tunnel: None }
    }

    /// Bytes before the IP packet.
    pub(crate) fn len(&self) -> usize {
        ethernet::LEN + self.overhead()
    }

    /// Bytes of them that are the tunnel's.
    pub(crate) fn overhead(&self) -> usize {
        let Some(tunnel) = &self.tunnel else { return 0 };
        let ip = if tunnel.src.is_ipv4() { ipv4::LEN } else { ipv6::LEN };
        ip + match tunnel.kind {
            Kind::Vxlan { .. } => vxlan::UDP_LEN + vxlan::LEN + ethernet::LEN,
            Kind::Ipip => 0,
        }
    }

    /// Writes the headers of a flow's packet of the EtherType `inner`. The frame, of `len` bytes, has
    /// its IP packet already; it is given as far as it is not zero.
    pub(crate) fn write(&self, flow: u32, inner: u16, len: usize, frame: &mut [u8]) {
        let Some(tunnel) = &self.tunnel else { return ethernet_header(self.macs, inner, frame) };
        let outer = if tunnel.src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        ethernet_header(self.macs, outer, frame);
        if let Kind::Vxlan { macs, .. } = tunnel.kind {
            ethernet_header(macs, inner, &mut frame[self.len() - ethernet::LEN..]);
        }
        tunnel.write(flow, len - ethernet::LEN, &mut frame[ethernet::LEN..]);
    }
}

fn ethernet_header(macs: Macs, kind: u16, frame: &mut [u8]) {
    if let Some(header) = frame.first_chunk_mut() {
        Ethernet(header).emit(macs.dst, macs.src, kind);
    }
}

// === impl Envelope ===

impl Envelope {
    /// Writes from the outer IP header on, up to what is tunnelled, for a packet of `len` bytes.
    fn write(&self, flow: u32, len: usize, packet: &mut [u8]) {
        let number = match self.kind {
            Kind::Vxlan { .. } => protocol::UDP,
            Kind::Ipip => protocol::IPIP,
        };
        let offset = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = ipv4_header(len, number, src.octets(), dst.octets());
                packet[..ipv4::LEN].copy_from_slice(&header);
                ipv4::LEN
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = ipv6_header(len - ipv6::LEN, number, src.octets(), dst.octets());
                packet[..ipv6::LEN].copy_from_slice(&header);
                ipv6::LEN
            }
            // Refused by `Outer::new`.
            _ => return,
        };
        if let Kind::Vxlan { vni, .. } = self.kind {
            self.udp(flow, vni, len - offset, &mut packet[offset..]);
        }
    }

    fn udp(&self, flow: u32, vni: u32, len: usize, datagram: &mut [u8]) {
        let port = vxlan::source_port(flow.wrapping_mul(0x9e37_79b1));
        let header = vxlan::emit(port, VXLAN_PORT, len as u16, vni);
        datagram[..header.len()].copy_from_slice(&header);
        // Over IPv4 it should be zero (RFC 7348 §5), over IPv6 not every receiver allows that.
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = (self.src, self.dst) {
            let (src, dst) = (src.octets(), dst.octets());
            let sum = checksum::pseudo_header(&src, &dst, protocol::UDP, len as u32);
            let sum = match sum.bytes(datagram).finish() {
                0 => 0xffff,
                sum => sum,
            };
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// The header of an IPv4 packet of `len` bytes, itself included.
pub(crate) fn ipv4_header(len: usize, protocol: u8, src: [u8; 4], dst: [u8; 4]) -> [u8; ipv4::LEN] {
    let header = ipv4::Repr {
        traffic_class: 0,
        total_len: len as u16,
        identification: 0,
        dont_fragment: true,
        ttl: TTL,
        protocol,
        src,
        dst,
    };
    header.emit()
}

/// The header of an IPv6 packet with `len` bytes behind it.
pub(crate) fn ipv6_header(
    len: usize,
    next_header: u8,
    src: [u8; 16],
    dst: [u8; 16],
) -> [u8; ipv6::LEN] {
    let header = ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        payload_len: len as u16,
        next_header,
        hop_limit: TTL,
        src,
        dst,
    };
    header.emit()
}
