//! Outer headers. Most of each is the same for all packets of a tunnel and is written here, once; what is
//! a packet's own is filled in where it leaves (`path/finish.rs`).

use std::net::IpAddr;

use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::{protocol, vxlan};

/// TTL of outer headers, as Linux's tunnels have it.
const TTL: u8 = 64;

/// What is put around a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Nothing: it is routed as it is.
    None,
    /// Nothing, and the Ethernet destination stays what it was: it may be a group's.
    Arrival,
    /// Nothing, and the Ethernet source is the neighbour: the kernel's choice was put there when its
    /// frame was taken from the uplink.
    Departure,
    /// RFC 2003.
    Ipip(Ipip),
    /// RFC 7348.
    Vxlan(Vxlan),
}

/// An IPv4 header around IPv4. Length, class, identification and flags are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipip {
    pub(crate) ip: [u8; ipv4::LEN],
}

/// IP, UDP and VXLAN headers, and the Ethernet header within. Zero are lengths, class, identification and
/// flags of IP, source port and checksum of UDP; the packet within is of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    pub(crate) ip: OuterIp,
    pub(crate) udp: [u8; vxlan::UDP_LEN + vxlan::LEN],
    pub(crate) ethernet: [u8; ethernet::LEN],
}

/// An IP header of the underlay's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OuterIp {
    V4([u8; ipv4::LEN]),
    V6([u8; ipv6::LEN]),
}

// === impl Outer ===

impl Outer {
    /// Outer source and destination.
    pub fn ends(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::None | Self::Arrival | Self::Departure => None,
            Self::Ipip(tunnel) => Some(OuterIp::V4(tunnel.ip).ends()),
            Self::Vxlan(tunnel) => Some(tunnel.ip.ends()),
        }
    }

    /// What the other end puts around its packets to here.
    #[must_use]
    pub(crate) fn mirrored(mut self) -> Self {
        match &mut self {
            Self::None | Self::Arrival | Self::Departure => {}
            Self::Ipip(tunnel) => mirror_v4(&mut tunnel.ip),
            Self::Vxlan(tunnel) => tunnel.mirror(),
        }
        self
    }
}

// === impl Ipip ===

impl Ipip {
    /// The tunnel from `src` to `dst`.
    pub fn new(src: [u8; 4], dst: [u8; 4]) -> Self {
        Self { ip: ip_v4(protocol::IPIP, src, dst) }
    }
}

// === impl Vxlan ===

impl Vxlan {
    /// Length of what stands between the IP headers, in bytes.
    pub(crate) const INNER: usize = vxlan::UDP_LEN + vxlan::LEN + ethernet::LEN;

    /// The tunnel between two ends, of one family: source and destination, outside and of the Ethernet
    /// header within, where they are the VTEPs'.
    pub fn new(
        ends: (IpAddr, IpAddr),
        vteps: ([u8; 6], [u8; 6]),
        port: u16,
        vni: u32,
    ) -> Option<Self> {
        let ip = match (ends.0.to_canonical(), ends.1.to_canonical()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                OuterIp::V4(ip_v4(protocol::UDP, src.octets(), dst.octets()))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => OuterIp::V6(ip_v6(src.octets(), dst.octets())),
            _ => return None,
        };
        let mut inner = [0; ethernet::LEN];
        Ethernet(&mut inner).emit(vteps.1, vteps.0, ethertype::IPV4);
        Some(Self { ip, udp: vxlan::emit(0, port, 0, vni), ethernet: inner })
    }

    fn mirror(&mut self) {
        match &mut self.ip {
            OuterIp::V4(ip) => mirror_v4(ip),
            OuterIp::V6(ip) => {
                let mut ip = Ipv6(ip);
                ip.set_addresses(ip.dst(), ip.src());
            }
        }
        let mut inner = Ethernet(&mut self.ethernet);
        inner.emit(inner.src(), inner.dst(), inner.ethertype());
    }
}

// === impl OuterIp ===

impl OuterIp {
    fn ends(&self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4(ip) => (Ipv4(ip).src().into(), Ipv4(ip).dst().into()),
            Self::V6(ip) => (Ipv6(ip).src().into(), Ipv6(ip).dst().into()),
        }
    }
}

fn ip_v4(protocol: u8, src: [u8; 4], dst: [u8; 4]) -> [u8; ipv4::LEN] {
    let (traffic_class, total_len, identification) = (0, 0, 0);
    let dont_fragment = false;
    ipv4::Repr {
        traffic_class,
        total_len,
        identification,
        dont_fragment,
        ttl: TTL,
        protocol,
        src,
        dst,
    }
    .emit()
}

fn ip_v6(src: [u8; 16], dst: [u8; 16]) -> [u8; ipv6::LEN] {
    let (traffic_class, flow_label, payload_len) = (0, 0, 0);
    let next_header = protocol::UDP;
    ipv6::Repr { traffic_class, flow_label, payload_len, next_header, hop_limit: TTL, src, dst }
        .emit()
}

fn mirror_v4(ip: &mut [u8; ipv4::LEN]) {
    let mut ip = Ipv4(ip);
    ip.set_addresses(ip.dst(), ip.src());
}
