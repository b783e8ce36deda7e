//! Keys: tuples in the words that records hold them in.

use crate::addr::{Addr, Tuple};

/// A tuple of IPv4: quicker made, kept and compared than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyV4 {
    /// Source and destination.
    pub(super) addresses: u64,
    /// Both ports, zone and protocol: what of word 1 is the key's.
    pub(super) meta: u64,
}

/// A tuple of either family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) meta: u64,
    pub(super) v4: bool,
    pub(super) words_v4: u64,
    pub(super) words: [u64; 4],
}

// === impl KeyV4 ===

impl KeyV4 {
    /// The key of the node's own zone with these addresses and ports, in host byte order.
    #[inline]
    pub fn new((src, dst): (u32, u32), (src_port, dst_port): (u16, u16), protocol: u8) -> Self {
        let addresses = u64::from(src) << 32 | u64::from(dst);
        Self { addresses, meta: meta(src_port, dst_port, 0, protocol) }
    }

    /// Source and destination address.
    #[inline]
    pub fn addresses(self) -> (u32, u32) {
        ((self.addresses >> 32) as u32, self.addresses as u32)
    }

    /// Source port in the upper half, destination port in the lower.
    #[inline]
    pub fn ports(self) -> u32 {
        (self.meta >> 32) as u32
    }

    /// The IP protocol number.
    #[inline]
    pub fn protocol(self) -> u8 {
        (self.meta >> 8) as u8
    }

    /// The tuple that it stands for.
    #[inline]
    pub fn tuple(self) -> Tuple {
        let (src, dst) = unpack_v4(self.addresses);
        Tuple {
            src,
            dst,
            src_port: (self.meta >> 48) as u16,
            dst_port: (self.meta >> 32) as u16,
            protocol: self.protocol(),
            zone: (self.meta >> 16) as u16,
        }
    }
}

// === impl Key ===

impl Key {
    #[inline]
    pub(super) fn new(tuple: &Tuple) -> Self {
        let (src, dst) = (tuple.src.halves(), tuple.dst.halves());
        Self {
            meta: meta(tuple.src_port, tuple.dst_port, tuple.zone, tuple.protocol),
            v4: tuple.is_v4(),
            words_v4: pack_v4(tuple.src, tuple.dst),
            words: [src.0, src.1, dst.0, dst.1],
        }
    }
}

#[inline]
fn meta(src_port: u16, dst_port: u16, zone: u16, protocol: u8) -> u64 {
    let ports = u64::from(src_port) << 48 | u64::from(dst_port) << 32;
    ports | u64::from(zone) << 16 | u64::from(protocol) << 8
}

pub(super) fn pack_v4(src: Addr, dst: Addr) -> u64 {
    u64::from(src.low_bits()) << 32 | u64::from(dst.low_bits())
}

pub(super) fn unpack_v4(word: u64) -> (Addr, Addr) {
    (Addr::from_v4_bits((word >> 32) as u32), Addr::from_v4_bits(word as u32))
}
