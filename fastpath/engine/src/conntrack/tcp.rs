//! TCP as an observer sees it (RFC 9293 §3.3.2).
//!
//! A direction's word:
//!
//! ```text
//! 63                32 31              16 15 14       11 10     6 5     4                 0
//! [ next number       | behind the SYN   | -| scale + 1 | window  | SYN | ACK seen RST SYN FIN ]
//!                       that went aside     0: none      log2      aside
//! ```
//!
//! Next number: the sequence number after its last segment. Window: the largest that it has
//! advertised, as the power of two above it. What went aside stands in [`window`](super::window).

use margay_wire::transport::{TcpFacts, tcp_flags};

use super::State;

/// The mark of a connection whose windows are not known: picked up in its midst, or carried by others
/// too. Nothing is said of what lies outside.
pub const LOOSE: u8 = 1;

/// The direction has sent something. The other bits stand where TCP has them.
pub const SEEN: u64 = 1 << 3;
pub(super) const SYN: u64 = tcp_flags::SYN as u64;
pub(super) const ACK: u64 = tcp_flags::ACK as u64;
const FIN: u64 = tcp_flags::FIN as u64;
const RST: u64 = tcp_flags::RST as u64;
/// A SYN of this direction went beside the connection.
pub(super) const ASIDE: u64 = 1 << 5;
pub(super) const ASIDE_SHIFT: u32 = 16;
const WINDOW_SHIFT: u32 = 6;
const WINDOW_MASK: u64 = 0x1f;
const SCALE_SHIFT: u32 = 11;
const SCALE_MASK: u64 = 0xf;
const NEXT_SHIFT: u32 = 32;

/// The word after a segment with `payload` bytes.
#[inline(always)] // Measured: called, what was read of the segment goes through memory.
pub fn advance(word: u64, tcp: &TcpFacts, payload: usize) -> u64 {
    let flags = tcp.flags;
    let mut bits = word & 0xffff_ffff | SEEN | u64::from(flags) & (SYN | ACK | FIN | RST);
    // The window of a SYN is never scaled (RFC 7323 §2.2).
    let shift = if flags & tcp_flags::SYN != 0 { 0 } else { shift(word) };
    let offered = u32::from(tcp.window) << shift;
    if offered >> window_log(word) != 0 {
        let log = u64::from(u32::BITS - offered.leading_zeros());
        bits = bits & !(WINDOW_MASK << WINDOW_SHIFT) | log << WINDOW_SHIFT;
    }
    let (end, last) = (end(tcp, payload), next(word));
    // Retransmissions do not move the end back.
    let ahead = word & SEEN == 0 || (end.wrapping_sub(last) as i32) > 0;
    bits | u64::from(if ahead { end } else { last }) << NEXT_SHIFT
}

/// Whether a segment needs no look at the other direction: the handshake is over for its sender, and
/// it begins where its last one ended.
#[inline]
pub fn is_next(word: u64, tcp: &TcpFacts) -> bool {
    tcp.seq == next(word) && word & ACK != 0 && tcp.flags & (tcp_flags::SYN | tcp_flags::RST) == 0
}

/// The sequence number after the direction's last segment.
#[inline]
pub(super) fn next(word: u64) -> u32 {
    (word >> NEXT_SHIFT) as u32
}

/// The sequence number after a segment: SYN and FIN count as a byte each.
#[inline]
pub(super) fn end(tcp: &TcpFacts, payload: usize) -> u32 {
    let phantom =
        u32::from(tcp.flags & tcp_flags::SYN != 0) + u32::from(tcp.flags & tcp_flags::FIN != 0);
    tcp.seq.wrapping_add(payload as u32).wrapping_add(phantom)
}

/// Bytes that the direction has allowed the other one at a time, at most; up to twice as many as it
/// really has, and 2^30 at most.
pub(super) fn window(word: u64) -> i32 {
    1 << window_log(word).min(30)
}

#[inline]
fn window_log(word: u64) -> u32 {
    (word >> WINDOW_SHIFT & WINDOW_MASK) as u32
}

/// What the direction's windows are shifted by.
#[inline]
fn shift(word: u64) -> u32 {
    ((word >> SCALE_SHIFT & SCALE_MASK) as u32).saturating_sub(1)
}

/// The window scale of the direction's SYN; `None` if it had none, or if the other end has none.
pub(super) fn scale(word: u64) -> Option<u8> {
    ((word >> SCALE_SHIFT & SCALE_MASK) as u8).checked_sub(1)
}

/// The word with this window scale; more than 14 is taken as 14 (RFC 7323 §2.3).
pub(super) fn with_scale(word: u64, scale: Option<u8>) -> u64 {
    let plus_one = scale.map_or(0, |shift| u64::from(shift.min(14)) + 1);
    word & !(SCALE_MASK << SCALE_SHIFT) | plus_one << SCALE_SHIFT
}

/// Whether the first segment that is seen of a connection may be that: a SYN alone where one is
/// strict, otherwise anything but a reset, as of a connection that outlived its entry.
pub fn may_begin(tcp: &TcpFacts, strict: bool) -> bool {
    let asked = if strict { tcp_flags::SYN | tcp_flags::ACK } else { 0 };
    let flags = tcp.flags & (asked | tcp_flags::RST);
    flags == asked & tcp_flags::SYN
}

/// Whether the segment asks for a connection.
#[inline]
pub fn opens(tcp: &TcpFacts) -> bool {
    tcp.flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST) == tcp_flags::SYN
}

/// Whether the segment is the answer to one that asks for a connection.
pub fn answers(tcp: &TcpFacts) -> bool {
    let asked = tcp_flags::SYN | tcp_flags::ACK;
    tcp.flags & (asked | tcp_flags::RST) == asked
}

/// Whether the segment opens a new connection in the place of one in `state`.
pub fn reopens(tcp: &TcpFacts, state: State) -> bool {
    opens(tcp) && matches!(state, State::Closing | State::Reset)
}

/// The state by both words.
pub fn state(orig: u64, reply: u64) -> State {
    if (orig | reply) & RST != 0 {
        State::Reset
    } else if reply & SEEN == 0 && orig & (SYN | ACK) == SYN {
        State::SynSent
    } else if reply & SEEN == 0 {
        // Whatever one end says: anybody can say it to anybody.
        State::Unreplied
    } else if orig & reply & FIN != 0 {
        State::Closing
    } else if (orig | reply) & FIN != 0 {
        State::FinWait
    } else if orig & reply & SYN != 0 && (orig & ACK == 0 || reply & ACK == 0) {
        // A SYN+ACK that was not acknowledged yet, or both ends open at once.
        State::SynSent
    } else {
        State::Established
    }
}

/// The state of a connection of which the opener alone is heard.
pub fn one_sided(orig: u64) -> State {
    if orig & RST != 0 {
        State::Reset
    } else if orig & FIN != 0 {
        State::Closing
    } else if orig & ACK != 0 {
        State::Established
    } else {
        State::SynSent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8, seq: u32) -> TcpFacts {
        TcpFacts { seq, ack: 0, header_len: 20, flags, window: 100 }
    }

    /// Runs segments `(from the opener?, flags)` and returns the state after each.
    fn walk(segments: &[(bool, u8)]) -> Vec<State> {
        let (mut orig, mut reply) = (0, 0);
        let mut states = Vec::new();
        for (i, (from_orig, flags)) in segments.iter().enumerate() {
            let word = if *from_orig { &mut orig } else { &mut reply };
            *word = advance(*word, &segment(*flags, i as u32), 0);
            states.push(state(orig, reply));
        }
        states
    }

    use State::*;
    use tcp_flags as f;

    #[test]
    fn an_ordinary_connection_goes_through_its_states() {
        let states = walk(&[
            (true, f::SYN),
            (false, f::SYN | f::ACK),
            (true, f::ACK),
            (true, f::FIN | f::ACK),
            (false, f::ACK),
            (false, f::FIN | f::ACK),
            (true, f::ACK),
        ]);
        assert_eq!(states, [SynSent, SynSent, Established, FinWait, FinWait, Closing, Closing]);
    }

    #[test]
    fn simultaneous_open_is_established_when_both_acknowledged() {
        let states = walk(&[
            (true, f::SYN),
            (false, f::SYN),
            (true, f::SYN | f::ACK),
            (false, f::SYN | f::ACK),
        ]);
        assert_eq!(states, [SynSent, SynSent, SynSent, Established]);
    }

    #[test]
    fn a_connection_picked_up_in_its_midst_is_established_when_both_ends_were_heard() {
        let states = walk(&[(true, f::ACK), (true, f::ACK), (false, f::ACK), (true, f::ACK)]);
        assert_eq!(states, [Unreplied, Unreplied, Established, Established]);
    }

    #[test]
    fn one_end_alone_cannot_complete_a_connection() {
        for alone in [f::SYN, f::ACK, f::FIN, f::FIN | f::ACK, f::SYN | f::FIN, f::SYN | f::ACK] {
            for next in [f::SYN, f::ACK, f::FIN | f::ACK] {
                let states = walk(&[(true, alone), (true, next)]);
                assert!(states.iter().all(|state| state.is_half_open()), "{states:?}");
            }
        }
    }

    #[test]
    fn a_connection_whose_answers_go_elsewhere_follows_its_opener() {
        let mut word = 0;
        for (flags, state) in
            [(f::SYN, SynSent), (f::ACK, Established), (f::FIN | f::ACK, Closing), (f::RST, Reset)]
        {
            word = advance(word, &segment(flags, 0), 0);
            assert_eq!(one_sided(word), state);
        }
    }

    #[test]
    fn a_syn_reopens_only_what_is_closed() {
        let syn = segment(f::SYN, 0);
        assert!(reopens(&syn, Closing) && reopens(&syn, Reset));
        assert!(!reopens(&syn, Established) && !reopens(&syn, SynSent));
        assert!(!reopens(&segment(f::SYN | f::ACK, 0), Closing));
    }

    #[test]
    fn who_is_strict_sees_connections_begin() {
        for (flags, strict, lax) in [
            (f::SYN, true, true),
            (f::SYN | f::FIN, true, true),
            (f::ACK, false, true),
            (f::FIN | f::ACK, false, true),
            (f::SYN | f::ACK, false, true),
            (f::RST, false, false),
            (f::RST | f::ACK, false, false),
            (f::SYN | f::RST, false, false),
        ] {
            let segment = segment(flags, 0);
            assert_eq!((may_begin(&segment, true), may_begin(&segment, false)), (strict, lax));
        }
    }

    #[test]
    fn a_retransmission_does_not_move_the_end_back() {
        let word = advance(0, &segment(f::ACK, u32::MAX), 10);
        assert_eq!(word >> 32, 9);
        assert_eq!(advance(word, &segment(f::ACK, u32::MAX), 5) >> 32, 9);
        assert_eq!(advance(word, &segment(f::ACK, 9), 1) >> 32, 10);
    }
}
