//! The packets to send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_wire::{
    checksum, ethernet,
    ethernet::{Ethernet, ethertype},
    ipv4, ipv6, protocol,
    transport::{TCP_LEN, tcp_flags},
    vxlan::UDP_LEN,
};

use crate::{
    arguments::{Protocol, SendArguments},
    probe::{self, Probe},
};

/// Source ports in use: from 10,000 on, below what the kernel gives to its own.
const PORTS: u32 = 50_000;
const FIRST_PORT: u16 = 10_000;
const TTL: u8 = 64;

/// Connections between a range of sources and a destination, and how their packets look.
#[derive(Debug, Clone)]
pub(crate) struct Flows {
    count: u32,
    size: usize,
    macs: Macs,
    addresses: Addresses,
    protocol: Protocol,
    dst_port: u16,
    /// Number of source addresses.
    sources: u32,
}

#[derive(Debug, Clone, Copy)]
struct Macs {
    src: [u8; 6],
    dst: [u8; 6],
}

/// First source and destination.
#[derive(Debug, Clone, Copy)]
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

// === impl Flows ===

impl Flows {
    pub(crate) fn new(arguments: &SendArguments, src_mac: [u8; 6]) -> anyhow::Result<Self> {
        let (first, last) = arguments.src;
        let (addresses, sources) = match (first, last, arguments.dst) {
            (IpAddr::V4(first), IpAddr::V4(last), IpAddr::V4(dst)) => {
                (Addresses::V4(first, dst), u128::from(last.to_bits() - first.to_bits()))
            }
            (IpAddr::V6(first), IpAddr::V6(last), IpAddr::V6(dst)) => {
                (Addresses::V6(first, dst), last.to_bits() - first.to_bits())
            }
            _ => anyhow::bail!("--src and --dst: one is IPv4 and the other IPv6"),
        };
        let flows = Self {
            count: arguments.flows,
            size: arguments.size,
            macs: Macs { src: src_mac, dst: arguments.dst_mac },
            addresses,
            protocol: arguments.protocol,
            dst_port: arguments.dst_port,
            sources: u32::try_from(sources).unwrap_or(u32::MAX).saturating_add(1),
        };
        let least = flows.transport() + flows.transport_len() + probe::LEN;
        anyhow::ensure!(
            (least..=usize::from(u16::MAX)).contains(&flows.size),
            "--size: frames of this kind have {least} to 65535 bytes",
        );
        Ok(flows)
    }

    /// Number of connections.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of every frame.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Writes the packet of a probe. The frame is as long as [`Flows::size`] says, and zero behind
    /// the place of the probe: that part is not written, and adds nothing to the checksum.
    pub(crate) fn write(&self, probe: &Probe, frame: &mut [u8]) {
        let source = probe.flow % self.sources;
        let body = (self.size - self.transport()) as u16;
        let (mut pseudo, kind) = match self.addresses {
            Addresses::V4(first, dst) => {
                let src = first.to_bits().wrapping_add(source).to_be_bytes();
                let header = self.ipv4(src, dst.octets(), body);
                frame[ethernet::LEN..][..ipv4::LEN].copy_from_slice(&header);
                (self.pseudo(&src, &dst.octets(), body), ethertype::IPV4)
            }
            Addresses::V6(first, dst) => {
                let src = first.to_bits().wrapping_add(source.into()).to_be_bytes();
                let header = self.ipv6(src, dst.octets(), body);
                frame[ethernet::LEN..][..ipv6::LEN].copy_from_slice(&header);
                (self.pseudo(&src, &dst.octets(), body), ethertype::IPV6)
            }
        };
        if let Some(header) = frame.first_chunk_mut() {
            Ethernet(header).emit(self.macs.dst, self.macs.src, kind);
        }
        let segment = &mut frame[self.transport()..];
        let checksum = self.transport_header(probe.flow, body, segment);
        let end = self.transport_len() + probe::LEN;
        segment[self.transport_len()..end].copy_from_slice(&probe.emit());
        pseudo = pseudo.bytes(&segment[..end]);
        let sum = match pseudo.finish() {
            // Zero would mean "none" (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        segment[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Writes the transport header, its checksum zero, and tells where that is.
    fn transport_header(&self, flow: u32, body: u16, segment: &mut [u8]) -> usize {
        let src_port = FIRST_PORT.wrapping_add((flow % PORTS) as u16);
        let dst_port = self.dst_port.wrapping_add((flow / PORTS) as u16);
        segment[..2].copy_from_slice(&src_port.to_be_bytes());
        segment[2..4].copy_from_slice(&dst_port.to_be_bytes());
        match self.protocol {
            Protocol::Udp => {
                segment[4..6].copy_from_slice(&body.to_be_bytes());
                segment[6..UDP_LEN].fill(0);
                6
            }
            Protocol::TcpSyn => {
                segment[4..TCP_LEN].fill(0);
                segment[12] = (TCP_LEN as u8 / 4) << 4;
                segment[13] = tcp_flags::SYN;
                segment[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
                16
            }
        }
    }

    fn ipv4(&self, src: [u8; 4], dst: [u8; 4], body: u16) -> [u8; ipv4::LEN] {
        let header = ipv4::Repr {
            traffic_class: 0,
            total_len: ipv4::LEN as u16 + body,
            identification: 0,
            dont_fragment: true,
            ttl: TTL,
            protocol: self.number(),
            src,
            dst,
        };
        header.emit()
    }

    fn ipv6(&self, src: [u8; 16], dst: [u8; 16], body: u16) -> [u8; ipv6::LEN] {
        let header = ipv6::Repr {
            traffic_class: 0,
            flow_label: 0,
            payload_len: body,
            next_header: self.number(),
            hop_limit: TTL,
            src,
            dst,
        };
        header.emit()
    }

    fn pseudo(&self, src: &[u8], dst: &[u8], body: u16) -> checksum::Sum {
        checksum::pseudo_header(src, dst, self.number(), body.into())
    }

    fn number(&self) -> u8 {
        match self.protocol {
            Protocol::Udp => protocol::UDP,
            Protocol::TcpSyn => protocol::TCP,
        }
    }

    /// Offset of the transport header.
    fn transport(&self) -> usize {
        ethernet::LEN
            + match self.addresses {
                Addresses::V4(..) => ipv4::LEN,
                Addresses::V6(..) => ipv6::LEN,
            }
    }

    fn transport_len(&self) -> usize {
        match self.protocol {
            Protocol::Udp => UDP_LEN,
            Protocol::TcpSyn => TCP_LEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    fn flows(line: &str) -> anyhow::Result<Flows> {
        let all = format!("pktgen send --interface x --dst-mac 2:2:2:2:2:2 {line}");
        let Command::Send(arguments) = Arguments::parse_from(all.split_whitespace()).command else {
            unreachable!("send was given");
        };
        Flows::new(&arguments, [1; 6])
    }

    /// Every packet of these flows carries its probe and right checksums, and no two flows have the
    /// same addresses and ports.
    fn check(line: &str) {
        let flows = flows(line).unwrap();
        let mut tuples = std::collections::HashSet::new();
        for flow in 0..flows.count() {
            let probe = Probe { flow, number: flow * 3, left: 12_345 };
            let mut frame = vec![0; flows.size()];
            flows.write(&probe, &mut frame);
            assert_eq!(Probe::find(&frame), Some(probe));
            let (ip, segment) = frame[ethernet::LEN..].split_at(flows.transport() - ethernet::LEN);
            if let Addresses::V4(..) = flows.addresses {
                assert!(ipv4::checksum_ok(ip));
            }
            let addresses = &ip[if ip.len() == ipv4::LEN { 12 } else { 8 }..];
            let (src, dst) = addresses.split_at(addresses.len() / 2);
            let sum = flows.pseudo(src, dst, segment.len() as u16).bytes(segment).fold();
            assert_eq!(sum, 0xffff, "the transport checksum of flow {flow}");
            assert!(tuples.insert([addresses, &segment[..4]].concat()), "flow {flow} is a copy");
        }
    }

    #[test]
    fn every_packet_is_right_and_every_flow_its_own() {
        check("--src 10.0.0.1 --dst 10.0.0.2 --flows 60000 --size 60");
        check("--src 10.0.0.1..10.0.0.9 --dst 10.0.0.2 --flows 1000 --size 1514");
        check("--src fd00::1..fd00::3 --dst fd00::9 --flows 1000 --size 81");
        check("--src 10.0.0.1 --dst 10.0.0.2 --flows 64 --size 72 --protocol tcp-syn");
        check("--src fd00::1 --dst fd00::2 --flows 64 --size 1000 --protocol tcp-syn");
    }

    #[test]
    fn a_frame_without_room_for_the_probe_is_refused_with_the_least_size() {
        let error = flows("--src fd00::1 --dst fd00::2 --size 60").unwrap_err().to_string();
        assert!(error.contains("80 to 65535"), "{error}");
        assert!(flows("--src 10.0.0.1 --dst fd00::2").is_err());
    }
}
