//! Where packets larger than a chunk lie in one piece while the engine has them.
//!
//! A buffer of AF_XDP is a page at most, so a jumbo packet comes and goes in several chunks, while all
//! stages read packets whole. It is copied once on the way in and once on the way out.

use std::slice::ChunksExactMut;

use margay_engine::{BATCH, Fate, Frame as Work, Ingress};
use margay_model::DropReason;
use margay_xsk::{Frame, HEADROOM, Pool};

use crate::cycle::Outcome;

/// Bytes for one packet: the largest there is, in whatever it came in.
const ROOM: usize = HEADROOM + 128 + margay_model::LARGEST_MTU as usize;

/// Room for the large packets of one batch; none until the first one comes.
#[derive(Default)]
pub(crate) struct Desk {
    memory: Vec<u8>,
}

/// Room that is not taken yet.
pub(crate) type Rooms<'d> = ChunksExactMut<'d, u8>;

// === impl Desk ===

impl Desk {
    /// Room for all of these.
    #[inline]
    pub(crate) fn rooms(&mut self, frames: &[Frame]) -> Rooms<'_> {
        if self.memory.is_empty() && frames.iter().any(Frame::goes_on) {
            self.memory = vec![0; BATCH * ROOM];
        }
        self.memory.chunks_exact_mut(ROOM)
    }

    /// Takes the large packets of a batch, as the engine left them, back into frames.
    #[inline]
    pub(crate) fn clear(&mut self, frames: &mut [Frame], outcome: &mut Outcome, pool: &mut Pool) {
        if self.memory.is_empty() {
            return;
        }
        let first = outcome.len() - frames.len();
        let large = frames.iter_mut().zip(&mut outcome[first..]).filter(|(f, _)| f.goes_on());
        for ((frame, (start, len, fate)), room) in large.zip(self.memory.chunks_exact(ROOM)) {
            if !matches!(fate, Fate::Drop(_)) {
                // What it has is free for what it becomes.
                if let Some(rest) = frame.split_rest() {
                    pool.put(rest);
                }
                match room.get(*start..*start + *len).and_then(|packet| pool.packet(packet)) {
                    Some(new) => pool.put(std::mem::replace(frame, new)),
                    None => *fate = Fate::Drop(DropReason::TxFull),
                }
            }
            (*start, *len) = (frame.start(), frame.len());
        }
    }
}

/// A frame as the engine has it. One of several chunks is copied into the next room; what is larger
/// than that is malformed.
#[inline]
pub(crate) fn work<'a>(frame: &'a mut Frame, ingress: Ingress, rooms: &mut Rooms<'a>) -> Work<'a> {
    if frame.goes_on() {
        let room = rooms.next().unwrap_or_default();
        let len = gather(frame, room).unwrap_or(0);
        return Work::new(room, HEADROOM, len, ingress);
    }
    let (start, len) = (frame.start(), frame.len());
    Work::new(frame.chunk_mut(), start, len, ingress)
}

/// Copies a packet; its length, if there is room for it.
fn gather(frame: &Frame, room: &mut [u8]) -> Option<usize> {
    let mut rest = room.get_mut(HEADROOM..)?;
    for part in frame.parts() {
        let (here, after) = rest.split_at_mut_checked(part.len())?;
        here.copy_from_slice(part);
        rest = after;
    }
    Some(frame.packet_len())
}
