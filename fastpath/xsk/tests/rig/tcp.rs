//! TCP packets, their checksums right.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A TCP packet.
#[derive(Clone)]
pub struct Packet {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    pub flags: u8,
    /// Length of the TCP header as it says, in units of 4 bytes.
    pub header: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn new(source: &str, destination: &str, text: &str) -> Self {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let payload = text.as_bytes().to_vec();
        Self { source, destination, ttl: 64, flags: ACK, header: 5, payload }
    }

    pub fn tcp(&self) -> Vec<u8> {
        let ports = [self.source.port(), self.destination.port()].map(u16::to_be_bytes).concat();
        let rest = [0, 0, 0, 1, 0, 0, 0, 1, self.header << 4, self.flags, 1, 0, 0, 0, 0, 0];
        let mut tcp = [&ports, &rest[..], &self.payload].concat();
        let addresses = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                [source, destination].map(|a| a.octets()).concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                [source, destination].map(|a| a.octets()).concat()
            }
            _ => unreachable!("two families in one packet"),
        };
        let pseudo = [&addresses[..], &[0, 6], &(tcp.len() as u16).to_be_bytes()].concat();
        let sum = checksum(&[&pseudo, &tcp[..]].concat());
        tcp[16..18].copy_from_slice(&sum);
        tcp
    }

    /// The packet between these Ethernet addresses.
    pub fn frame(&self, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        let tcp = self.tcp();
        let (kind, ip) = match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                let mut ip = vec![0x45, 0];
                ip.extend((20 + tcp.len() as u16).to_be_bytes());
                ip.extend([0, 9, 0x40, 0, self.ttl, 6, 0, 0]);
                ip.extend(source.ip().octets().into_iter().chain(destination.ip().octets()));
                let sum = checksum(&ip);
                ip[10..12].copy_from_slice(&sum);
                ([8, 0], ip)
            }
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend((tcp.len() as u16).to_be_bytes());
                ip.extend([6, self.ttl]);
                ip.extend(source.ip().octets().into_iter().chain(destination.ip().octets()));
                ([0x86, 0xdd], ip)
            }
            _ => unreachable!("two families in one packet"),
        };
        [&to[..], &from, &kind, &ip, &tcp].concat()
    }
}

/// RFC 1071.
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(word(pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!sum as u16).to_be_bytes()
}
