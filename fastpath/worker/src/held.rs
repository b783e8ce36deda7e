//! Frames that a limit keeps waiting until they are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use margay_engine::PortId;
use margay_xsk::Frame;

/// Frames in the order of their times; of equal times the first that came is the first.
#[derive(Default)]
pub(crate) struct Held {
    heap: BinaryHeap<Reverse<Waiting>>,
    /// Chunks of the frames that wait, and how many may.
    chunks: usize,
    most: usize,
    came: u64,
}

struct Waiting {
    /// Nanoseconds, and the place among those of the same time.
    due: (u64, u64),
    port: PortId,
    frame: Frame,
}

// === impl Held ===

impl Held {
    /// Room for so many chunks, which is made when the first frame comes.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Keeps a frame until `due` (nanoseconds); gives it back where too many wait.
    pub(crate) fn push(&mut self, due: u64, port: PortId, frame: Frame) -> Result<(), Frame> {
        if self.chunks + frame.chunks() > self.most {
            return Err(frame);
        }
        self.chunks += frame.chunks();
        if self.heap.capacity() == 0 {
            self.heap.reserve_exact(self.most);
        }
        self.came = self.came.wrapping_add(1);
        self.heap.push(Reverse(Waiting { due: (due, self.came), port, frame }));
        Ok(())
    }

    /// The next frame that is due at `now`, and the port that it leaves by.
    pub(crate) fn pop(&mut self, now: u64) -> Option<(PortId, Frame)> {
        if self.next()? > now {
            return None;
        }
        let Reverse(Waiting { port, frame, .. }) = self.heap.pop()?;
        self.chunks -= frame.chunks();
        Some((port, frame))
    }

    /// When the next frame is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(waiting)| waiting.due.0)
    }
}

// === impl Waiting ===

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
