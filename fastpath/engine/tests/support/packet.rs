//! IP packets as plain values, and their bytes as etherparse writes them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn,
    IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, TcpHeader, UdpHeader,
};

use super::verify::crc32c;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// An IP packet of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    /// DSCP and ECN.
    pub class: u8,
    pub dont_fragment: bool,
    pub identification: u16,
    pub options: Vec<u8>,
    pub body: Body,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        ports: (u16, u16),
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        payload: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        payload: Vec<u8>,
        checksum: bool,
    },
    Sctp {
        ports: (u16, u16),
        payload: Vec<u8>,
    },
    /// `rest` is the second half of the header: of a query its identifier and sequence number.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        payload: Vec<u8>,
    },
    Raw(u8, Vec<u8>),
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn between(src: &str, dst: &str, body: impl FnOnce((u16, u16)) -> Body) -> Ip {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    packet(src.ip(), dst.ip(), body((src.port(), dst.port())))
}

pub fn packet(src: IpAddr, dst: IpAddr, body: Body) -> Ip {
    Ip {
        src,
        dst,
        ttl: 64,
        class: 0,
        dont_fragment: false,
        identification: 0,
        options: Vec::new(),
        body,
    }
}

pub fn tcp(src: &str, dst: &str, flags: u8) -> Ip {
    let payload = if flags & SYN == 0 { b"hello".to_vec() } else { Vec::new() };
    between(src, dst, |ports| Body::Tcp { ports, flags, seq: 1000, ack: 0, window: 512, payload })
}

pub fn udp(src: &str, dst: &str) -> Ip {
    between(src, dst, |ports| Body::Udp { ports, payload: b"odd".to_vec(), checksum: true })
}

pub fn sctp(src: &str, dst: &str) -> Ip {
    between(src, dst, |ports| Body::Sctp { ports, payload: b"\x01chunk!!".to_vec() })
}

/// An echo request, of ICMP or ICMPv6 as the addresses are.
pub fn ping(src: &str, dst: &str, id: u16) -> Ip {
    let (src, dst) = (ip(src), ip(dst));
    let [hi, lo] = id.to_be_bytes();
    let kind = if src.is_ipv4() { 8 } else { 128 };
    packet(src, dst, Body::Icmp { kind, code: 0, rest: [hi, lo, 0, 1], payload: b"ping".to_vec() })
}

// === impl Ip ===

impl Ip {
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn class(self, class: u8) -> Self {
        Self { class, ..self }
    }

    pub fn df(self) -> Self {
        Self { dont_fragment: true, ..self }
    }

    /// The same with another source, `ADDR:PORT`; of an ICMP query the port is the identifier.
    pub fn from(mut self, src: &str) -> Self {
        let src: SocketAddr = src.parse().unwrap();
        self.src = src.ip();
        match &mut self.body {
            Body::Icmp { rest, .. } => rest[..2].copy_from_slice(&src.port().to_be_bytes()),
            body => body.ports_mut().unwrap().0 = src.port(),
        }
        self
    }

    /// The same with another destination.
    pub fn to(mut self, dst: &str) -> Self {
        let dst: SocketAddr = dst.parse().unwrap();
        self.dst = dst.ip();
        match &mut self.body {
            Body::Icmp { rest, .. } => rest[..2].copy_from_slice(&dst.port().to_be_bytes()),
            body => body.ports_mut().unwrap().1 = dst.port(),
        }
        self
    }

    /// The same segment with other numbers: its own, and the one that it acknowledges.
    pub fn numbered(mut self, own: u32, acknowledged: u32) -> Self {
        if let Body::Tcp { seq, ack, .. } = &mut self.body {
            (*seq, *ack) = (own, acknowledged);
        }
        self
    }

    /// What the receiver answers: ends exchanged, SYN acknowledged, echo replied.
    pub fn answer(mut self) -> Self {
        std::mem::swap(&mut self.src, &mut self.dst);
        self.ttl = 64;
        if let Some(ports) = self.body.ports_mut() {
            *ports = (ports.1, ports.0);
        }
        match &mut self.body {
            Body::Tcp { flags, .. } => *flags = *flags & SYN | ACK,
            Body::Icmp { kind, .. } if (*kind, self.src.is_ipv4()) == (8, true) => *kind = 0,
            Body::Icmp { kind, .. } if (*kind, self.src.is_ipv4()) == (128, false) => *kind = 129,
            _ => {}
        }
        self
    }

    /// The same with `len` bytes of payload.
    pub fn sized(self, len: usize) -> Self {
        self.body_of(vec![7; len])
    }

    /// The same with another payload.
    pub fn body_of(mut self, bytes: Vec<u8>) -> Self {
        match &mut self.body {
            Body::Tcp { payload, .. }
            | Body::Udp { payload, .. }
            | Body::Sctp { payload, .. }
            | Body::Icmp { payload, .. }
            | Body::Raw(_, payload) => *payload = bytes,
        }
        self
    }

    /// Both ports; of ICMP the identifier and 0, of others zeros.
    pub fn ends(&self) -> (u16, u16) {
        match &self.body {
            Body::Tcp { ports, .. } | Body::Udp { ports, .. } | Body::Sctp { ports, .. } => *ports,
            Body::Icmp { rest, .. } => (u16::from_be_bytes([rest[0], rest[1]]), 0),
            Body::Raw(..) => (0, 0),
        }
    }

    pub fn src_port(&self) -> u16 {
        self.ends().0
    }

    pub fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Sctp { .. } => 132,
            Body::Icmp { .. } if self.src.is_ipv4() => 1,
            Body::Icmp { .. } => 58,
            Body::Raw(protocol, _) => *protocol,
        }
    }

    /// Where the checksum stands in the transport header.
    pub fn sum_at(&self) -> usize {
        match &self.body {
            Body::Tcp { .. } => 16,
            Body::Udp { .. } => 6,
            Body::Sctp { .. } => 8,
            Body::Icmp { .. } | Body::Raw(..) => 2,
        }
    }

    /// The packet's bytes from the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body.bytes(self.src, self.dst);
        let mut out = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let number = IpNumber(self.protocol());
                let len = body.len() as u16;
                let mut header =
                    Ipv4Header::new(len, self.ttl, number, src.octets(), dst.octets()).unwrap();
                header.dscp = IpDscp::try_new(self.class >> 2).unwrap();
                header.ecn = IpEcn::try_new(self.class & 3).unwrap();
                header.dont_fragment = self.dont_fragment;
                header.identification = self.identification;
                header.options = Ipv4Options::try_from(&self.options[..]).unwrap();
                header.total_len += self.options.len() as u16;
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
                traffic_class: self.class,
                flow_label: Default::default(),
                payload_length: body.len() as u16,
                next_header: IpNumber(self.protocol()),
                hop_limit: self.ttl,
                source: src.octets(),
                destination: dst.octets(),
            }
            .to_bytes()
            .to_vec(),
            _ => panic!("a packet has one family"),
        };
        out.extend(body);
        out
    }

    /// The packet behind an Ethernet header.
    pub fn frame(&self, dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
        let ether_type = if self.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let header = Ethernet2Header { source: src, destination: dst, ether_type };
        [&header.to_bytes()[..], &self.bytes()].concat()
    }
}

/// The checksum over pseudo-header, header and payload; etherparse's headers have no trait for it.
macro_rules! checksum {
    ($header:ident, $src:ident, $dst:ident, $payload:ident) => {
        match ($src, $dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                $header.calc_checksum_ipv4_raw(s.octets(), d.octets(), $payload)
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                $header.calc_checksum_ipv6_raw(s.octets(), d.octets(), $payload)
            }
            _ => panic!("a packet has one family"),
        }
        .unwrap()
    };
}

// === impl Body ===

impl Body {
    fn ports_mut(&mut self) -> Option<&mut (u16, u16)> {
        match self {
            Self::Tcp { ports, .. } | Self::Udp { ports, .. } | Self::Sctp { ports, .. } => {
                Some(ports)
            }
            _ => None,
        }
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        match self {
            Self::Tcp { ports, flags, seq, ack, window, payload } => {
                let mut header = TcpHeader::new(ports.0, ports.1, *seq, *window);
                header.acknowledgment_number = *ack;
                (header.fin, header.syn) = (flags & FIN != 0, flags & SYN != 0);
                (header.rst, header.ack) = (flags & RST != 0, flags & ACK != 0);
                header.checksum = checksum!(header, src, dst, payload);
                [&header.to_bytes()[..], payload].concat()
            }
            Self::Udp { ports, payload, checksum } => {
                let length = 8 + payload.len() as u16;
                let mut header = UdpHeader {
                    source_port: ports.0,
                    destination_port: ports.1,
                    length,
                    checksum: 0,
                };
                if *checksum {
                    header.checksum = checksum!(header, src, dst, payload);
                }
                [&header.to_bytes()[..], payload].concat()
            }
            Self::Sctp { ports, payload } => {
                let (from, to) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
                let mut out = [&from[..], &to, &[0, 0, 0, 9], &[0; 4], payload].concat();
                let sum = crc32c(&out).to_le_bytes();
                out[8..12].copy_from_slice(&sum);
                out
            }
            Self::Icmp { kind, code, rest, payload } => {
                let (type_u8, code_u8, bytes5to8) = (*kind, *code, *rest);
                let header = match (src, dst) {
                    (IpAddr::V6(s), IpAddr::V6(d)) => {
                        let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 };
                        let header =
                            Icmpv6Header::with_checksum(kind, s.octets(), d.octets(), payload);
                        header.unwrap().to_bytes().to_vec()
                    }
                    _ => {
                        let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
                        Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec()
                    }
                };
                [header, payload.clone()].concat()
            }
            Self::Raw(_, payload) => payload.clone(),
        }
    }
}

/// The bytes that hexadecimal digits say.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}
