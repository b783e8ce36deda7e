//! IPv6, RFC 8200, and the way through its extension headers.

use std::ops::{Deref, DerefMut};

/// Length of the fixed header in bytes.
pub const LEN: usize = 40;

/// What every link carries whole, in bytes (RFC 8200 §5).
pub const LEAST_MTU: u16 = 1280;

/// Extension headers that are walked at most; a longer chain is refused.
pub const MAX_EXTENSIONS: usize = 8;

/// View of the fixed IPv6 header.
pub struct Ipv6<B>(pub B);

impl<B: Deref<Target = [u8; LEN]>> Ipv6<B> {
    /// Version; 6 in every good packet.
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        (self.0[0] << 4) | (self.0[1] >> 4)
    }

    /// Length of what follows the fixed header in bytes.
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Type of the header that follows.
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// Source address.
    pub fn src(&self) -> [u8; 16] {
        let mut a = [0; 16];
        a.copy_from_slice(&self.0[8..24]);
        a
    }

    /// Destination address.
    pub fn dst(&self) -> [u8; 16] {
        let mut a = [0; 16];
        a.copy_from_slice(&self.0[24..]);
        a
    }
}

impl<B: DerefMut<Target = [u8; LEN]>> Ipv6<B> {
    /// Lowers the hop limit by one; it must not be zero.
    pub fn lower_hop_limit(&mut self) {
        self.0[7] = self.0[7].wrapping_sub(1);
    }

    /// Sets DSCP and ECN.
    pub fn set_traffic_class(&mut self, class: u8) {
        self.0[0] = (self.0[0] & 0xf0) | (class >> 4);
        self.0[1] = (self.0[1] & 0x0f) | (class << 4);
    }

    /// Sets the length of what follows the fixed header in bytes.
    pub fn set_payload_len(&mut self, len: u16) {
        self.0[4..6].copy_from_slice(&len.to_be_bytes());
    }

    /// Sets both addresses; the checksum of the payload is the caller's.
    pub fn set_addresses(&mut self, src: [u8; 16], dst: [u8; 16]) {
        self.0[8..24].copy_from_slice(&src);
        self.0[24..].copy_from_slice(&dst);
    }
}

/// The fields of a fixed header that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Length of what follows the fixed header in bytes.
    pub payload_len: u16,
    /// Type of the header that follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

impl Repr {
    /// The header's bytes.
    pub fn emit(&self) -> [u8; LEN] {
        let word = 0x6000_0000 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(&word.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[6] = self.next_header;
        bytes[7] = self.hop_limit;
        bytes[8..24].copy_from_slice(&self.src);
        bytes[24..].copy_from_slice(&self.dst);
        bytes
    }
}

/// Where the extension headers of a packet end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Type of the first header that is no extension.
    pub protocol: u8,
    /// Its offset from the start of the IPv6 header in bytes.
    pub offset: usize,
    /// Whether a fragment header was passed that makes this a part of a datagram (an atomic
    /// fragment, RFC 6946, is whole).
    pub fragment: bool,
    /// Whether it is a later fragment: `offset` then points at payload without header.
    pub later_fragment: bool,
}

/// Walks the extension headers of `packet`, which starts at the fixed header.
///
/// Nothing where the chain is cut short, longer than [`MAX_EXTENSIONS`], or has a hop-by-hop
/// header that is not first (RFC 8200 §4.1).
pub fn payload(packet: &[u8]) -> Option<Payload> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;

    let fixed = Ipv6(crate::at::<LEN>(packet, 0)?);
    let mut at = Payload {
        protocol: fixed.next_header(),
        offset: LEN,
        fragment: false,
        later_fragment: false,
    };
    for nth in 0..=MAX_EXTENSIONS {
        match at.protocol {
            HOP_BY_HOP if nth > 0 => return None,
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let &[next, units] = crate::at::<2>(packet, at.offset)?;
                at.protocol = next;
                at.offset += 8 + usize::from(units) * 8;
            }
            FRAGMENT => {
                let &[next, _, hi, lo, ..] = crate::at::<8>(packet, at.offset)?;
                let field = u16::from_be_bytes([hi, lo]);
                at.protocol = next;
                at.offset += 8;
                at.fragment |= field & 0xfff9 != 0;
                if field & 0xfff8 != 0 {
                    at.later_fragment = true;
                    return Some(at);
                }
            }
            _ => return (at.offset <= packet.len()).then_some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let repr = Repr {
            traffic_class: 0xb8,
            flow_label: 0x12345,
            payload_len: rest.len() as u16,
            next_header: next,
            hop_limit: 64,
            src: [1; 16],
            dst: [2; 16],
        };
        [&repr.emit()[..], rest].concat()
    }

    #[test]
    fn the_walk_ends_at_the_transport_header() {
        let plain = packet(17, &[0; 8]);
        let end = payload(&plain).unwrap();
        assert_eq!((end.protocol, end.offset, end.fragment), (17, 40, false));

        let hop_then_destination =
            packet(0, &[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0, 9, 9, 9, 9]);
        let end = payload(&hop_then_destination).unwrap();
        assert_eq!((end.protocol, end.offset), (6, 56));
    }

    #[test]
    fn fragments_are_told_from_atomic_ones() {
        let first = packet(44, &[17, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(payload(&first).is_some_and(|p| p.fragment && !p.later_fragment));
        let later = packet(44, &[17, 0, 0, 8, 0, 0, 0, 7, 0, 0]);
        assert!(payload(&later).is_some_and(|p| p.fragment && p.later_fragment));
        let atomic = packet(44, &[17, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(payload(&atomic).is_some_and(|p| !p.fragment && p.protocol == 17));
    }

    #[test]
    fn a_chain_that_is_odd_is_refused() {
        let misplaced = packet(60, &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(payload(&misplaced), None);
        let endless = packet(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(20));
        assert_eq!(payload(&endless), None);
        let cut = packet(43, &[6]);
        assert_eq!(payload(&cut), None);
    }

    #[test]
    fn the_traffic_class_reads_back() {
        let bytes = packet(17, &[]);
        let mut head: [u8; LEN] = bytes[..LEN].try_into().unwrap();
        let mut view = Ipv6(&mut head);
        assert_eq!(view.traffic_class(), 0xb8);
        view.set_traffic_class(0x03);
        assert_eq!((view.version(), view.traffic_class()), (6, 3));
        assert_eq!(u32::from_be_bytes([head[0], head[1], head[2], head[3]]) & 0xf_ffff, 0x12345);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(end) = payload(&bytes) {
                prop_assert!(end.later_fragment || end.offset <= bytes.len());
            }
        }
    }
}
