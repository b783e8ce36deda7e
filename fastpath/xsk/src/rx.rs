//! Reception: frames from the rx ring.

use arrayvec::ArrayVec;

use crate::{Frame, Socket};

impl Socket {
    /// Appends received frames, as many as there are and `frames` has room for, and returns their
    /// number. Makes no system call. Packets start at [`HEADROOM`](crate::HEADROOM) of their chunk.
    #[inline]
    pub fn rx<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        let before = frames.len();
        let room = u32::try_from(frames.remaining_capacity()).unwrap_or(u32::MAX);
        let count = self.rx.available(room);
        if count == 0 {
            return 0;
        }
        for _ in 0..count {
            let descriptor = self.rx.pop();
            match self.received(descriptor.addr, descriptor.len) {
                Some(frame) => frames.push(frame),
                None => self.counters.foreign += 1,
            }
        }
        self.rx.release();
        let received = frames.len() - before;
        self.counters.rx += received as u64;
        received
    }

    /// The frame of a descriptor, if it is of a chunk that was lent, and inside it.
    #[inline]
    fn received(&mut self, address: u64, len: u32) -> Option<Frame> {
        let (chunk, start) = self.region.locate(address)?;
        let len = u16::try_from(len).ok()?;
        let fits = usize::from(start) + usize::from(len) <= self.region.chunk_size();
        // Order matters: only a chunk that was lent, and no longer is, may become a frame.
        (fits && self.lent.remove(chunk)).then(|| self.region.frame(chunk, start, len))
    }
}
