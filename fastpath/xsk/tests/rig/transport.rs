//! Packets of TCP and UDP, their checksums right.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// A packet.
#[derive(Clone)]
pub struct Packet {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    pub ttl: u8,
    /// Of TCP.
    pub flags: u8,
    /// Length of the TCP header as it says, in units of 4 bytes.
    pub header: u8,
    /// Whether UDP has a checksum.
    pub summed: bool,
    pub payload: Vec<u8>,
}

impl Packet {
    /// One of TCP.
    pub fn new(source: &str, destination: &str, text: &str) -> Self {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let (flags, header, payload) = (ACK, 5, text.as_bytes().to_vec());
        Self { source, destination, protocol: TCP, ttl: 64, flags, header, summed: true, payload }
    }

    /// The same between other ends.
    pub fn between(&self, source: &str, destination: &str) -> Self {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Self { source, destination, ..self.clone() }
    }

    /// What the IP header stands before.
    pub fn body(&self) -> Vec<u8> {
        let ports = [self.source.port(), self.destination.port()].map(u16::to_be_bytes).concat();
        let (rest, field) = match self.protocol {
            UDP => {
                let [high, low] = (8 + self.payload.len() as u16).to_be_bytes();
                (vec![high, low, 0, 0], 6)
            }
            _ => {
                let (header, flags) = (self.header << 4, self.flags);
                (vec![0, 0, 0, 1, 0, 0, 0, 1, header, flags, 1, 0, 0, 0, 0, 0], 16)
            }
        };
        let mut body = [&ports, &rest[..], &self.payload].concat();
        let sum = self.sum(&body);
        body[field..field + 2].copy_from_slice(&sum);
        body
    }

    /// What the checksum of such a body is.
    fn sum(&self, body: &[u8]) -> [u8; 2] {
        let addresses = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                [source, destination].map(|a| a.octets()).concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                [source, destination].map(|a| a.octets()).concat()
            }
            _ => unreachable!("two families in one packet"),
        };
        let length = (body.len() as u16).to_be_bytes();
        let pseudo = [&addresses[..], &[0, self.protocol], &length].concat();
        match checksum(&[&pseudo, body].concat()) {
            _ if self.protocol == UDP && !self.summed => [0; 2],
            // RFC 768: 0 says that there is none.
            [0, 0] if self.protocol == UDP => [0xff; 2],
            sum => sum,
        }
    }

    /// The packet between these Ethernet addresses.
    pub fn frame(&self, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        let body = self.body();
        let (kind, ip) = match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                let mut ip = vec![0x45, 0];
                ip.extend((20 + body.len() as u16).to_be_bytes());
                ip.extend([0, 9, 0x40, 0, self.ttl, self.protocol, 0, 0]);
                ip.extend(source.ip().octets().into_iter().chain(destination.ip().octets()));
                let sum = checksum(&ip);
                ip[10..12].copy_from_slice(&sum);
                ([8, 0], ip)
            }
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend((body.len() as u16).to_be_bytes());
                ip.extend([self.protocol, self.ttl]);
                ip.extend(source.ip().octets().into_iter().chain(destination.ip().octets()));
                ([0x86, 0xdd], ip)
            }
            _ => unreachable!("two families in one packet"),
        };
        [&to[..], &from, &kind, &ip, &body].concat()
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
