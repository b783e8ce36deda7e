//! IPv4, RFC 791.

use std::ops::{Deref, DerefMut};

use crate::checksum::{Delta, Sum};

/// Length of the header without options in bytes.
pub const LEN: usize = 20;

/// View of an IPv4 header without its options.
pub struct Ipv4<B>(pub B);

impl<B: Deref<Target = [u8; LEN]>> Ipv4<B> {
    /// Version; 4 in every good packet.
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Length of the header with options in bytes.
    pub fn header_len(&self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        self.0[1]
    }

    /// Length of the packet, header included, in bytes.
    pub fn total_len(&self) -> u16 {
        self.word(2)
    }

    /// Identification of the datagram.
    pub fn identification(&self) -> u16 {
        self.word(4)
    }

    /// Whether the packet may not be fragmented.
    pub fn dont_fragment(&self) -> bool {
        self.0[6] & 0x40 != 0
    }

    /// Whether more fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.0[6] & 0x20 != 0
    }

    /// Offset of the fragment in bytes.
    pub fn fragment_offset(&self) -> u16 {
        (self.word(6) & 0x1fff) << 3
    }

    /// Whether this is a fragment, first or later.
    pub fn is_fragment(&self) -> bool {
        self.word(6) & 0x3fff != 0
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// Protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Header checksum.
    pub fn checksum(&self) -> u16 {
        self.word(10)
    }

    /// Source address.
    pub fn src(&self) -> [u8; 4] {
        let b = &*self.0;
        [b[12], b[13], b[14], b[15]]
    }

    /// Destination address.
    pub fn dst(&self) -> [u8; 4] {
        let b = &*self.0;
        [b[16], b[17], b[18], b[19]]
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
}

impl<B: DerefMut<Target = [u8; LEN]>> Ipv4<B> {
    /// Lowers the TTL by one and mends the checksum. The TTL must not be zero.
    pub fn lower_ttl(&mut self) {
        self.0[8] = self.0[8].wrapping_sub(1);
        // A word that is 0x0100 less makes a sum that is as much more (RFC 1624 §4), and zero is written
        // as 0, never as 0xffff.
        let sum = u32::from(self.checksum()) + 0x0100;
        self.set_checksum((sum + u32::from(sum >= 0xffff)) as u16);
    }

    /// Fills in what is each packet's own, and mends the checksum. Class, length (in bytes),
    /// identification and flags must be zero before.
    pub fn fill_in(
        &mut self,
        traffic_class: u8,
        total_len: u16,
        identification: u16,
        dont_fragment: bool,
    ) {
        debug_assert!(self.0[1..8].iter().all(|byte| *byte == 0), "filled in once");
        let flags = if dont_fragment { 0x4000 } else { 0 };
        let words = [u16::from(traffic_class), total_len, identification, flags];
        let delta = words.iter().fold(Delta::default(), |delta, word| delta.replace16(0, *word));
        self.mend(delta);
        self.0[1] = traffic_class;
        for (at, word) in [(2, total_len), (4, identification), (6, flags)] {
            self.0[at..at + 2].copy_from_slice(&word.to_be_bytes());
        }
    }

    /// Sets DSCP and ECN and mends the checksum.
    pub fn set_traffic_class(&mut self, class: u8) {
        let old = u16::from_be_bytes([self.0[0], self.0[1]]);
        let new = (old & 0xff00) | u16::from(class);
        self.mend(Delta::default().replace16(old, new));
        self.0[1] = class;
    }

    /// Sets both addresses and mends the checksum.
    pub fn set_addresses(&mut self, src: [u8; 4], dst: [u8; 4]) {
        self.mend(Delta::default().replace(&self.src(), &src).replace(&self.dst(), &dst));
        self.0[12..16].copy_from_slice(&src);
        self.0[16..].copy_from_slice(&dst);
    }

    fn mend(&mut self, delta: Delta) {
        self.set_checksum(delta.apply(self.checksum()));
    }

    fn set_checksum(&mut self, sum: u16) {
        self.0[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The fields of a header without options that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Length of the packet, header included, in bytes.
    pub total_len: u16,
    /// Identification of the datagram.
    pub identification: u16,
    /// Whether the packet may not be fragmented.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

impl Repr {
    /// The header's bytes, checksum included.
    pub fn emit(&self) -> [u8; LEN] {
        let [len_hi, len_lo] = self.total_len.to_be_bytes();
        let [id_hi, id_lo] = self.identification.to_be_bytes();
        let flags = if self.dont_fragment { 0x40 } else { 0 };
        let [s0, s1, s2, s3] = self.src;
        let [d0, d1, d2, d3] = self.dst;
        let mut bytes = [
            0x45,
            self.traffic_class,
            len_hi,
            len_lo,
            id_hi,
            id_lo,
            flags,
            0,
            self.ttl,
            self.protocol,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        let sum = Sum::default().bytes(&bytes).finish().to_be_bytes();
        bytes[10..12].copy_from_slice(&sum);
        bytes
    }
}

/// Whether the options of a header name the hosts that its packet is to pass (loose and strict source
/// routing, RFC 791 §3.1), which no router should grant (RFC 7126 §4.3 and 4.4).
pub fn is_source_routed(header: &[u8]) -> bool {
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    let mut at = LEN;
    while let Some([kind, rest @ ..]) = header.get(at..) {
        at += match (*kind, rest) {
            (LOOSE | STRICT, _) => return true,
            // The end of the list, and padding.
            (0, _) => return false,
            (1, _) => 1,
            (_, [len, ..]) if *len >= 2 => usize::from(*len),
            _ => return false,
        };
    }
    false
}

/// Whether the checksum over a header, options included, is right.
#[inline]
pub fn checksum_ok(header: &[u8]) -> bool {
    match <&[u8; LEN]>::try_from(header) {
        // Ones are ones in any byte order (RFC 1071 §2 (B)).
        Ok(header) => {
            let (words, _) = header.as_chunks::<4>();
            let sum = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
            Sum::of(sum).fold() == 0xffff
        }
        Err(_) => Sum::default().bytes(header).fold() == 0xffff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// scapy: raw(IP(src="10.0.0.1", dst="10.0.0.2", id=0x1234, ttl=64, tos=0x02, flags="DF",
    /// proto=17, len=48))
    const SCAPY: [u8; LEN] = [
        0x45, 0x02, 0x00, 0x30, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x14, 0x85, 0x0a, 0x00, 0x00,
        0x01, 0x0a, 0x00, 0x00, 0x02,
    ];

    const REPR: Repr = Repr {
        traffic_class: 2,
        total_len: 48,
        identification: 0x1234,
        dont_fragment: true,
        ttl: 64,
        protocol: 17,
        src: [10, 0, 0, 1],
        dst: [10, 0, 0, 2],
    };

    #[test]
    fn emit_writes_what_scapy_writes() {
        assert_eq!(REPR.emit(), SCAPY);
        assert!(checksum_ok(&SCAPY));
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_as_though_it_had_been_written(
            traffic_class: u8, total_len: u16, identification: u16, dont_fragment: bool, dst: [u8; 4],
        ) {
            let repr = Repr { traffic_class, total_len, identification, dont_fragment, dst, ..REPR };
            let zeros = Repr {
                traffic_class: 0, total_len: 0, identification: 0, dont_fragment: false, ..repr
            };
            let mut bytes = zeros.emit();
            Ipv4(&mut bytes).fill_in(traffic_class, total_len, identification, dont_fragment);
            prop_assert_eq!(bytes, repr.emit());
        }
    }

    #[test]
    fn source_routes_are_found_among_options() {
        // scapy: raw(IP(options=[IPOption_NOP(), IPOption_LSRR(routers=["10.0.0.9"])]))[20:], and of
        // SSRR and RR.
        let with = |options: &[u8]| is_source_routed(&[&SCAPY[..], options].concat());
        assert!(with(&[1, 0x83, 7, 4, 10, 0, 0, 9]));
        assert!(with(&[1, 0x89, 7, 4, 10, 0, 0, 9]));
        assert!(with(&[7, 3, 4, 0x83, 7, 4, 10, 0, 0, 9, 0, 0]));
        assert!(!with(&[1, 7, 7, 4, 0, 0, 0, 0]));
        assert!(!with(&[0, 0x83, 7, 4, 10, 0, 0, 9]), "behind the end of the list");
        assert!(!with(&[7, 1, 0x83, 7]) && !with(&[7]) && !with(&[]));
    }

    #[test]
    fn every_setter_keeps_the_checksum_right() {
        let mut bytes = SCAPY;
        let mut view = Ipv4(&mut bytes);
        view.lower_ttl();
        view.set_traffic_class(0xb9);
        view.set_addresses([192, 168, 255, 255], [0, 0, 0, 1]);
        assert_eq!((view.ttl(), view.traffic_class()), (63, 0xb9));
        assert_eq!((view.src(), view.dst()), ([192, 168, 255, 255], [0, 0, 0, 1]));
        assert!(checksum_ok(&bytes));
    }

    #[test]
    fn a_lower_ttl_does_to_every_checksum_what_any_other_change_of_the_word_does() {
        for sum in 0..=u16::MAX {
            let mut bytes = SCAPY;
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            let mut view = Ipv4(&mut bytes);
            let word = u16::from_be_bytes([view.ttl(), view.protocol()]);
            view.lower_ttl();
            let expected = Delta::default().replace16(word, word - 0x0100).apply(sum);
            assert_eq!(view.checksum(), expected, "{sum:#06x}");
        }
    }
}
