//! The Internet checksum: in full (RFC 1071) and by difference (RFC 1624).

/// A one's complement sum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// A sum of words that somebody has added.
    pub(crate) fn of(sum: u64) -> Self {
        Self(sum)
    }

    /// Adds bytes as 16-bit words in network byte order; an odd last byte is padded with zero, so
    /// only the last call may have an odd length.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        for pair in pairs {
            self.0 += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = odd {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// The sum folded into 16 bits, not complemented.
    #[inline]
    pub fn fold(self) -> u16 {
        // Below 2³³, 2¹⁸, 2¹⁶ + 2, 2¹⁶: without a branch.
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// The sum of the pseudo-header of RFC 9293 §3.1 (4-byte addresses) or RFC 8200 §8.1 (16-byte).
pub fn pseudo_header(src: &[u8], dst: &[u8], protocol: u8, length: u32) -> Sum {
    let sum = Sum::default().bytes(src).bytes(dst).bytes(&length.to_be_bytes());
    sum.word(u16::from(protocol))
}

/// The difference that changed fields make to a checksum over them (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// Notes that a 16-bit field changes.
    #[must_use]
    #[inline]
    pub fn replace16(mut self, old: u16, new: u16) -> Self {
        self.0 += u64::from(!old) + u64::from(new);
        self
    }

    /// Notes that a 32-bit field at an even offset changes.
    #[must_use]
    #[inline]
    pub fn replace32(mut self, old: u32, new: u32) -> Self {
        // 2¹⁶ is 1 in this arithmetic: both halves at once.
        self.0 += u64::from(!old) + u64::from(new);
        self
    }

    /// Notes that a field of an even number of bytes, at an even offset, changes.
    #[must_use]
    pub fn replace<const N: usize>(mut self, old: &[u8; N], new: &[u8; N]) -> Self {
        let ((old, old_rest), (new, new_rest)) = (old.as_chunks::<4>(), new.as_chunks::<4>());
        for (old, new) in old.iter().zip(new) {
            self = self.replace32(u32::from_be_bytes(*old), u32::from_be_bytes(*new));
        }
        for (old, new) in old_rest.as_chunks::<2>().0.iter().zip(new_rest.as_chunks::<2>().0) {
            self = self.replace16(u16::from_be_bytes(*old), u16::from_be_bytes(*new));
        }
        self
    }

    /// The checksum after the change.
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        Sum(self.0 + u64::from(!checksum)).finish()
    }

    /// The checksum of a UDP datagram after the change: an absent one (zero) stays absent, and a
    /// sum of zero is written as 0xffff (RFC 768).
    #[inline]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        match checksum {
            0 => 0,
            sum => match self.apply(sum) {
                0 => 0xffff,
                new => new,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed_there() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).fold(), 0xddf2);
    }

    proptest! {
        #[test]
        fn a_difference_equals_the_full_sum(
            mut bytes in prop::collection::vec(any::<u8>(), 20..60),
            new in any::<[u8; 4]>(),
            at in 0usize..8,
        ) {
            // A checksum is never over nothing but zeros: IP headers begin with 0x45 or 0x6.
            bytes[19] |= 1;
            let offset = at * 2;
            let before = Sum::default().bytes(&bytes).finish();
            let old: [u8; 4] = bytes[offset..offset + 4].try_into().unwrap();
            bytes[offset..offset + 4].copy_from_slice(&new);
            let after = Sum::default().bytes(&bytes).finish();
            prop_assert_eq!(Delta::default().replace(&old, &new).apply(before), after);
        }

        #[test]
        fn changes_add_up(
            mut bytes in prop::collection::vec(any::<u8>(), 60..=60),
            new in any::<([u8; 16], u32, [u8; 6], u16)>(),
        ) {
            bytes[0] |= 1;
            let mut delta = Delta::default();
            let before = Sum::default().bytes(&bytes).finish();
            let (addr, word, mac, half) = new;
            delta = delta.replace(&bytes[4..20].try_into().unwrap(), &addr);
            bytes[4..20].copy_from_slice(&addr);
            delta = delta.replace(&bytes[20..26].try_into().unwrap(), &mac);
            bytes[20..26].copy_from_slice(&mac);
            delta = delta.replace32(u32::from_be_bytes(bytes[26..30].try_into().unwrap()), word);
            bytes[26..30].copy_from_slice(&word.to_be_bytes());
            delta = delta.replace16(u16::from_be_bytes(bytes[30..32].try_into().unwrap()), half);
            bytes[30..32].copy_from_slice(&half.to_be_bytes());
            prop_assert_eq!(delta.apply(before), Sum::default().bytes(&bytes).finish());
        }

        #[test]
        fn an_absent_udp_checksum_stays_absent(old: u16, new: u16, sum in 1u16..) {
            let delta = Delta::default().replace16(old, new);
            prop_assert_eq!(delta.apply_udp(0), 0);
            prop_assert_ne!(delta.apply_udp(sum), 0);
        }
    }
}
