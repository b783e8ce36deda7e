//! Which TCP segments are believed: those that a connection's ends can have sent, by what was seen of
//! both (the kernel's `tcp_in_window`, after Guido van Rooij, "Real Stateful TCP Packet Filtering in
//! IP Filter"; RFC 5961 for resets and SYNs).
//!
//! A direction may send from a window of the other end's below its last byte up to a window above it,
//! and acknowledge what the other end has sent. Windows are known as powers of two, so that this is at
//! most twice too wide, never too narrow.
//!
//! A SYN within a connection that stands, or another one when the first was answered, is let through
//! beside it, and the connection stays what it is: an end that still has it answers with an
//! acknowledgement of its own (RFC 5961 §4), upon which the asking end resets it; an end that has lost
//! it refuses, or begins anew.

use margay_wire::transport::{TcpFacts, tcp_flags};

use super::{State, tcp};

/// Acknowledgements may be that old, in bytes, however small the sender's window is: the kernel's
/// `MAXACKWINDOW`.
const OLD_ACK: i32 = 66_000;

/// What a segment is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// One that its sender can have sent.
    Inside,
    /// It may pass, but nothing is learned from it: a reset that the other end has to judge, or what
    /// answers a SYN beside the connection.
    Unproven,
    /// A SYN beside the connection.
    Aside,
    /// The acceptance of that SYN: another connection has taken this one's place.
    Reborn,
    /// One that its sender has not sent, or long ago.
    Outside,
}

/// Judges a segment with `payload` bytes by the words of its own direction and of the other one.
pub fn judge(own: u64, peer: u64, state: State, tcp: &TcpFacts, payload: usize) -> Fit {
    let has = |flag| tcp.flags & flag != 0;
    let (syn, reset) = (has(tcp_flags::SYN), has(tcp_flags::RST));
    let stands = matches!(state, State::Established | State::FinWait);
    let both_seen = (own & peer) & tcp::SEEN != 0;
    if syn && !reset && !has(tcp_flags::ACK) {
        // With another number than the one that was answered, too.
        let differs = both_seen && !is_in_window(own, peer, tcp, payload);
        return if stands || differs { Fit::Aside } else { Fit::Inside };
    }
    let acknowledges = acknowledges(own, peer, tcp);
    if !both_seen {
        return match (acknowledges, syn || reset) {
            (true, _) => Fit::Inside,
            // Perhaps of a connection that only the sender remembers: RFC 5961 §4 asks for it.
            (false, false) => Fit::Unproven,
            (false, true) => Fit::Outside,
        };
    }
    let answers_aside = has(tcp_flags::ACK)
        && peer & tcp::ASIDE != 0
        && tcp.ack as u16 == (peer >> tcp::ASIDE_SHIFT) as u16;
    if answers_aside && (syn || reset) {
        return if reset { Fit::Unproven } else { Fit::Reborn };
    }
    // Until it is acknowledged, a SYN may be replaced by one with another number.
    let begins = syn && !reset && state == State::SynSent;
    if !acknowledges || !(begins || is_in_window(own, peer, tcp, payload)) {
        return Fit::Outside;
    }
    // The other end believes a reset of its very next byte only (RFC 5961 §3).
    if reset && state == State::Established && tcp.seq != tcp::next(own) {
        return Fit::Unproven;
    }
    Fit::Inside
}

/// The word of a direction that is about to send a believed SYN, with the window scale that this one
/// offers. `peer` is the other direction's word.
pub fn offered(own: u64, peer: u64, state: State, tcp: &TcpFacts, scale: Option<u8>) -> u64 {
    // A SYN sent again may lack the option, and the other end may have heard the first.
    let scale = tcp::scale(own).max(scale);
    let answers = tcp.flags & tcp_flags::ACK != 0 && peer & tcp::SYN != 0;
    let agreed = if answers { scale.and_then(|own| tcp::scale(peer).map(|_| own)) } else { scale };
    let begins = matches!(state, State::SynSent | State::Unreplied);
    // Its number counts, whatever was sent before.
    let own = if begins { own & !tcp::SEEN } else { own };
    tcp::with_scale(own, agreed)
}

/// The word of a direction that is about to send its first segment behind its SYN: windows are scaled
/// if both SYNs had said so (RFC 7323 §2.2).
pub fn agreed(own: u64, peer: u64) -> u64 {
    if own & tcp::ACK == 0 && peer & tcp::SYN != 0 && tcp::scale(peer).is_none() {
        return tcp::with_scale(own, None);
    }
    own
}

/// The word of a direction whose SYN went aside.
pub fn aside(own: u64, tcp: &TcpFacts, payload: usize) -> u64 {
    let low = u64::from(tcp::end(tcp, payload) as u16);
    own & !(0xffff << tcp::ASIDE_SHIFT) | tcp::ASIDE | low << tcp::ASIDE_SHIFT
}

/// The words of a connection reborn: of the direction that accepts, and of the other one. Of their
/// windows nothing is known.
pub const REBORN: (u64, u64) = (tcp::SEEN | tcp::SYN | tcp::ACK, tcp::SEEN | tcp::SYN);

fn is_in_window(own: u64, peer: u64, tcp: &TcpFacts, payload: usize) -> bool {
    let (next, window) = (tcp::next(own), tcp::window(peer));
    let above = tcp.seq.wrapping_sub(next) as i32;
    let end = tcp::end(tcp, payload).wrapping_sub(next) as i32;
    // One byte below, for keep-alives.
    above <= window && end >= -window - 1
}

/// Whether the segment acknowledges nothing, or what the other end may have sent. Two workers that
/// carry segments of one direction at one instant may lose one of them: a window of tolerance.
fn acknowledges(own: u64, peer: u64, tcp: &TcpFacts) -> bool {
    let nothing = tcp.flags & tcp_flags::ACK == 0
        || peer & tcp::SEEN == 0
        // Some stacks' resets.
        || (tcp.flags & tcp_flags::RST != 0 && tcp.ack == 0);
    let window = tcp::window(own);
    let above = tcp.ack.wrapping_sub(tcp::next(peer)) as i32;
    nothing || (above <= window && above >= -window.max(OLD_ACK))
}

#[cfg(test)]
mod tests;
