//! Addresses, prefixes and 5-tuples of both families in one shape, and their hash.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use margay_model::flow::FlowTuple;

/// An address of either family as 128 bits; IPv4 a.b.c.d is `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
///
/// An IPv6 packet that carries a mapped address must not reach the tables (it would be taken for
/// IPv4): such addresses do not appear on a wire, the parser drops them.
///
/// The order is the numeric one, which puts every IPv4 address in one block of the IPv6 space.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    hi: u64,
    lo: u64,
}

/// A network of either family; host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: Addr,
    /// Length within the 128 bits: 96 + n for an IPv4 network /n.
    len: u8,
}

/// What identifies one direction of a connection.
///
/// Ports are in host byte order. Protocols without ports have zeros. An ICMP or ICMPv6 query has
/// its identifier in `src_port` and 0 in `dst_port`, an ICMP or ICMPv6 answer has 0 in `src_port`
/// and the identifier in `dst_port`, so that [`Tuple::reversed`] of a query is its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, or the identifier of an ICMP query.
    pub src_port: u16,
    /// Destination port, or the identifier of an ICMP answer.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Routing domain; 0 is the node's own.
    pub zone: u16,
}

const V4_BLOCK: u64 = 0xffff_0000_0000;
const V4_BITS: u8 = 96;

// === impl Addr ===

impl Addr {
    /// The IPv4 address with these 32 bits, in host byte order.
    pub const fn from_v4_bits(bits: u32) -> Self {
        Self { hi: 0, lo: V4_BLOCK | bits as u64 }
    }

    /// The address with these 128 bits, in host byte order.
    pub const fn from_bits(bits: u128) -> Self {
        Self { hi: (bits >> 64) as u64, lo: bits as u64 }
    }

    /// All 128 bits in host byte order.
    pub const fn bits(self) -> u128 {
        (self.hi as u128) << 64 | self.lo as u128
    }

    /// Whether this is an IPv4 address.
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && self.lo >> 32 == V4_BLOCK >> 32
    }

    /// The 32 bits of an IPv4 address in host byte order; of an IPv6 address the last 32 bits.
    pub const fn low_bits(self) -> u32 {
        self.lo as u32
    }

    /// The upper and lower 64 bits.
    pub const fn halves(self) -> (u64, u64) {
        (self.hi, self.lo)
    }

    /// The address with these upper and lower 64 bits.
    pub const fn from_halves(hi: u64, lo: u64) -> Self {
        Self { hi, lo }
    }

    /// Four bytes in transmission order, or `None` for IPv6.
    pub const fn to_v4_bytes(self) -> Option<[u8; 4]> {
        if self.is_v4() { Some((self.lo as u32).to_be_bytes()) } else { None }
    }

    /// Sixteen bytes in transmission order (of an IPv4 address the mapped form).
    pub const fn to_v6_bytes(self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    /// The first `len` of the 128 bits, the others zero. A length above 128 counts as 128.
    pub const fn masked(self, len: u8) -> Self {
        let mask = match len {
            0 => 0,
            1..128 => u128::MAX << (128 - len),
            _ => u128::MAX,
        };
        Self::from_bits(self.bits() & mask)
    }

    /// A seeded hash of the address.
    pub const fn hash(self, seed: u64) -> u64 {
        mix(mix(self.lo ^ seed, self.hi ^ K[0]) ^ seed, K[1])
    }
}

impl From<[u8; 4]> for Addr {
    fn from(bytes: [u8; 4]) -> Self {
        Self::from_v4_bits(u32::from_be_bytes(bytes))
    }
}

impl From<[u8; 16]> for Addr {
    fn from(bytes: [u8; 16]) -> Self {
        Self::from_bits(u128::from_be_bytes(bytes))
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(addr: Ipv4Addr) -> Self {
        Self::from_v4_bits(addr.to_bits())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(addr: Ipv6Addr) -> Self {
        Self::from_bits(addr.to_bits())
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => addr.into(),
            IpAddr::V6(addr) => addr.into(),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() {
            Ipv4Addr::from_bits(addr.low_bits()).into()
        } else {
            Ipv6Addr::from_bits(addr.bits()).into()
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Prefix ===

impl Prefix {
    /// The network of one address.
    pub const fn host(addr: Addr) -> Self {
        Self { addr, len: 128 }
    }

    /// The network with the first `len` of an address's 128 bits (96 + n for IPv4 /n). For an
    /// IPv4 address a length below 96 counts as 96, so that families never mix.
    pub const fn new(addr: Addr, len: u8) -> Self {
        let len = if len > 128 { 128 } else { len };
        let len = if addr.is_v4() && len < V4_BITS { V4_BITS } else { len };
        Self { addr: addr.masked(len), len }
    }

    /// Its first address.
    pub const fn addr(self) -> Addr {
        self.addr
    }

    /// Its length within 128 bits.
    pub const fn len128(self) -> u8 {
        self.len
    }

    /// Whether it is an IPv4 network.
    pub const fn is_v4(self) -> bool {
        self.addr.is_v4() && self.len >= V4_BITS
    }

    /// Whether `addr` lies in it. No IPv4 address lies in an IPv6 network, `::/0` included.
    pub const fn contains(self, addr: Addr) -> bool {
        let masked = addr.masked(self.len);
        masked.hi == self.addr.hi && masked.lo == self.addr.lo && addr.is_v4() == self.is_v4()
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::new(net.addr().into(), V4_BITS + net.prefix_len()),
            IpNet::V6(net) => {
                let addr = Addr::from(net.addr());
                Self { addr: addr.masked(net.prefix_len()), len: net.prefix_len() }
            }
        }
    }
}

impl From<Addr> for Prefix {
    fn from(addr: Addr) -> Self {
        Self::host(addr)
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        match IpAddr::from(prefix.addr) {
            IpAddr::V4(addr) if prefix.is_v4() => {
                Ipv4Net::new_assert(addr, prefix.len - V4_BITS).into()
            }
            _ => Ipv6Net::new_assert(Ipv6Addr::from_bits(prefix.addr.bits()), prefix.len).into(),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpNet::from(*self).fmt(f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Tuple ===

impl Tuple {
    /// The tuple of a packet that goes the other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            ..self
        }
    }

    /// Whether both addresses are IPv4.
    pub const fn is_v4(&self) -> bool {
        self.src.is_v4() && self.dst.is_v4()
    }

    /// A seeded hash of all fields. Its bits are good from both ends.
    #[inline(always)] // Measured: called, the tuple goes through memory.
    pub const fn hash(&self, seed: u64) -> u64 {
        let ports = (self.src_port as u64) << 48 | (self.dst_port as u64) << 32;
        let rest = ports | (self.zone as u64) << 16 | (self.protocol as u64) << 8;
        let src = mix(self.src.lo ^ seed, self.src.hi ^ K[0]);
        let dst = mix(self.dst.lo ^ K[1], self.dst.hi ^ seed.rotate_left(32));
        // One step alone leaves neighbouring ports neighbours for some destinations.
        let rest = mix(rest ^ seed, K[1]);
        mix(src ^ rest, dst ^ K[2])
    }
}

impl From<FlowTuple> for Tuple {
    fn from(tuple: FlowTuple) -> Self {
        let FlowTuple { src, dst, protocol, src_port, dst_port } = tuple;
        Self { src: src.into(), dst: dst.into(), src_port, dst_port, protocol, zone: 0 }
    }
}

impl From<Tuple> for FlowTuple {
    fn from(tuple: Tuple) -> Self {
        Self {
            src: tuple.src.into(),
            dst: tuple.dst.into(),
            protocol: tuple.protocol,
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
        }
    }
}

/// Odd constants with about as many ones as zeros (digits of pi, as in Blowfish).
const K: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1];

/// Folded 64 × 64 → 128 bit multiplication, the mixing step of wyhash and its kin: two or three
/// cycles of throughput, every input bit reaches every output bit. Not meant against an attacker
/// who sees the seed.
#[inline]
const fn mix(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse::<IpNet>().unwrap().into()
    }

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["0.0.0.0", "255.255.255.255", "10.1.2.3", "::", "::1", "fd00::1"] {
            assert_eq!(addr(text).to_string(), text);
        }
        assert_eq!(Addr::from([10, 1, 2, 3]).to_v4_bytes(), Some([10, 1, 2, 3]));
        assert_eq!(addr("fd00::1").to_v4_bytes(), None);
        assert_eq!(Addr::from(addr("fd00::1").to_v6_bytes()), addr("fd00::1"));
    }

    #[test]
    fn ports_in_a_row_spread_over_both_halves_whatever_the_addresses() {
        let mut random = 1u64;
        let mut next = || {
            random = mix(random ^ K[2], K[0]).wrapping_add(1);
            random
        };
        for _ in 0..4000 {
            let (seed, addrs, first) = (next(), next(), next() as u16);
            let tuple = Tuple {
                src: Addr::from_v4_bits(addrs as u32),
                dst: Addr::from_v4_bits((addrs >> 32) as u32),
                dst_port: 80,
                protocol: 6,
                ..Tuple::default()
            };
            // As Linux takes them: every second one.
            let hash = |n: u16| Tuple { src_port: first.wrapping_add(2 * n), ..tuple }.hash(seed);
            for bit in [0, 63] {
                let ones = (0..64u16).filter(|n| hash(*n) >> bit & 1 == 1).count();
                assert!((8..=56).contains(&ones), "{tuple:?} {seed:x}: {ones} of 64 in bit {bit}");
            }
        }
    }

    #[test]
    fn networks_survive_the_way_there_and_back_without_host_bits() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("::/0", "::/0"),
            ("fd00:1::5/32", "fd00:1::/32"),
        ] {
            assert_eq!(prefix(text).to_string(), shown);
        }
    }

    #[test]
    fn the_whole_of_ipv6_does_not_contain_ipv4() {
        assert!(!prefix("::/0").contains(addr("10.0.0.1")));
        assert!(prefix("::/0").contains(addr("fd00::1")));
        assert!(prefix("0.0.0.0/0").contains(addr("10.0.0.1")));
        assert!(!prefix("0.0.0.0/0").contains(addr("fd00::1")));
    }

    #[test]
    fn a_hash_spreads_ports_over_both_halves() {
        let mut high = HashSet::new();
        let mut low = HashSet::new();
        for port in 0..=u16::MAX {
            let tuple = Tuple { src_port: port, src: addr("10.0.0.1"), ..Tuple::default() };
            let hash = tuple.hash(7);
            high.insert(hash >> 48);
            low.insert(hash as u16);
        }
        // 65,536 random balls in 65,536 bins leave 1/e of the bins empty; evener is no harm.
        for bins in [high.len(), low.len()] {
            assert!(bins > 40_500, "{bins}");
        }
    }

    proptest! {
        #[test]
        fn reversing_twice_is_identity(a: u128, b: u128, p: u16, q: u16) {
            let tuple = Tuple {
                src: Addr::from_bits(a),
                dst: Addr::from_bits(b),
                src_port: p,
                dst_port: q,
                protocol: 6,
                zone: 1,
            };
            prop_assert_eq!(tuple.reversed().reversed(), tuple);
            prop_assert_eq!(tuple.hash(1), tuple.hash(1));
        }

        #[test]
        fn a_prefix_contains_what_ipnet_says(net: u32, len in 0u8..=32, other: u32) {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(net), len).unwrap();
            let other = Ipv4Addr::from_bits(other);
            prop_assert_eq!(Prefix::from(IpNet::V4(net)).contains(other.into()), net.contains(&other));
        }
    }
}
