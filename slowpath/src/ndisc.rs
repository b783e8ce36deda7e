//! Neighbour discovery of pods (RFC 4861): whatever a pod asks for, its host is the way.
//!
//! Arrives: [`Request::Ndisc`](crate::Request::Ndisc). Leaves: an advertisement that names
//! `ee:ee:ee:ee:ee:ee`, or nothing.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet, Icmpv6Repr,
    Ipv6Address, Ipv6Packet, NdiscNeighborFlags, NdiscRepr,
};

use crate::arp::HOST_MAC;
use crate::packet::{self, ICMPV6, IpView};

/// Proof that a packet was not routed (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;

/// The frame that answers the IPv6 packet at the start of `bytes`, which came in a frame from the
/// Ethernet address `from` (used where the packet itself does not say). `None` for advertisements, for
/// what RFC 4861 (section 7.1.1) calls invalid, and for duplicate address detection, which comes
/// from the unspecified address (RFC 4862, section 5.4): an answer would take the pod's address
/// away.
pub fn answer(bytes: &[u8], from: EthernetAddress) -> Option<Vec<u8>> {
    let view = IpView::parse(bytes)?;
    let (IpAddr::V6(asker_ip), IpAddr::V6(to)) = (view.src, view.dst) else { return None };
    let hop_limit = Ipv6Packet::new_checked(bytes).ok()?.hop_limit();
    if view.protocol != ICMPV6 || hop_limit != HOP_LIMIT || view.part.is_some() {
        return None;
    }
    let (wanted, asker) = solicitation(asker_ip, to, view.payload())?;
    let asker = asker.unwrap_or(from);
    if asker_ip.is_unspecified()
        || asker_ip == wanted
        || wanted.is_multicast()
        || !asker.is_unicast()
    {
        return None;
    }
    let advert = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
        target_addr: wanted,
        lladdr: Some(HOST_MAC.into()),
    });
    let reply = packet::emit(
        wanted.into(),
        asker_ip.into(),
        ICMPV6,
        HOP_LIMIT,
        advert.buffer_len(),
        |payload| {
            let mut out = Icmpv6Packet::new_unchecked(payload);
            advert.emit(&wanted, &asker_ip, &mut out, &ChecksumCapabilities::default());
        },
    )?;
    let ethernet =
        EthernetRepr { src_addr: HOST_MAC, dst_addr: asker, ethertype: EthernetProtocol::Ipv6 };
    let mut frame = vec![0; ethernet.buffer_len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    frame.extend_from_slice(&reply);
    Some(frame)
}

/// What a solicitation asks for, and the Ethernet address of who asks; the option that has it may
/// be missing where the solicitation was sent to one host (RFC 4861, section 4.3).
fn solicitation(
    src: Ipv6Address,
    dst: Ipv6Address,
    icmp: &[u8],
) -> Option<(Ipv6Address, Option<EthernetAddress>)> {
    let packet = Icmpv6Packet::new_checked(icmp).ok()?;
    let caps = ChecksumCapabilities::default();
    match Icmpv6Repr::parse(&src, &dst, &packet, &caps).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr }) => {
            let asker = lladdr.and_then(|a| Some(EthernetAddress(a.as_bytes().try_into().ok()?)));
            Some((target_addr, asker))
        }
        _ => None,
    }
}
