//! Messages out of TCP: two bytes of length before each (RFC 1035 §4.2.2), in segments that come as
//! they please.
//!
//! A stream is followed from its SYN on. What came too early waits, within bounds; a stream that
//! goes beyond them is given up, and nothing that it says is believed.

use std::collections::HashMap;

use margay_model::flow::FlowTuple;
use smoltcp::wire::TcpPacket;

/// Streams that are followed at once, and of one client: those that are silent for the longest time
/// make room.
const MAX_STREAMS: usize = 256;
const MAX_OF_CLIENT: usize = 32;
/// Segments of one direction that may wait for an earlier one.
const MAX_AHEAD: usize = 32;
/// Bytes that one of them may lie ahead: more than any window of a name server.
const MAX_DISTANCE: i32 = 1 << 20;
/// Milliseconds after which a silent stream is forgotten.
const LIFETIME: u64 = 60_000;

/// The streams, by the tuple of their SYN.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<FlowTuple, Stream>,
}

#[derive(Debug)]
struct Stream {
    client: Direction,
    server: Direction,
    at: u64,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Direction {
    /// Sequence number of the byte behind `bytes`; `None` before the SYN.
    next: Option<i32>,
    /// In order, but not yet a whole message.
    bytes: Vec<u8>,
    /// What waits for an earlier segment, by sequence number.
    ahead: Vec<(i32, Vec<u8>)>,
}

// === impl Streams ===

impl Streams {
    /// Takes one segment; the messages that it completes. `None` where the stream is not followed,
    /// or not any more.
    pub(super) fn take(
        &mut self,
        now_ms: u64,
        conversation: &FlowTuple,
        from_client: bool,
        segment: &[u8],
    ) -> Option<Vec<Vec<u8>>> {
        let segment = TcpPacket::new_checked(segment).ok()?;
        if segment.syn() && from_client && !segment.ack() {
            self.begin(now_ms, conversation);
        }
        let stream = self.streams.get_mut(conversation)?;
        stream.at = now_ms;
        let direction = if from_client { &mut stream.client } else { &mut stream.server };
        let messages = direction.take(&segment);
        if messages.is_none() || segment.rst() {
            self.streams.remove(conversation);
        }
        messages
    }

    /// Forgets silent streams.
    pub(super) fn expire(&mut self, now_ms: u64) {
        self.streams.retain(|_, stream| now_ms.saturating_sub(stream.at) <= LIFETIME);
    }

    fn begin(&mut self, now_ms: u64, conversation: &FlowTuple) {
        let own = |other: &FlowTuple| other.src == conversation.src;
        if self.streams.keys().filter(|tuple| own(tuple)).count() >= MAX_OF_CLIENT {
            self.make_room(own);
        } else if self.streams.len() >= MAX_STREAMS {
            self.make_room(|_| true);
        }
        let (client, server) = (Direction::default(), Direction::default());
        self.streams.insert(*conversation, Stream { client, server, at: now_ms });
    }

    fn make_room(&mut self, among: impl Fn(&FlowTuple) -> bool) {
        let candidates = self.streams.iter().filter(|(tuple, _)| among(tuple));
        if let Some(oldest) = candidates.min_by_key(|(_, s)| s.at).map(|(tuple, _)| *tuple) {
            self.streams.remove(&oldest);
        }
    }
}

// === impl Direction ===

impl Direction {
    /// The messages that a segment completes; `None` where the direction cannot be followed.
    fn take(&mut self, segment: &TcpPacket<&[u8]>) -> Option<Vec<Vec<u8>>> {
        let mut at = segment.seq_number().0;
        if segment.syn() {
            at = at.wrapping_add(1);
            self.next.get_or_insert(at);
        }
        let distance = at.wrapping_sub(self.next?);
        let payload = segment.payload();
        if payload.is_empty() {
            return Some(Vec::new());
        }
        if distance > 0 {
            let wait = self.ahead.len() < MAX_AHEAD && distance < MAX_DISTANCE;
            return wait.then(|| {
                self.ahead.push((at, payload.to_vec()));
                Vec::new()
            });
        }
        self.append(at, payload);
        while let Some(ready) = self.ahead.iter().position(|(at, _)| self.reaches(*at)) {
            let (at, payload) = self.ahead.swap_remove(ready);
            self.append(at, &payload);
        }
        Some(self.messages())
    }

    /// Whether what begins at this sequence number follows what is there, or overlaps it.
    fn reaches(&self, at: i32) -> bool {
        self.next.is_some_and(|next| at.wrapping_sub(next) <= 0)
    }

    /// Appends what of a segment that begins at or before `next` is new.
    fn append(&mut self, at: i32, payload: &[u8]) {
        let Some(next) = self.next else { return };
        let known = next.wrapping_sub(at).cast_unsigned() as usize;
        if let Some(new) = payload.get(known..) {
            self.bytes.extend_from_slice(new);
            // A segment's length is far below 31 bits.
            self.next = Some(next.wrapping_add(new.len() as i32));
        }
    }

    /// Takes whole messages off the front.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some((len, rest)) = self.bytes.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes(*len));
            let Some(message) = rest.get(..len) else { break };
            messages.push(message.to_vec());
            self.bytes.drain(..2 + len);
        }
        messages
    }
}
