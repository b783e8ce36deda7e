//! Packets as bytes. XDP programs look at headers only, so checksums are left zero.

use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 header fields beside the addresses and the payload.
#[derive(Clone, Copy)]
pub struct V4 {
    pub protocol: u8,
    pub identification: u16,
    /// Flags and offset in units of 8 bytes.
    pub fragment: u16,
}

impl V4 {
    /// A whole packet.
    pub const fn of(protocol: u8) -> Self {
        Self { protocol, identification: 7, fragment: 0 }
    }
}

/// A frame with an Ethertype; destination is broadcast.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame[6] = 0x02;
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An IPv4 packet in a frame.
pub fn ipv4(source: &str, destination: &str, fields: V4, payload: &[u8]) -> Vec<u8> {
    let length = 20 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend(fields.identification.to_be_bytes());
    packet.extend(fields.fragment.to_be_bytes());
    packet.extend([64, fields.protocol, 0, 0]);
    for address in [source, destination] {
        packet.extend(address.parse::<Ipv4Addr>().unwrap().octets());
    }
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

/// An IPv6 packet in a frame.
pub fn ipv6(source: &str, destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    for address in [source, destination] {
        packet.extend(address.parse::<Ipv6Addr>().unwrap().octets());
    }
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// The first 8 bytes of a UDP header, or of a TCP one as far as ports go.
pub fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0, 8, 0, 0]);
    bytes
}

/// An ICMP message without anything behind its header.
pub fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 0, 0, 0]
}

/// A fragment header (RFC 8200, 4.5): offset in bytes, more to come or not.
pub fn fragment(next: u8, offset: u16, more: bool, identification: u32) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend((offset | u16::from(more)).to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes
}
