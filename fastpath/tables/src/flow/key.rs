//! Keys: tuples in the words that records hold them in.

use super::record::FlowRef;
use crate::addr::{Addr, Tuple};

/// A tuple of one family in the words that records hold it in: quicker made, kept and compared than
/// a [`Tuple`].
pub trait FlowKey: Copy + Eq {
    /// The tuple that it stands for.
    fn tuple(&self) -> Tuple;

    /// Both ports, zone and protocol, as word 1 of a record has them.
    fn meta(&self) -> u64;

    /// Whether packets with this key belong to that flow, which is live.
    fn is_of(&self, flow: &FlowRef<'_>) -> bool;

    /// The key that packets which arrive in that flow with this one leave with.
    #[must_use]
    fn rewritten(&self, flow: &FlowRef<'_>) -> Self;

    /// Source port in the upper half, destination port in the lower.
    #[inline]
    fn ports(&self) -> u32 {
        (self.meta() >> 32) as u32
    }

    /// The IP protocol number.
    #[inline]
    fn protocol(&self) -> u8 {
        (self.meta() >> 8) as u8
    }
}

/// A tuple of IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyV4 {
    /// Source and destination.
    pub(super) addresses: u64,
    /// Both ports, zone and protocol: what of word 1 is the key's.
    pub(super) meta: u64,
}

/// A tuple of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyV6 {
    /// Source and destination, the upper half of each before the lower.
    pub(super) addresses: [u64; 4],
    /// As in [`KeyV4`].
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
}

impl FlowKey for KeyV4 {
    #[inline]
    fn tuple(&self) -> Tuple {
        let (src, dst) = unpack_v4(self.addresses);
        unpack(src, dst, self.meta)
    }

    #[inline]
    fn meta(&self) -> u64 {
        self.meta
    }

    #[inline]
    fn is_of(&self, flow: &FlowRef<'_>) -> bool {
        flow.matches_v4(self)
    }

    #[inline]
    fn rewritten(&self, flow: &FlowRef<'_>) -> Self {
        flow.rewrite_v4(self)
    }
}

// === impl KeyV6 ===

impl KeyV6 {
    /// The key of the node's own zone with these addresses and ports, in host byte order.
    #[inline]
    pub fn new((src, dst): (Addr, Addr), (src_port, dst_port): (u16, u16), protocol: u8) -> Self {
        let (src, dst) = (src.halves(), dst.halves());
        let addresses = [src.0, src.1, dst.0, dst.1];
        Self { addresses, meta: meta(src_port, dst_port, 0, protocol) }
    }
}

impl FlowKey for KeyV6 {
    #[inline]
    fn tuple(&self) -> Tuple {
        let [src_hi, src_lo, dst_hi, dst_lo] = self.addresses;
        let (src, dst) = (Addr::from_halves(src_hi, src_lo), Addr::from_halves(dst_hi, dst_lo));
        unpack(src, dst, self.meta)
    }

    #[inline]
    fn meta(&self) -> u64 {
        self.meta
    }

    #[inline]
    fn is_of(&self, flow: &FlowRef<'_>) -> bool {
        flow.matches_v6(self)
    }

    #[inline]
    fn rewritten(&self, flow: &FlowRef<'_>) -> Self {
        flow.rewrite_v6(self)
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

#[inline]
pub(super) fn unpack(src: Addr, dst: Addr, meta: u64) -> Tuple {
    Tuple {
        src,
        dst,
        src_port: (meta >> 48) as u16,
        dst_port: (meta >> 32) as u16,
        protocol: (meta >> 8) as u8,
        zone: (meta >> 16) as u16,
    }
}
