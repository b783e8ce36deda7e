//! ARP of pods (RFC 826): whatever a pod asks for, its host is the way, as with Calico's proxy ARP.
//!
//! Arrives: [`Request::Arp`](crate::Request::Arp). Leaves: an answer that names
//! `ee:ee:ee:ee:ee:ee`, or nothing.

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

/// The Ethernet address that pods know their host by.
pub const HOST_MAC: EthernetAddress = EthernetAddress([0xee; 6]);

/// The frame that answers the ARP packet at the start of `bytes`. `None` for answers, and for what
/// must not be answered: a probe (RFC 5227, section 2.1.1) or an announcement is a pod asking
/// whether its own address is in use, and an answer would tell it so.
pub fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let packet = ArpPacket::new_checked(bytes).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: asker,
        source_protocol_addr: asker_ip,
        target_protocol_addr: wanted,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    if asker_ip.is_unspecified() || asker_ip == wanted || !asker.is_unicast() {
        return None;
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: HOST_MAC,
        source_protocol_addr: wanted,
        target_hardware_addr: asker,
        target_protocol_addr: asker_ip,
    };
    let ethernet =
        EthernetRepr { src_addr: HOST_MAC, dst_addr: asker, ethertype: EthernetProtocol::Arp };
    let mut frame = vec![0; ethernet.buffer_len() + reply.buffer_len()];
    let mut view = EthernetFrame::new_unchecked(&mut frame[..]);
    ethernet.emit(&mut view);
    reply.emit(&mut ArpPacket::new_unchecked(view.payload_mut()));
    Some(frame)
}
