//! Refusals in the name of an address that nobody serves, or whose pod has connections enough: a reset
//! for TCP, else port unreachable.
//!
//! Arrives: [`Request::Reject`](crate::Request::Reject) or
//! [`Request::ConnectionLimit`](crate::Request::ConnectionLimit). Leaves: a packet whose source is the
//! address that the client sent to, so that the client takes it for its connection's end.

use margay_model::reason::DropReason;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use crate::icmp_error::{self, Problem};
use crate::packet::{self, IpView, TCP};
use crate::punt::Unreachable;

const TTL: u8 = 64;

/// What to do about a packet that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A TCP reset.
    Reset(Vec<u8>),
    /// An ICMP error; the error budget applies.
    Unreachable(Vec<u8>),
    /// A reset is never answered.
    Silent,
    /// No refusal can be sent.
    Impossible(DropReason),
}

/// The refusal of a packet.
pub fn refuse(view: &IpView<'_>) -> Refusal {
    let problem = Problem::Unreachable(Unreachable::Port);
    if !packet::is_one_host(view.src) || packet::is_many(view.dst) || view.is_later_fragment() {
        return Refusal::Impossible(DropReason::PuntRefused);
    }
    if view.protocol == TCP {
        return reset(view);
    }
    if !icmp_error::may_answer(view, problem) {
        return Refusal::Impossible(DropReason::PuntRefused);
    }
    match icmp_error::build(problem, view.dst, view) {
        Some(packet) => Refusal::Unreachable(packet),
        None => Refusal::Impossible(DropReason::PuntRefused),
    }
}

/// RFC 9293, section 3.10.7.1: as though the connection were closed.
fn reset(view: &IpView<'_>) -> Refusal {
    let Ok(segment) = TcpPacket::new_checked(view.payload()) else {
        return Refusal::Impossible(DropReason::Malformed);
    };
    if segment.rst() {
        return Refusal::Silent;
    }
    let (seq, ack) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len()))
    };
    let answer = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control: TcpControl::Rst,
        seq_number: seq,
        ack_number: ack,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (src, dst) = (view.dst, view.src);
    let packet = packet::emit(src, dst, TCP, TTL, answer.buffer_len(), |payload| {
        answer.emit(
            &mut TcpPacket::new_unchecked(payload),
            &src.into(),
            &dst.into(),
            &ChecksumCapabilities::default(),
        );
    });
    packet.map_or(Refusal::Impossible(DropReason::PuntRefused), Refusal::Reset)
}
