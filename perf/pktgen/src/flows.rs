//! The packets to send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_wire::{
    checksum,
    ethernet::ethertype,
    ipv4, ipv6, protocol,
    transport::{TCP_LEN, tcp_flags},
    vxlan::UDP_LEN,
};

use crate::{
    arguments::{Protocol, Traffic},
    outer::{self, Outer},
    probe::{self, Probe},
    sizes::Sizes,
};

/// Source ports in use: from 10,000 on, below what the kernel gives to its own.
const PORTS: u32 = 50_000;
const FIRST_PORT: u16 = 10_000;

/// Connections between a range of sources and a destination, and how their packets look.
///
/// Flow n has the source n mod sources; the flows of a source have ports of their own, and once those
/// are used up the next destination port.
#[derive(Debug, Clone)]
pub(crate) struct Flows {
    count: u32,
    outer: Outer,
    addresses: Addresses,
    protocol: Protocol,
    dst_port: u16,
    /// Number of source addresses.
    sources: u32,
    /// Whether these are the packets that go back: addresses and ports change places.
    back: bool,
}

/// First source and destination.
#[derive(Debug, Clone, Copy)]
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

// === impl Flows ===

impl Flows {
    pub(crate) fn new(traffic: &Traffic, src_mac: [u8; 6]) -> anyhow::Result<Self> {
        let (first, last) = traffic.src;
        let (addresses, sources) = match (first, last, traffic.dst) {
            (IpAddr::V4(first), IpAddr::V4(last), IpAddr::V4(dst)) => {
                (Addresses::V4(first, dst), u128::from(last.to_bits() - first.to_bits()))
            }
            (IpAddr::V6(first), IpAddr::V6(last), IpAddr::V6(dst)) => {
                (Addresses::V6(first, dst), last.to_bits() - first.to_bits())
            }
            _ => anyhow::bail!("--src and --dst: one is IPv4 and the other IPv6"),
        };
        let sources = u32::try_from(sources).unwrap_or(u32::MAX).saturating_add(1);
        let last_port = u32::from(traffic.dst_port) + (traffic.flows - 1) / sources / PORTS;
        anyhow::ensure!(
            last_port <= u16::MAX.into(),
            "--flows: {} of them need destination ports up to {last_port}: give more sources, or a \
             lower --dst-port",
            traffic.flows,
        );
        Ok(Self {
            count: traffic.flows,
            outer: Outer::new(traffic, src_mac, first.is_ipv4())?,
            addresses,
            protocol: traffic.protocol,
            dst_port: traffic.dst_port,
            sources,
            back: false,
        })
    }

    /// The packets that go back in these connections, sent by another interface.
    pub(crate) fn back(mut self, traffic: &Traffic, macs: outer::Macs) -> anyhow::Result<Self> {
        anyhow::ensure!(traffic.tunnel.is_none(), "--both: not through --tunnel");
        self.outer = Outer::plain(macs);
        self.back = true;
        Ok(self)
    }

    /// Number of connections.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of a frame that are a tunnel's.
    pub(crate) fn overhead(&self) -> usize {
        self.outer.overhead()
    }

    /// Bytes of the shortest frame that has room for a probe.
    pub(crate) fn least(&self) -> usize {
        self.transport() + self.transport_len() + probe::LEN
    }

    /// Sees to it that a frame of each length has room for its probe.
    pub(crate) fn fit(&self, sizes: &mut Sizes) -> anyhow::Result<()> {
        let least = self.least();
        if sizes.elastic {
            sizes.raise(least);
        }
        anyhow::ensure!(
            sizes.least() >= least,
            "--size: frames of this kind have at least {least} bytes: headers and the probe",
        );
        Ok(())
    }

    /// Writes the packet of a probe, of `len` bytes, into a frame of which at least the first
    /// [`Flows::least`] are given. What is behind the place of the probe is zero: it is not written,
    /// and adds nothing to the checksum.
    pub(crate) fn write(&self, probe: &Probe, len: usize, frame: &mut [u8]) {
        let source = probe.flow % self.sources;
        let body = len - self.transport();
        let packet = &mut frame[self.outer.len()..];
        let (mut pseudo, kind) = match self.addresses {
            Addresses::V4(first, dst) => {
                let src = first.to_bits().wrapping_add(source).to_be_bytes();
                let (src, dst) = self.turned(src, dst.octets());
                let header = outer::ipv4_header(ipv4::LEN + body, self.number(), src, dst);
                packet[..ipv4::LEN].copy_from_slice(&header);
                (self.pseudo(&src, &dst, body), ethertype::IPV4)
            }
            Addresses::V6(first, dst) => {
                let src = first.to_bits().wrapping_add(source.into()).to_be_bytes();
                let (src, dst) = self.turned(src, dst.octets());
                let header = outer::ipv6_header(body, self.number(), src, dst);
                packet[..ipv6::LEN].copy_from_slice(&header);
                (self.pseudo(&src, &dst, body), ethertype::IPV6)
            }
        };
        let segment = &mut frame[self.transport()..];
        let checksum = self.transport_header(probe.flow, body as u16, segment);
        let end = self.transport_len() + probe::LEN;
        segment[self.transport_len()..end].copy_from_slice(&probe.emit());
        pseudo = pseudo.bytes(&segment[..end]);
        let sum = match pseudo.finish() {
            // Zero would mean "none" (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        segment[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
        self.outer.write(probe.flow, kind, len, &mut frame[..self.least()]);
    }

    /// Source and destination of a packet, given those of the connection.
    fn turned<T>(&self, src: T, dst: T) -> (T, T) {
        if self.back { (dst, src) } else { (src, dst) }
    }

    /// Writes the transport header, its checksum zero, and tells where that is.
    fn transport_header(&self, flow: u32, body: u16, segment: &mut [u8]) -> usize {
        let of_source = flow / self.sources;
        let src_port = FIRST_PORT.wrapping_add((of_source % PORTS) as u16);
        let dst_port = self.dst_port.wrapping_add((of_source / PORTS) as u16);
        let (src_port, dst_port) = self.turned(src_port, dst_port);
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

    fn pseudo(&self, src: &[u8], dst: &[u8], body: usize) -> checksum::Sum {
        checksum::pseudo_header(src, dst, self.number(), body as u32)
    }

    fn number(&self) -> u8 {
        match self.protocol {
            Protocol::Udp => protocol::UDP,
            Protocol::TcpSyn => protocol::TCP,
        }
    }

    /// Offset of the transport header.
    fn transport(&self) -> usize {
        self.outer.len()
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
    use crate::arguments::{Arguments, Command, SendArguments};
    use clap::Parser;

    fn arguments(line: &str) -> SendArguments {
        let all = format!("pktgen send --interface x --dst-mac 2:2:2:2:2:2 {line}");
        let Command::Send(arguments) = Arguments::parse_from(all.split_whitespace()).command else {
            unreachable!("send was given");
        };
        *arguments
    }

    fn flows(line: &str) -> anyhow::Result<Flows> {
        let mut arguments = arguments(line);
        let flows = Flows::new(&arguments.traffic, [1; 6])?;
        flows.fit(&mut arguments.size)?;
        Ok(flows)
    }

    /// Every packet of these flows carries its probe and right checksums, and no two flows have the
    /// same addresses and ports.
    fn check(line: &str) {
        let flows = flows(line).unwrap();
        let size = arguments(line).size.of(0);
        let mut tuples = std::collections::HashSet::new();
        for flow in 0..flows.count() {
            let probe = Probe { flow, number: flow.wrapping_mul(3), left: 12_345 };
            let mut frame = vec![0; size];
            flows.write(&probe, size, &mut frame);
            assert_eq!(Probe::find(&frame), Some(probe));
            let start = flows.outer.len();
            let (ip, segment) = frame[start..].split_at(flows.transport() - start);
            if let Addresses::V4(..) = flows.addresses {
                assert!(ipv4::checksum_ok(ip));
            }
            let addresses = &ip[if ip.len() == ipv4::LEN { 12 } else { 8 }..];
            let (src, dst) = addresses.split_at(addresses.len() / 2);
            let sum = flows.pseudo(src, dst, segment.len()).bytes(segment).fold();
            assert_eq!(sum, 0xffff, "the transport checksum of flow {flow}");
            assert!(tuples.insert([addresses, &segment[..4]].concat()), "flow {flow} is a copy");
        }
    }

    #[test]
    fn every_packet_is_right_and_every_flow_its_own() {
        check("--src 10.0.0.1 --dst 10.0.0.2 --flows 60000 --size 60");
        check("--src 10.0.0.1..10.0.0.9 --dst 10.0.0.2 --flows 1000 --size 1514");
        check("--src 10.0.0.1..10.0.0.3 --dst 10.0.0.9 --flows 160000 --size 60");
        check("--src fd00::1..fd00::3 --dst fd00::9 --flows 1000 --size 81");
        check("--src 10.0.0.1 --dst 10.0.0.2 --flows 64 --size 72 --protocol tcp-syn");
        check("--src fd00::1 --dst fd00::2 --flows 64 --size 1000 --protocol tcp-syn");
    }

    #[test]
    fn a_tunnelled_packet_is_right_inside() {
        let tunnel = "--tunnel-src 172.20.0.1 --tunnel-dst 172.20.0.2 --size 200 --flows 9";
        check(&format!("--src 10.0.0.1 --dst 10.0.0.2 --tunnel vxlan {tunnel}"));
        check(&format!("--src fd00::1 --dst fd00::2 --tunnel vxlan --vni 7 {tunnel}"));
        check(&format!("--src 10.0.0.1 --dst 10.0.0.2 --tunnel ipip {tunnel}"));
        check(
            "--src 10.0.0.1 --dst 10.0.0.2 --tunnel vxlan --tunnel-src fd20::1 --tunnel-dst fd20::2 \
             --size 200",
        );
    }

    #[test]
    fn outer_headers_are_valid_in_both_families() {
        for (outer, ip) in
            [("172.20.0.1 --tunnel-dst 172.20.0.2", 20), ("fd2::1 --tunnel-dst fd2::2", 40)]
        {
            let line = format!(
                "--src 10.0.0.1 --dst 10.0.0.2 --tunnel vxlan --size 300 --tunnel-src {outer}"
            );
            let mut frame = vec![0; 300];
            flows(&line).unwrap().write(&Probe { flow: 0, number: 1, left: 2 }, 300, &mut frame);
            let (header, datagram) = frame[14..].split_at(ip);
            assert_eq!(u16::from_be_bytes([datagram[4], datagram[5]]), 286 - ip as u16);
            if ip == ipv4::LEN {
                assert!(ipv4::checksum_ok(header));
                assert_eq!(datagram[6..8], [0, 0], "none over IPv4");
            } else {
                let sum = checksum::pseudo_header(&header[8..24], &header[24..], 17, 246);
                assert_eq!(sum.bytes(datagram).fold(), 0xffff);
            }
        }
    }

    #[test]
    fn few_ports_serve_many_flows_if_there_are_many_sources() {
        let flows = flows("--src 10.0.0.1..10.0.0.40 --dst 10.0.0.99 --flows 2000000").unwrap();
        let mut frame = vec![0; 60];
        flows.write(&Probe { flow: 1_999_999, number: 0, left: 0 }, 60, &mut frame);
        assert_eq!(frame[36..38], 5000_u16.to_be_bytes(), "the first destination port");
    }

    #[test]
    fn what_goes_back_has_addresses_and_ports_exchanged() {
        let traffic = arguments("--src 10.0.0.1 --dst 10.0.0.2").traffic;
        let there = Flows::new(&traffic, [1; 6]).unwrap();
        let macs = outer::Macs { src: [3; 6], dst: [4; 6] };
        let back = there.clone().back(&traffic, macs).unwrap();
        let probe = Probe { flow: 0, number: 0, left: 0 };
        let (mut a, mut b) = (vec![0; 60], vec![0; 60]);
        there.write(&probe, 60, &mut a);
        back.write(&probe, 60, &mut b);
        assert_eq!((&a[26..30], &a[34..36]), (&b[30..34], &b[36..38]));
        assert_eq!(b[..12], [4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn a_frame_without_room_for_the_probe_is_refused_with_the_least_size() {
        let error = flows("--src fd00::1 --dst fd00::2 --size 60").unwrap_err().to_string();
        assert!(error.contains("at least 80"), "{error}");
        assert!(flows("--src 10.0.0.1 --dst fd00::2").is_err());
        flows("--src fd00::1 --dst fd00::2 --size imix").expect("a standard mix is made to fit");
    }

    #[test]
    fn flows_that_no_port_is_left_for_are_refused() {
        let error = flows("--src 10.0.0.1 --dst 10.0.0.2 --flows 4000000000").unwrap_err();
        assert!(error.to_string().contains("more sources"), "{error}");
    }
}
