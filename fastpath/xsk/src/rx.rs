//! Reception: frames from the rx ring.

use arrayvec::ArrayVec;

use crate::{Frame, Socket};

/// `options` of a descriptor: the packet goes on in the next one (include/uapi/linux/if_xdp.h).
pub(crate) const XDP_PKT_CONTD: u32 = 1;

impl Socket {
    /// Appends received frames, as many as there are and `frames` has room for, and returns their
    /// number. Makes no system call. Packets start at [`HEADROOM`](crate::HEADROOM) of their chunk.
    ///
    /// A packet of several chunks (of a multi-buffer UMEM only) comes once all of them are there, so
    /// that 0 does not say that the kernel needs no other chunks: [`Socket::fill`] follows anyway.
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
            let part = self.received(descriptor.addr, descriptor.len);
            let more = descriptor.options & XDP_PKT_CONTD != 0;
            match part {
                Some(frame) if !more && self.gather.is_whole() => frames.push(frame),
                part => frames.extend(self.gathered(part, more)),
            }
        }
        self.rx.release();
        let received = frames.len() - before;
        self.counters.rx += received as u64;
        received
    }

    /// What has become whole with a part of a packet of several chunks, or with what is no frame.
    #[cold]
    fn gathered(&mut self, part: Option<Frame>, more: bool) -> Option<Frame> {
        self.counters.foreign += u64::from(part.is_none());
        let several = more || !self.gather.is_whole();
        self.gather.add(part, more).unwrap_or_else(|()| {
            self.counters.broken += u64::from(several);
            None
        })
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
