//! A frame as etherparse reads it: its innermost packet, out of tunnels.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};

/// One direction of a conversation. ICMP queries have their identifier at the asker's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Talk {
    pub(super) protocol: u8,
    pub(super) src: (IpAddr, u16),
    pub(super) dst: (IpAddr, u16),
}

/// An IP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'f> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    /// Whether it is a part of a datagram, and the first.
    pub(super) fragment: Option<bool>,
    /// What is behind its headers.
    pub(super) body: &'f [u8],
    /// All of it, as far as it says itself.
    pub(super) bytes: &'f [u8],
}

// === impl Talk ===

impl Talk {
    pub(super) fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ..self }
    }
}

// === impl Seen ===

impl<'f> Seen<'f> {
    /// The innermost packet of a frame; nothing where it holds none.
    pub(super) fn of_frame(frame: &'f [u8]) -> Option<Self> {
        let ip = match frame.get(12..14)? {
            [0x08, 0x00] | [0x86, 0xdd] => frame.get(14..)?,
            _ => return None,
        };
        let outer = Self::of_packet(ip)?;
        let inner = match outer.protocol {
            4 => Self::of_packet(outer.body),
            17 if outer.tunneled_by_vxlan() => Self::of_frame(outer.body.get(16..)?),
            _ => return Some(outer),
        };
        Some(inner.unwrap_or(outer))
    }

    /// The packet that begins here; at its end there may be less than it says.
    pub(super) fn of_packet(ip: &'f [u8]) -> Option<Self> {
        match ip.first()? >> 4 {
            4 => {
                let header = Ipv4HeaderSlice::from_slice(ip).ok()?;
                let bytes = &ip[..usize::from(header.total_len()).min(ip.len())];
                let fragment =
                    header.is_fragmenting_payload().then(|| header.fragments_offset().value() == 0);
                Some(Self {
                    src: header.source_addr().into(),
                    dst: header.destination_addr().into(),
                    ttl: header.ttl(),
                    protocol: header.protocol().0,
                    fragment,
                    body: bytes.get(header.slice().len()..)?,
                    bytes,
                })
            }
            6 => {
                let header = Ipv6HeaderSlice::from_slice(ip).ok()?;
                let bytes = &ip[..(usize::from(header.payload_length()) + 40).min(ip.len())];
                let (protocol, fragment, at) = extensions(header.next_header(), bytes)?;
                Some(Self {
                    src: header.source_addr().into(),
                    dst: header.destination_addr().into(),
                    ttl: header.hop_limit(),
                    protocol,
                    fragment,
                    body: bytes.get(at..)?,
                    bytes,
                })
            }
            _ => None,
        }
    }

    /// Whether it is VXLAN of our network: what else its header says is ignored (RFC 7348 section 5).
    fn tunneled_by_vxlan(&self) -> bool {
        self.fragment.is_none()
            && self.body.get(2..4) == Some(&4789u16.to_be_bytes())
            && self.body.get(8).is_some_and(|flags| flags & 8 != 0)
            && self.body.get(12..15) == Some(&[0, 0x10, 0])
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.body.get(at..)?.first_chunk()?))
    }

    /// Whether it is an ICMP error.
    pub(super) fn is_error(&self) -> bool {
        let Some(kind) = self.body.first() else { return false };
        self.fragment.is_none()
            && match self.protocol {
                1 => matches!(kind, 3 | 4 | 5 | 11 | 12),
                58 => matches!(kind, 1..=4),
                _ => false,
            }
    }

    /// The packet that an ICMP error quotes.
    pub(super) fn quoted(&self) -> Option<Self> {
        if self.is_error() { Self::of_packet(self.body.get(8..)?) } else { None }
    }

    /// Which direction of which conversation it belongs to; nothing for errors and later fragments.
    pub(super) fn talk(&self) -> Option<Talk> {
        if self.fragment == Some(false) || self.is_error() {
            return None;
        }
        let ends = match self.protocol {
            6 | 17 | 132 | 136 => (self.word(0)?, self.word(2)?),
            1 | 58 => match (self.protocol, self.body.first()?) {
                (1, 8 | 13 | 15 | 17) | (58, 128) => (self.word(4)?, 0),
                (1, 0 | 14 | 16 | 18) | (58, 129) => (0, self.word(4)?),
                _ => (self.word(0)?, 0),
            },
            _ => (0, 0),
        };
        Some(Talk { protocol: self.protocol, src: (self.src, ends.0), dst: (self.dst, ends.1) })
    }
}

/// Walks extension headers: what they lead to, whether it is a part of a datagram, and where it
/// begins.
fn extensions(first: IpNumber, packet: &[u8]) -> Option<(u8, Option<bool>, usize)> {
    let (mut next, mut at, mut fragment) = (first, 40, None);
    for _ in 0..16 {
        let header = packet.get(at..)?;
        let len = match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => usize::from(*header.get(1)?) * 8 + 8,
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let word = u16::from_be_bytes([*header.get(2)?, *header.get(3)?]);
                // One that is all of its datagram is none (RFC 6946).
                if word & 0xfff9 != 0 {
                    fragment = Some(word & 0xfff8 == 0);
                }
                8
            }
            _ => break,
        };
        (next, at) = (IpNumber(*header.first()?), at + len);
    }
    Some((next.0, fragment, at))
}
