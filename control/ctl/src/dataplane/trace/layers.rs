//! What a frame holds, from the outside in, in one line.

use std::fmt::Write;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice, ip_number};

/// VXLAN's port (RFC 7348).
const VXLAN: u16 = 4789;
/// Tunnels in tunnels that are looked into.
const DEPTH: usize = 3;

/// A frame's headers: `IPv4 10.0.0.1 → 10.0.0.2 ttl 64 · TCP 40000 → 80 SYN`.
pub(super) fn line(frame: &[u8]) -> String {
    let mut layers = Vec::new();
    ethernet(frame, DEPTH, &mut layers);
    layers.join(" · ")
}

fn ethernet(frame: &[u8], depth: usize, layers: &mut Vec<String>) {
    match LaxSlicedPacket::from_ethernet(frame) {
        Ok(packet) => packet_of(&packet, depth, layers),
        Err(_) => layers.push(format!("{} bytes that are no frame", frame.len())),
    }
}

fn packet_of(packet: &LaxSlicedPacket<'_>, depth: usize, layers: &mut Vec<String>) {
    let payload = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            let mut text = format!("IPv4 {src} → {dst} ttl {}", header.ttl());
            if header.is_fragmenting_payload() {
                let offset = u32::from(header.fragments_offset().value()) * 8;
                let _ = write!(text, " fragment at {offset}");
            }
            layers.push(text);
            Some((ip.payload().ip_number, ip.payload().payload))
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            layers.push(format!("IPv6 {src} → {dst} hop limit {}", header.hop_limit()));
            Some((ip.payload().ip_number, ip.payload().payload))
        }
        Some(LaxNetSlice::Arp(_)) => {
            layers.push("ARP".into());
            None
        }
        None => {
            layers.push("no IP packet".into());
            None
        }
    };
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let (from, to) = (tcp.source_port(), tcp.destination_port());
            layers.push(format!("TCP {from} → {to}{}", flags(tcp)));
        }
        Some(TransportSlice::Udp(udp)) => {
            let (from, to) = (udp.source_port(), udp.destination_port());
            layers.push(format!("UDP {from} → {to}"));
            if to == VXLAN
                && depth > 0
                && let Some((header, inner)) = udp.payload().split_first_chunk::<8>()
            {
                let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
                layers.push(format!("VXLAN {vni}"));
                ethernet(inner, depth - 1, layers);
            }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            layers.push(format!("ICMP {}/{}", icmp.type_u8(), icmp.code_u8()));
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            layers.push(format!("ICMPv6 {}/{}", icmp.type_u8(), icmp.code_u8()));
        }
        Some(TransportSlice::Igmp(_)) => layers.push("IGMP".into()),
        None => other(payload, depth, layers),
    }
}

/// What stands behind an IP header where it is none of the usual.
fn other(payload: Option<(etherparse::IpNumber, &[u8])>, depth: usize, layers: &mut Vec<String>) {
    let Some((number, bytes)) = payload else { return };
    if matches!(number, ip_number::IPV4 | ip_number::IPV6)
        && depth > 0
        && let Ok(inner) = LaxSlicedPacket::from_ip(bytes)
    {
        return packet_of(&inner, depth - 1, layers);
    }
    layers.push(format!("protocol {}", number.0));
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    [("SYN", tcp.syn()), ("ACK", tcp.ack()), ("FIN", tcp.fin()), ("RST", tcp.rst())]
        .iter()
        .filter(|(_, set)| *set)
        .fold(String::new(), |text, (name, _)| text + " " + name)
}
