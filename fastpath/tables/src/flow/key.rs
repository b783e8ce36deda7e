//! Keys: tuples in the words that records hold them in.

use super::record::FlowRef;
use crate::addr::{Addr, Tuple};

/// A tuple of one family in the words that records hold it in: quicker made, kept and compared than
/// a [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey<W> {
    /// Source and destination.
    addresses: W,
    /// Both ports, zone and protocol: what of word 1 is the key's.
    meta: u64,
}

/// A tuple of IPv4: both addresses in one word.
pub type KeyV4 = FlowKey<u64>;
/// A tuple of IPv6: of each address the upper half before the lower.
pub type KeyV6 = FlowKey<[u64; 4]>;

/// Both addresses of a tuple as the records of its family hold them.
pub trait Words: Copy + Eq {
    /// Source and destination.
    fn addresses(self) -> (Addr, Addr);

    /// Those of a flow's packets as they arrive, if it is one of the family.
    fn arriving(flow: &FlowRef<'_>) -> Option<Self>;

    /// Those of its packets as they leave; it is one of the family.
    fn leaving(flow: &FlowRef<'_>) -> Self;
}

/// A tuple of either family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) meta: u64,
    pub(super) v4: bool,
    pub(super) words_v4: u64,
    pub(super) words: [u64; 4],
}

// === impl FlowKey ===

impl<W: Words> FlowKey<W> {
    /// The tuple that it stands for.
    #[inline]
    pub fn tuple(&self) -> Tuple {
        let (src, dst) = self.addresses.addresses();
        unpack(src, dst, self.meta)
    }

    /// Source port in the upper half, destination port in the lower.
    #[inline]
    pub fn ports(&self) -> u32 {
        (self.meta >> 32) as u32
    }

    /// The IP protocol number.
    #[inline]
    pub fn protocol(&self) -> u8 {
        (self.meta >> 8) as u8
    }

    /// Whether packets with this key belong to that flow, which is live.
    #[inline]
    pub(super) fn is_of(&self, flow: &FlowRef<'_>) -> bool {
        flow.is_live_with(self.meta) && W::arriving(flow) == Some(self.addresses)
    }

    /// The key that packets which arrive in that flow with this one leave with.
    #[inline]
    #[must_use]
    pub fn rewritten(&self, flow: &FlowRef<'_>) -> Self {
        Self { addresses: W::leaving(flow), meta: flow.rewritten_meta(self.meta) }
    }
}

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

impl KeyV6 {
    /// The key of the node's own zone with these addresses and ports, in host byte order.
    #[inline]
    pub fn new((src, dst): (Addr, Addr), (src_port, dst_port): (u16, u16), protocol: u8) -> Self {
        let (src, dst) = (src.halves(), dst.halves());
        let addresses = [src.0, src.1, dst.0, dst.1];
        Self { addresses, meta: meta(src_port, dst_port, 0, protocol) }
    }
}

impl Words for u64 {
    #[inline]
    fn addresses(self) -> (Addr, Addr) {
        unpack_v4(self)
    }

    #[inline]
    fn arriving(flow: &FlowRef<'_>) -> Option<Self> {
        (!flow.id().is_v6()).then(|| flow.arriving_v4())
    }

    #[inline]
    fn leaving(flow: &FlowRef<'_>) -> Self {
        flow.leaving_v4()
    }
}

impl Words for [u64; 4] {
    #[inline]
    fn addresses(self) -> (Addr, Addr) {
        let [src_hi, src_lo, dst_hi, dst_lo] = self;
        (Addr::from_halves(src_hi, src_lo), Addr::from_halves(dst_hi, dst_lo))
    }

    #[inline]
    fn arriving(flow: &FlowRef<'_>) -> Option<Self> {
        flow.id().is_v6().then(|| flow.words_v6(flow.dir()))
    }

    #[inline]
    fn leaving(flow: &FlowRef<'_>) -> Self {
        let [src_hi, src_lo, dst_hi, dst_lo] = flow.words_v6(flow.peer().dir());
        [dst_hi, dst_lo, src_hi, src_lo]
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
