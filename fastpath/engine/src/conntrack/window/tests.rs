//! What honest ends send is believed whatever the network does to it; what nobody sent is not.

use proptest::prelude::*;

use super::*;
use margay_wire::transport::tcp_flags as f;

/// What stands between two ends: their words, and how it judged the last segment.
#[derive(Clone, Debug, Default)]
struct Observer {
    words: [u64; 2],
}

// === impl Observer ===

impl Observer {
    fn state(&self) -> State {
        tcp::state(self.words[0], self.words[1])
    }

    /// Judges a segment of an end, and learns from it what the path would.
    fn sees(&mut self, from: usize, tcp: &TcpFacts, payload: usize, scale: Option<u8>) -> Fit {
        let (own, peer, state) = (self.words[from], self.words[1 - from], self.state());
        let fit = judge(own, peer, state, tcp, payload);
        match fit {
            Fit::Inside => {
                let known = match tcp.flags & f::SYN {
                    0 => agreed(own, peer),
                    _ => offered(own, peer, state, tcp, scale),
                };
                self.words[from] = tcp::advance(known, tcp, payload);
            }
            Fit::Aside => self.words[from] = aside(own, tcp, payload),
            Fit::Reborn => (self.words[from], self.words[1 - from]) = REBORN,
            Fit::Unproven | Fit::Outside => {}
        }
        fit
    }
}

fn segment(flags: u8, seq: u32, ack: u32) -> TcpFacts {
    TcpFacts { seq, ack, header_len: 20, flags, window: 1000 }
}

const CLIENT: u32 = u32::MAX - 5;
const SERVER: u32 = 0x7fff_fff0;
const C: u32 = CLIENT.wrapping_add(1);
const S: u32 = SERVER.wrapping_add(1);

/// A connection with unscaled windows of 1000 bytes.
fn established() -> Observer {
    let mut observer = Observer::default();
    for (from, tcp) in [
        (0, segment(f::SYN, CLIENT, 0)),
        (1, segment(f::SYN | f::ACK, SERVER, C)),
        (0, segment(f::ACK, C, S)),
    ] {
        assert_eq!(observer.sees(from, &tcp, 0, None), Fit::Inside);
    }
    assert_eq!(observer.state(), State::Established);
    observer
}

#[test]
fn a_reset_is_believed_of_the_very_next_byte_passes_within_the_window_and_not_beyond() {
    let observer = established();
    for (offset, fit) in [
        (0i64, Fit::Inside),
        (1, Fit::Unproven),
        (-900, Fit::Unproven),
        (1024, Fit::Unproven),
        (1025, Fit::Outside),
        (-1026, Fit::Outside),
        (1 << 31, Fit::Outside),
    ] {
        for from in [0, 1] {
            let seq = [C, S][from].wrapping_add(offset as u32);
            let mut seen = observer.clone();
            let reset = segment(f::RST, seq, 0);
            assert_eq!(seen.sees(from, &reset, 0, None), fit, "{offset}");
            let over = seen.state() == State::Reset;
            assert_eq!(over, fit == Fit::Inside, "{offset}");
        }
    }
}

#[test]
fn a_reset_of_a_closing_end_is_believed_within_the_window() {
    let mut observer = established();
    observer.sees(1, &segment(f::FIN | f::ACK, S, C), 0, None);
    assert_eq!(observer.sees(1, &segment(f::RST, S, 0), 0, None), Fit::Inside);
    assert_eq!(observer.state(), State::Reset);
}

#[test]
fn a_refusal_must_acknowledge_the_syn_that_it_refuses() {
    let mut observer = Observer::default();
    observer.sees(0, &segment(f::SYN, CLIENT, 0), 0, None);
    let refusal = |ack| segment(f::RST | f::ACK, 0, ack);
    assert_eq!(observer.clone().sees(1, &refusal(C.wrapping_add(5000)), 0, None), Fit::Outside);
    assert_eq!(observer.sees(1, &refusal(C), 0, None), Fit::Inside);
    assert_eq!(observer.state(), State::Reset);
}

#[test]
fn a_syn_in_a_connection_goes_aside_and_the_asking_end_may_end_it() {
    let mut observer = established();
    let new = segment(f::SYN, 12345, 0);
    assert_eq!(observer.sees(0, &new, 0, None), Fit::Aside);
    assert_eq!(observer.state(), State::Established);
    // The challenge, and what it provokes.
    assert_eq!(observer.sees(1, &segment(f::ACK, S, C), 0, None), Fit::Inside);
    assert_eq!(observer.sees(0, &segment(f::RST, C, 0), 0, None), Fit::Inside);
    assert_eq!(observer.state(), State::Reset);
}

#[test]
fn another_syn_after_the_answer_goes_aside_and_the_first_may_be_ended() {
    let mut observer = Observer::default();
    observer.sees(0, &segment(f::SYN, CLIENT, 0), 0, None);
    observer.sees(1, &segment(f::SYN | f::ACK, SERVER, C), 0, None);
    // The same once more is no other.
    assert_eq!(observer.clone().sees(0, &segment(f::SYN, CLIENT, 0), 0, None), Fit::Inside);
    assert_eq!(observer.sees(0, &segment(f::SYN, 12345, 0), 0, None), Fit::Aside);
    assert_eq!(observer.state(), State::SynSent);
    // The server has forgotten the first one.
    let accepted = segment(f::SYN | f::ACK, 999_999, 12346);
    assert_eq!(observer.clone().sees(1, &accepted, 0, None), Fit::Reborn);
    // It has not: the client refuses what it hears of it.
    assert_eq!(observer.sees(1, &segment(f::ACK, S, C), 0, None), Fit::Inside);
    assert_eq!(observer.sees(0, &segment(f::RST, C, 0), 0, None), Fit::Inside);
    assert_eq!(observer.state(), State::Reset);
}

#[test]
fn an_end_that_lost_its_connection_refuses_the_syn_or_begins_anew() {
    let mut observer = established();
    observer.sees(0, &segment(f::SYN, 12345, 0), 0, None);
    let refusal = segment(f::RST | f::ACK, 0, 12346);
    assert_eq!(observer.clone().sees(1, &refusal, 0, None), Fit::Unproven);
    let wrong = segment(f::SYN | f::ACK, 999_999, 4711);
    assert_eq!(observer.clone().sees(1, &wrong, 0, None), Fit::Outside);
    let accepted = segment(f::SYN | f::ACK, 999_999, 12346);
    assert_eq!(observer.sees(1, &accepted, 0, None), Fit::Reborn);
    assert_eq!(observer.state(), State::SynSent);
}

#[test]
fn an_answer_from_an_older_life_passes_and_the_reset_it_provokes_makes_room() {
    let mut observer = Observer::default();
    observer.sees(0, &segment(f::SYN, CLIENT, 0), 0, None);
    let challenge = segment(f::ACK, 777, C.wrapping_add(1 << 30));
    assert_eq!(observer.sees(1, &challenge, 0, None), Fit::Unproven);
    assert_eq!(observer.state(), State::SynSent);
    let reset = segment(f::RST, C.wrapping_add(1 << 30), 0);
    assert_eq!(observer.sees(0, &reset, 0, None), Fit::Inside);
    assert_eq!(observer.state(), State::Reset);
}

#[test]
fn windows_are_scaled_if_both_syns_said_so() {
    for (client, server, reach) in
        [(Some(7), Some(3), 8000u32), (Some(7), None, 1000), (None, Some(3), 1000)]
    {
        let mut observer = Observer::default();
        observer.sees(0, &segment(f::SYN, 0, 0), 0, client);
        // A SYN that is sent again may have lost its options.
        observer.sees(0, &segment(f::SYN, 0, 0), 0, None);
        observer.sees(1, &segment(f::SYN | f::ACK, 0, 1), 0, server);
        observer.sees(0, &segment(f::ACK, 1, 1), 0, None);
        observer.sees(1, &segment(f::ACK, 1, 1), 0, None);
        let within = segment(f::ACK, 1 + reach, 1);
        let beyond = segment(f::ACK, 2 + 2 * reach.next_power_of_two(), 1);
        assert_eq!(observer.clone().sees(0, &within, 0, None), Fit::Inside, "{client:?}");
        assert_eq!(observer.sees(0, &beyond, 0, None), Fit::Outside, "{client:?}");
    }
}

#[test]
fn keep_alives_and_probes_of_a_closed_window_are_inside() {
    let mut observer = established();
    for (seq, payload) in [(C.wrapping_sub(1), 0), (C.wrapping_sub(1), 1), (C, 1)] {
        assert_eq!(observer.sees(0, &segment(f::ACK, seq, S), payload, None), Fit::Inside);
    }
}

#[test]
fn both_ends_may_open_at_once() {
    let mut observer = Observer::default();
    for (from, tcp) in [
        (0, segment(f::SYN, CLIENT, 0)),
        (1, segment(f::SYN, SERVER, 0)),
        (0, segment(f::SYN | f::ACK, CLIENT, S)),
        (1, segment(f::SYN | f::ACK, SERVER, C)),
        (0, segment(f::ACK, C, S)),
        (1, segment(f::ACK, S, C)),
    ] {
        assert_eq!(observer.sees(from, &tcp, 0, Some(5)), Fit::Inside, "{tcp:?}");
    }
    assert_eq!(observer.state(), State::Established);
}

#[test]
fn of_a_connection_with_one_direction_elsewhere_everything_is_believed() {
    let mut observer = Observer::default();
    observer.sees(0, &segment(f::SYN, CLIENT, 0), 0, None);
    for seq in [C, C.wrapping_add(1 << 29), C.wrapping_add(1 << 30)] {
        assert_eq!(observer.sees(0, &segment(f::ACK, seq, 5), 100, None), Fit::Inside);
    }
}

/// An end that obeys the window it is given, exactly.
#[derive(Clone, Debug)]
struct End {
    sent: u32,
    acknowledged: u32,
    received: u32,
    /// What the other end may have under way.
    gives: u32,
    /// What this one was given, as the highest number that it may reach.
    limit: u32,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An end sends as much as it may, up to a length.
    Sends { end: usize, len: u32 },
    /// It sends again from where it was acknowledged, up to a length.
    Repeats { end: usize, len: u32 },
    /// It acknowledges what came, and opens its window up to a size.
    Acknowledges { end: usize, window: u32 },
    /// A segment that was sent so many before is seen once more, or late.
    Strays { back: usize },
    /// It asks whether the other end is alive.
    Asks { end: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0..2usize;
    prop_oneof![
        4 => (end.clone(), 1..60_000u32).prop_map(|(end, len)| Step::Sends { end, len }),
        1 => (end.clone(), 1..2_000u32).prop_map(|(end, len)| Step::Repeats { end, len }),
        3 => (end.clone(), 0..1_000_000u32)
            .prop_map(|(end, window)| Step::Acknowledges { end, window }),
        1 => (0..4usize).prop_map(|back| Step::Strays { back }),
        1 => end.prop_map(|end| Step::Asks { end }),
    ]
}

const SCALE: u8 = 5;

// === impl End ===

impl End {
    fn new(own: u32, other: u32) -> Self {
        Self { sent: own, acknowledged: own, received: other, gives: 1000, limit: own + 1000 }
    }

    fn facts(&self, seq: u32) -> TcpFacts {
        let window = (self.gives >> SCALE) as u16;
        TcpFacts { seq, ack: self.received, header_len: 20, flags: f::ACK, window }
    }
}

proptest! {
    #[test]
    fn what_honest_ends_send_is_inside(steps in prop::collection::vec(step(), 1..200)) {
        let mut observer = Observer::default();
        observer.sees(0, &segment(f::SYN, 999, 0), 0, Some(SCALE));
        observer.sees(1, &segment(f::SYN | f::ACK, 4_999, 1000), 0, Some(SCALE));
        observer.sees(0, &segment(f::ACK, 1000, 5000), 0, None);
        let mut ends = [End::new(1000, 5000), End::new(5000, 1000)];
        let mut seen: Vec<(usize, TcpFacts, u32)> = Vec::new();
        for step in steps {
            let (from, tcp, payload) = match step {
                Step::Sends { end, len } => {
                    let own = &mut ends[end];
                    let len = len.min(own.limit.wrapping_sub(own.sent));
                    let tcp = own.facts(own.sent);
                    own.sent += len;
                    // The network may lose it: then the other end acknowledges later ones never.
                    (end, tcp, len)
                }
                Step::Repeats { end, len } => {
                    let own = &ends[end];
                    let len = len.min(own.sent - own.acknowledged);
                    (end, own.facts(own.acknowledged), len)
                }
                Step::Acknowledges { end, window } => {
                    let End { sent: reached, limit, .. } = ends[1 - end];
                    // A window never shrinks from the right (RFC 9293 §3.8.6).
                    let gives = (limit - reached).max(window.min(65_535 << SCALE)) >> SCALE << SCALE;
                    (ends[end].received, ends[end].gives) = (reached, gives);
                    (ends[1 - end].acknowledged, ends[1 - end].limit) = (reached, reached + gives);
                    (end, ends[end].facts(ends[end].sent), 0)
                }
                Step::Strays { back } => match seen.iter().rev().nth(back) {
                    Some(stray) => *stray,
                    None => continue,
                },
                Step::Asks { end } => (end, ends[end].facts(ends[end].sent - 1), 0),
            };
            seen.push((from, tcp, payload));
            let fit = observer.sees(from, &tcp, payload as usize, None);
            // What strays may be older than anything that is under way.
            if matches!(step, Step::Strays { .. }) {
                continue;
            }
            prop_assert_eq!(fit, Fit::Inside, "{:?} {:?}", step, tcp);
        }
        // And what they never sent is not, however it is cloaked.
        let most = ends.iter().map(|end| end.gives.max(2_097_120)).max().unwrap_or(0) * 2;
        for (from, end) in ends.iter().enumerate() {
            for seq in [end.sent.wrapping_add(most + 2), end.sent.wrapping_sub(most + 60_002)] {
                let tcp = end.facts(seq);
                prop_assert_eq!(observer.clone().sees(from, &tcp, 10, None), Fit::Outside);
            }
        }
    }

    #[test]
    fn any_words_and_any_segment_are_judged(
        words in any::<[u64; 2]>(), seq in any::<u32>(), ack in any::<u32>(), flags in any::<u8>(),
        window in any::<u16>(), payload in 0..65_535usize, scale in any::<Option<u8>>(),
    ) {
        let mut observer = Observer { words };
        let tcp = TcpFacts { seq, ack, header_len: 20, flags, window };
        observer.sees(0, &tcp, payload, scale);
        prop_assert!(tcp::scale(observer.words[0]).is_none_or(|scale| scale <= 14));
    }
}
