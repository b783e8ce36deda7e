//! Arrives: a TCP segment with its flow, which may go on. Leaves: what its direction's word is to go on
//! from, if the segment is to be learned from.
//!
//! Most segments are the next of their direction and pass with one comparison. The others are held
//! against the other direction's word, which lies in another line of memory.
//!
//! Drops: tcp_window (of translated connections alone: what a pod sends to another as it is, that one
//! judges itself), tcp_reset.

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_tables::flow::FlowRef;
use margay_wire::ethernet;
use margay_wire::transport::{self, TcpFacts, tcp_flags};

use super::parse::dropped;
use super::{flow, state};
use crate::batch::{Fate, Frame, Packet};
use crate::conntrack::tcp;
use crate::conntrack::window::{self, Fit};

/// The word that the direction goes on from; `None` where nothing is to be learned.
#[inline(always)]
pub(super) fn known(
    flow: FlowRef<'_>,
    frame: &Frame<'_>,
    packet: &Packet,
) -> ControlFlow<Fate, Option<u64>> {
    let word = flow.conntrack();
    match &packet.tcp {
        Some(facts) if !tcp::is_next(word, facts) => compared(flow, frame, packet, facts),
        _ => Continue(Some(word)),
    }
}

/// Bytes that a segment carries, by the length of its packet and of the IP header. Parse has checked the
/// length of its own.
#[inline(always)]
pub(super) fn payload(ip_len: u16, transport: u16, facts: &TcpFacts) -> usize {
    let headers = usize::from(transport) + facts.header_len;
    usize::from(ip_len).saturating_sub(headers)
}

#[cold]
#[inline(never)]
fn compared(
    flow: FlowRef<'_>,
    frame: &Frame<'_>,
    packet: &Packet,
    facts: &TcpFacts,
) -> ControlFlow<Fate, Option<u64>> {
    let own = flow.conntrack();
    if flow.marks() & tcp::LOOSE != 0 {
        return Continue(Some(own));
    }
    let (peer, state) = (flow.peer().conntrack(), state(flow));
    let payload = payload(packet.ip_len, packet.transport, facts);
    match window::judge(own, peer, state, facts, payload) {
        Fit::Inside if facts.flags & tcp_flags::SYN != 0 => {
            let scale = header(frame, packet, facts).and_then(transport::window_scale);
            return Continue(Some(window::offered(own, peer, state, facts, scale)));
        }
        Fit::Inside => return Continue(Some(window::agreed(own, peer))),
        Fit::Unproven => {}
        Fit::Aside => flow.set_conntrack(window::aside(own, facts, payload)),
        Fit::Reborn => {
            // Once in a connection's life, and the other end waits for this very segment: nobody
            // else writes its word.
            flow.add_marks(tcp::LOOSE);
            let (own, peer) = window::REBORN;
            flow.set_conntrack(own);
            flow.peer().set_conntrack(peer);
        }
        Fit::Outside if facts.flags & tcp_flags::RST != 0 => return dropped(DropReason::TcpReset),
        Fit::Outside if flow::rewritten(flow, &packet.tuple) != packet.tuple => {
            return dropped(DropReason::TcpWindow);
        }
        Fit::Outside => {}
    }
    Continue(None)
}

/// The TCP header with its options.
fn header<'f>(frame: &'f Frame<'_>, packet: &Packet, facts: &TcpFacts) -> Option<&'f [u8]> {
    let at = ethernet::LEN + usize::from(packet.transport);
    frame.bytes().get(at..)?.get(..facts.header_len)
}
