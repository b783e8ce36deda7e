//! Arrives: a parsed packet of a pod whose port has a socket of its own. Leaves: the same with its
//! transport checksum, if the pod had left that to its interface.
//!
//! A veth offers checksum offload and hands frames to XDP as the sender's stack made them: the field
//! then holds the folded sum of the pseudo-header alone (`CHECKSUM_PARTIAL`, include/linux/skbuff.h),
//! SCTP's is zero. A checksum that is right and looks like that comes out as it was. Frames of the
//! trunk were completed by the kernel.

use margay_wire::checksum::{Sum, pseudo_header};
use margay_wire::ethernet;
use margay_wire::{at, at_mut, protocol};

use super::apply;
use crate::batch::{Frame, Kind, Packet};

/// Completes the checksum of a packet that came from its sender this moment.
pub(crate) fn complete(frame: &mut Frame<'_>, packet: &Packet) {
    let field = match packet.tuple.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::SCTP => 8,
        _ => return,
    };
    if packet.kind != Kind::Tracked {
        return;
    }
    let start = ethernet::LEN + usize::from(packet.transport);
    let Some(body) = frame.bytes_mut().get_mut(start..) else { return };
    if packet.tuple.protocol == protocol::SCTP {
        if at::<4>(body, field) == Some(&[0; 4]) {
            apply::sctp_checksum(body);
        }
        return;
    }
    let pseudo = pseudo(packet, body.len() as u32);
    if at::<2>(body, field) != Some(&pseudo.fold().to_be_bytes()) {
        return;
    }
    // The field still holds the sum of the pseudo-header: it is summed with the rest.
    let sum = match Sum::default().bytes(body).finish() {
        0 if packet.tuple.protocol == protocol::UDP => 0xffff,
        sum => sum,
    };
    if let Some(bytes) = at_mut::<2>(body, field) {
        *bytes = sum.to_be_bytes();
    }
}

fn pseudo(packet: &Packet, len: u32) -> Sum {
    let tuple = &packet.tuple;
    match (tuple.src.to_v4_bytes(), tuple.dst.to_v4_bytes()) {
        (Some(src), Some(dst)) => pseudo_header(&src, &dst, tuple.protocol, len),
        _ => {
            let (src, dst) = (tuple.src.to_v6_bytes(), tuple.dst.to_v6_bytes());
            pseudo_header(&src, &dst, tuple.protocol, len)
        }
    }
}
