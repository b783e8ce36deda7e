//! Arrives: a frame as the wire or a pod sent it. Leaves: a frame whose IP header stands right
//! behind its Ethernet header, out of its tunnel, with every length checked, and the facts of its
//! [`Packet`].
//!
//! Drops: unknown_port, not_for_us, malformed, tcp_flags, checksum, not_ip, spoof, link_local, martian,
//! tunnel_*, unknown_tunnel_peer.
//! Punts: arp, ndisc, reassemble.

use std::ops::ControlFlow::{self, Break, Continue};

use margay_model::DropReason;
use margay_tables::addr::{Addr, Tuple};
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::transport::{self, IcmpClass, TCP_LEN, TcpFacts, tcp_flags};
use margay_wire::{at, protocol};

use super::{decap, miss, offload};
use crate::batch::{Fate, Frame, Ingress, Kind, Packet, Punt, Side, Why, is_handed_on};
use crate::snapshot::{HAIRPIN_V4, HAIRPIN_V6, Place, PortId, PortKind, Snapshot, trunk_index};

/// Parses one frame that came from `port` into `packet`, a default one.
#[inline]
pub(crate) fn parse(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    port: ControlFlow<Fate, PortId>,
    packet: &mut Packet,
) -> ControlFlow<Fate> {
    packet.port = port?;
    let Some(port) = snapshot.port(packet.port) else { return dropped(DropReason::UnknownPort) };
    packet.side = match port.kind {
        PortKind::Host => {
            packet.departs = departure(snapshot, frame);
            Side::Host
        }
        PortKind::Uplink => Side::Wire,
        PortKind::Pod(_) => Side::Pod,
        PortKind::Orphan => return dropped(DropReason::UnknownPort),
    };
    packet.tunneled = matches!(frame.ingress, Ingress::Tunnel(_));
    // What a switch floods is for another host, and what is for all of them is not to be forwarded
    // by each (RFC 1812 §5.3.4). Behind a host endpoint it is for the kernel.
    if packet.side == Side::Wire
        && !packet.tunneled
        && at::<6>(frame.bytes(), 0)
            .is_some_and(|dst| *dst != port.mac && (port.guard.is_none() || dst[0] & 1 == 0))
    {
        return dropped(DropReason::NotForUs);
    }
    network(snapshot, frame, packet)?;
    if packet.side == Side::Pod && matches!(frame.ingress, Ingress::Port(_)) {
        offload::complete(frame, packet);
    }
    Continue(())
}

/// The port that a frame came from: its socket's, or on the trunk the one its Ethernet destination
/// names.
#[inline(always)]
pub(super) fn port_of(snapshot: &Snapshot, frame: &Frame<'_>) -> ControlFlow<Fate, PortId> {
    if let Ingress::Port(port) | Ingress::Tunnel(port) = frame.ingress {
        return Continue(port);
    }
    let Some(mac) = at::<6>(frame.bytes(), 0) else { return dropped(DropReason::Malformed) };
    let port = match trunk_index(mac) {
        Some(0) => Some(PortId::HOST),
        Some(ifindex) => match snapshot.trunk.port(ifindex) {
            // The kernel had sent it out of that uplink: it is the host's.
            Some(port) if snapshot.is_uplink(port) => Some(PortId::HOST),
            port => port,
        },
        None => None,
    };
    port.map_or(dropped(DropReason::UnknownPort), Continue)
}

/// The uplink that the kernel had sent a frame of the host's out of.
fn departure(snapshot: &Snapshot, frame: &Frame<'_>) -> Option<PortId> {
    let ifindex = trunk_index(at::<6>(frame.bytes(), 0)?).filter(|ifindex| *ifindex != 0)?;
    snapshot.trunk.port(ifindex).filter(|port| snapshot.is_uplink(*port))
}

/// Parses from the Ethernet header on. A tunnel packet is taken out of its tunnel and parsed once
/// more.
#[inline(always)]
fn network(snapshot: &Snapshot, frame: &mut Frame<'_>, packet: &mut Packet) -> ControlFlow<Fate> {
    headers(frame, packet)?;
    if packet.side == Side::Wire
        && !packet.tunneled
        && let Some(kind) = decap::tunnel(snapshot, packet)
    {
        return inner(snapshot, frame, packet, kind);
    }
    packet.handed_on = packet.tunneled && is_handed_on(frame.bytes());
    sources(snapshot, packet)
}

/// The same of what is in a tunnel.
#[inline(never)]
fn inner(
    snapshot: &Snapshot,
    frame: &mut Frame<'_>,
    packet: &mut Packet,
    kind: decap::Tunnel,
) -> ControlFlow<Fate> {
    decap::decap(snapshot, frame, packet, kind)?;
    packet.tunneled = true;
    headers(frame, packet)?;
    packet.handed_on = is_handed_on(frame.bytes());
    sources(snapshot, packet)
}

#[inline(always)]
fn headers(frame: &mut Frame<'_>, packet: &mut Packet) -> ControlFlow<Fate> {
    let Some(header) = at(frame.bytes(), 0) else { return dropped(DropReason::Malformed) };
    match Ethernet(header).ethertype() {
        ethertype::IPV4 => ipv4(frame, packet),
        ethertype::IPV6 => ipv6(frame, packet),
        ethertype::ARP if packet.side == Side::Pod => punt(packet, Why::Arp),
        _ => dropped(DropReason::NotIp),
    }
}

#[inline(always)]
pub(super) fn ipv4(frame: &mut Frame<'_>, packet: &mut Packet) -> ControlFlow<Fate> {
    let bytes = frame.bytes();
    let Some(view) = at(bytes, ethernet::LEN).map(Ipv4) else {
        return dropped(DropReason::Malformed);
    };
    let (header_len, total) = (view.header_len(), usize::from(view.total_len()));
    if view.version() != 4 || header_len < ipv4::LEN || total < header_len {
        return dropped(DropReason::Malformed);
    }
    let Some(ip) = bytes.get(ethernet::LEN..ethernet::LEN + total) else {
        return dropped(DropReason::Malformed);
    };
    if !ip.get(..header_len).is_some_and(ipv4::checksum_ok) {
        return dropped(DropReason::Checksum);
    }
    if header_len > ipv4::LEN && ip.get(..header_len).is_some_and(ipv4::is_source_routed) {
        return dropped(DropReason::Malformed);
    }
    packet.ip_len = view.total_len();
    packet.transport = header_len as u16;
    packet.ttl = view.ttl();
    packet.dont_fragment = view.dont_fragment();
    packet.tuple.src = Addr::from(view.src());
    packet.tuple.dst = Addr::from(view.dst());
    packet.tuple.protocol = view.protocol();
    let fragment = view.is_fragment();
    let offset = view.fragment_offset();
    let upper = transport_of(ip, packet, fragment);
    // Padding behind the packet is none of it (RFC 894).
    frame.len = ethernet::LEN + total;
    if fragment {
        // A datagram longer than the length field can say is an attack (RFC 1858 and ping of death).
        if usize::from(offset) + total - header_len > usize::from(u16::MAX) {
            return dropped(DropReason::Fragment);
        }
        return Continue(());
    }
    upper
}

pub(super) fn ipv6(frame: &mut Frame<'_>, packet: &mut Packet) -> ControlFlow<Fate> {
    let bytes = frame.bytes();
    let Some(view) = at(bytes, ethernet::LEN).map(Ipv6) else {
        return dropped(DropReason::Malformed);
    };
    let total = ipv6::LEN + usize::from(view.payload_len());
    let Some(ip) = bytes.get(ethernet::LEN..ethernet::LEN + total) else {
        return dropped(DropReason::Malformed);
    };
    let Some(payload) = ipv6::payload(ip).filter(|_| view.version() == 6) else {
        return dropped(DropReason::Malformed);
    };
    let Ok(ip_len) = u16::try_from(total) else { return dropped(DropReason::Malformed) };
    packet.ip_len = ip_len;
    packet.transport = payload.offset as u16;
    packet.ttl = view.hop_limit();
    packet.dont_fragment = true;
    packet.tuple.src = Addr::from(view.src());
    packet.tuple.dst = Addr::from(view.dst());
    // An IPv4 address in IPv6 clothes would be taken for IPv4 by every table.
    if packet.tuple.src.is_v4() || packet.tuple.dst.is_v4() {
        return dropped(DropReason::Martian);
    }
    packet.tuple.protocol = payload.protocol;
    let upper = transport_of(ip, packet, payload.fragment);
    frame.len = ethernet::LEN + total;
    if !payload.fragment
        && payload.protocol == protocol::ICMPV6
        && transport::icmp_class(protocol::ICMPV6, packet.icmp.0) == IcmpClass::Discovery
    {
        return match packet.side {
            Side::Pod => punt(packet, Why::Ndisc),
            _ => dropped(DropReason::Martian),
        };
    }
    upper
}

/// Reads the transport header into the tuple. A fragment has none that could be trusted: it is
/// marked for reassembly by the absence of ports, and [`sources`] sends it there.
#[inline(always)]
fn transport_of(ip: &[u8], packet: &mut Packet, fragment: bool) -> ControlFlow<Fate> {
    packet.tcp = None;
    packet.kind = Kind::Tracked;
    packet.tuple.zone = 0;
    (packet.tuple.src_port, packet.tuple.dst_port) = (0, 0);
    if fragment {
        packet.kind = Kind::Fragment;
        return Continue(());
    }
    let Some(body) = ip.get(usize::from(packet.transport)..) else {
        return dropped(DropReason::Malformed);
    };
    match packet.tuple.protocol {
        protocol::TCP => {
            let Some(tcp) = at::<TCP_LEN>(body, 0).map(TcpFacts::parse) else {
                return dropped(DropReason::Malformed);
            };
            if tcp.header_len < TCP_LEN || tcp.header_len > body.len() {
                return dropped(DropReason::Malformed);
            }
            if !tcp_flags::are_valid(tcp.flags) {
                return dropped(DropReason::TcpFlags);
            }
            packet.tcp = Some(tcp);
            set_ports(body, packet)
        }
        protocol::UDP => {
            let Some(&[_, _, _, _, hi, lo, _, _]) = at::<8>(body, 0) else {
                return dropped(DropReason::Malformed);
            };
            let length = usize::from(u16::from_be_bytes([hi, lo]));
            if length < 8 || length > body.len() {
                return dropped(DropReason::Malformed);
            }
            set_ports(body, packet)
        }
        protocol::SCTP if body.len() < 12 => dropped(DropReason::Malformed),
        protocol::SCTP | protocol::UDPLITE => set_ports(body, packet),
        protocol::ICMP | protocol::ICMPV6 => icmp(body, packet),
        _ => Continue(()),
    }
}

#[inline(always)]
fn set_ports(body: &[u8], packet: &mut Packet) -> ControlFlow<Fate> {
    let Some(ports) = at(body, 0) else { return dropped(DropReason::Malformed) };
    (packet.tuple.src_port, packet.tuple.dst_port) = transport::ports(ports);
    Continue(())
}

/// A query's identifier is the source port of the request and the destination port of the reply,
/// so that each is the other's tuple reversed.
#[inline(never)]
fn icmp(body: &[u8], packet: &mut Packet) -> ControlFlow<Fate> {
    let Some(&[kind, code, _, _, id_hi, id_lo, _, _]) = at::<8>(body, 0) else {
        return dropped(DropReason::Malformed);
    };
    // ICMP of the other family is nothing that anybody would answer.
    if packet.tuple.src.is_v4() != (packet.tuple.protocol == protocol::ICMP) {
        return dropped(DropReason::Malformed);
    }
    packet.icmp = (kind, code);
    let id = u16::from_be_bytes([id_hi, id_lo]);
    match transport::icmp_class(packet.tuple.protocol, kind) {
        IcmpClass::Request => packet.tuple.src_port = id,
        IcmpClass::Reply => packet.tuple.dst_port = id,
        IcmpClass::Error => packet.kind = Kind::IcmpError,
        // What asks for no answer is a flow of its own for each type and code.
        IcmpClass::Discovery | IcmpClass::Other => {
            packet.tuple.src_port = u16::from_be_bytes([kind, code]);
        }
    }
    Continue(())
}

/// Whether the source may come from this side, and the destination be forwarded to at all
/// (RFC 1812 §5.3.7, RFC 4291 §2.5.6).
#[inline(always)]
fn sources(snapshot: &Snapshot, packet: &mut Packet) -> ControlFlow<Fate> {
    let Tuple { src, dst, .. } = packet.tuple;
    if packet.side == Side::Pod && !pod_may_send_from(snapshot, packet.port, src) {
        let mumbles = keeps_to_its_link(src, dst);
        return dropped(if mumbles { DropReason::LinkLocal } else { DropReason::Spoof });
    }
    let strange =
        is_strange_source(snapshot, packet) || is_strange_destination(snapshot, packet.side, dst);
    if strange && !is_kernels(snapshot, packet) {
        return dropped(DropReason::Martian);
    }
    if packet.side == Side::Pod && tunnels_itself(snapshot, &packet.tuple) {
        return dropped(DropReason::TunnelFromWorkload);
    }
    match packet.kind {
        // Who lies about his address is not put together, nor is anybody told of his pieces.
        Kind::Fragment => {
            miss::source_pod(snapshot, packet)?;
            punt(packet, Why::Reassemble)
        }
        Kind::IcmpError => punt(packet, Why::IcmpError),
        Kind::Tracked => Continue(()),
    }
}

/// Whether nobody on that side may send from an address. A server of the node may have one that is
/// never forwarded; on its way to a pod of the same node it is not.
#[inline(always)]
fn is_strange_source(snapshot: &Snapshot, packet: &Packet) -> bool {
    let Tuple { src, dst, .. } = packet.tuple;
    let to_pod = || matches!(snapshot.place(dst), Some(Place::Pod(_)));
    is_martian(src) && !(packet.side == Side::Host && snapshot.is_own(src) && to_pod())
}

/// Whether nobody on that side may send to an address.
#[inline(always)]
fn is_strange_destination(snapshot: &Snapshot, side: Side, dst: Addr) -> bool {
    is_martian(dst)
        && match side {
            Side::Host => !is_hairpin(dst),
            Side::Pod => !snapshot.is_own(dst),
            Side::Wire => true,
        }
}

/// Whether a packet is the kernel's whatever its addresses are: it comes by an uplink with a host
/// endpoint, or was to leave by an uplink.
fn is_kernels(snapshot: &Snapshot, packet: &Packet) -> bool {
    let guarded = |port: PortId| snapshot.port(port).is_some_and(|port| port.guard.is_some());
    packet.departs.is_some()
        || (packet.side == Side::Wire && !packet.tunneled && guarded(packet.port))
}

/// Whether an address is one that the pod behind a port may send from.
pub(crate) fn pod_may_send_from(snapshot: &Snapshot, port: PortId, src: Addr) -> bool {
    let Some(port) = snapshot.port(port) else { return false };
    if port.sources.contains(&src) {
        return true;
    }
    let PortKind::Pod(index) = port.kind else { return false };
    snapshot.workload(index).is_some_and(|workload| {
        let src = src.into();
        workload.endpoint.addresses.contains(&src)
            || workload.endpoint.allowed_sources.iter().any(|net| net.contains(&src))
    })
}

/// Whether neither address leaves the link (RFC 4291 §2.5.6, §2.7): what every IPv6 stack says by
/// itself, MLD (RFC 3810) above all. IPv4 has no such source without configuring it.
fn keeps_to_its_link(src: Addr, dst: Addr) -> bool {
    let unicast = |bytes: [u8; 16]| bytes[0] == 0xfe && bytes[1] & 0xc0 == 0x80;
    let (src, dst) = (src.to_v6_bytes(), dst.to_v6_bytes());
    let multicast = dst[0] == 0xff && dst[1] & 0x0f == 2;
    (unicast(src) || src == [0; 16]) && (unicast(dst) || multicast)
}

fn tunnels_itself(snapshot: &Snapshot, tuple: &Tuple) -> bool {
    let settings = &snapshot.settings;
    match tuple.protocol {
        protocol::IPIP => !settings.allow_ipip_from_workloads,
        protocol::UDP if tuple.dst_port == settings.vxlan_port => {
            !settings.allow_vxlan_from_workloads
        }
        _ => false,
    }
}

/// The node answers itself through a service.
pub(crate) fn is_hairpin(addr: Addr) -> bool {
    addr == Addr::from(HAIRPIN_V4) || addr == Addr::from(HAIRPIN_V6)
}

/// Addresses that are never forwarded: unspecified, loopback, link-local, multicast, reserved.
#[inline]
pub(crate) fn is_martian(addr: Addr) -> bool {
    if addr.is_v4() { is_martian_v4(addr.low_bits()) } else { is_martian_v6(addr) }
}

/// The same by the 32 bits of an IPv4 address.
#[inline(always)]
fn is_martian_v4(bits: u32) -> bool {
    let first = bits >> 24;
    // 0/8, 127/8, 224/4 and 240/4; 169.254/16.
    first == 0 || first == 127 || first >= 224 || bits >> 16 == 0xa9fe
}

/// The same of an IPv6 address: :: and ::1, fe80::/10, ff00::/8.
fn is_martian_v6(addr: Addr) -> bool {
    let (hi, lo) = addr.halves();
    (hi == 0 && lo <= 1) || hi >> 54 == 0xfe80 >> 6 || hi >> 56 == 0xff
}

pub(crate) fn dropped<T>(reason: DropReason) -> ControlFlow<Fate, T> {
    Break(Fate::Drop(reason))
}

pub(crate) fn punt<T>(packet: &Packet, why: Why) -> ControlFlow<Fate, T> {
    Break(Fate::Punt(Punt { port: packet.port, tunneled: packet.tunneled, why }))
}
