//! A packet in its chunk: the only way to packet memory.

use std::fmt;

use crate::region::Region;

/// The owner of one chunk of packet memory and of the packet in it.
///
/// There is at most one `Frame` for a chunk, and none while the chunk is in the kernel's hands;
/// it cannot be copied. So it can go to another thread through any channel, and its bytes can be
/// handed out as plain slices. A frame that is dropped gives its chunk back to the region; where
/// it matters, [`Pool::put`](crate::Pool::put) does that without touching a shared cache line.
///
/// Invariant: `start + len <= chunk size`.
pub struct Frame {
    region: &'static Region,
    chunk: u32,
    start: u16,
    len: u16,
}

/// A packet that would not lie inside its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes from {start} on do not fit a chunk of {chunk_size}")]
pub struct OutOfChunk {
    start: usize,
    len: usize,
    chunk_size: usize,
}

// === impl Frame ===

impl Frame {
    /// The caller owns `chunk`, and `start + len` is at most the size of a chunk.
    pub(crate) fn new(region: &'static Region, chunk: u32, start: u16, len: u16) -> Self {
        debug_assert!(usize::from(start) + usize::from(len) <= region.chunk_size());
        Self { region, chunk, start, len }
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.chunk()[self.start()..self.end()]
    }

    /// Asks for the packet's first cache line, before it is read.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let base = self.region.chunk_base(self.chunk).as_ptr();
            // SAFETY: a hint; it never faults, and the address is inside the chunk.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(base.add(self.start()).cast()) };
        }
    }

    /// The packet, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start(), self.end());
        &mut self.chunk_mut()[start..end]
    }

    /// The whole chunk; the packet is at [`Frame::start`] in it. What is around the packet is
    /// whatever was there before.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        let base = self.region.chunk_base(self.chunk);
        // SAFETY: 1. `base` is the start of `chunk_size` mapped, initialised (zeroed by the kernel)
        // bytes that stay mapped for 'static. 2. This frame is the chunk's only owner and is
        // borrowed here, so nobody writes to it meanwhile.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), self.region.chunk_size()) }
    }

    /// The whole chunk, to be changed: headers are pushed in front of the packet here, then told by
    /// [`Frame::set_range`].
    pub fn chunk_mut(&mut self) -> &mut [u8] {
        let base = self.region.chunk_base(self.chunk);
        // SAFETY: as in `chunk`; the borrow is exclusive, and so is the ownership of the chunk.
        unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), self.region.chunk_size()) }
    }

    /// Where in the chunk the packet starts. 256 as the kernel delivers it.
    #[must_use]
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Length of the packet in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no packet in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says where in the chunk the packet is now.
    ///
    /// # Errors
    /// [`OutOfChunk`], with the frame unchanged, if that is not inside the chunk.
    pub fn set_range(&mut self, start: usize, len: usize) -> Result<(), OutOfChunk> {
        let chunk_size = self.region.chunk_size();
        let error = OutOfChunk { start, len, chunk_size };
        if start.checked_add(len).is_none_or(|end| end > chunk_size) {
            return Err(error);
        }
        self.start = u16::try_from(start).map_err(|_| error)?;
        self.len = u16::try_from(len).map_err(|_| error)?;
        Ok(())
    }

    /// Puts a packet in, at offset `start` of the chunk.
    ///
    /// # Errors
    /// [`OutOfChunk`], with the frame unchanged, if it does not fit.
    pub fn write(&mut self, start: usize, packet: &[u8]) -> Result<(), OutOfChunk> {
        self.set_range(start, packet.len())?;
        self.bytes_mut().copy_from_slice(packet);
        Ok(())
    }

    /// The region that the chunk belongs to.
    #[must_use]
    pub fn region(&self) -> &'static Region {
        self.region
    }

    /// Gives up ownership: the chunk's number is from now on the caller's to keep.
    pub(crate) fn into_chunk(self) -> u32 {
        let chunk = self.chunk;
        std::mem::forget(self);
        chunk
    }

    /// The descriptor address of the packet's first byte.
    pub(crate) fn address(&self) -> u64 {
        self.region.address(self.chunk, self.start)
    }

    fn end(&self) -> usize {
        self.start() + self.len()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.region.put_spare(self.chunk);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("chunk", &self.chunk)
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{HEADROOM, Pool, Region, RegionConfig};

    #[test]
    fn a_range_outside_the_chunk_is_refused_and_changes_nothing() {
        let config = RegionConfig { chunks: 1, hugepages: false, ..RegionConfig::default() };
        let mut frame = Pool::new(Region::new(config).unwrap(), 64).take().unwrap();
        frame.write(HEADROOM, &[1, 2, 3]).unwrap();
        for (start, len) in [(0, 2049), (2048, 1), (usize::MAX, 1), (1, usize::MAX)] {
            assert!(frame.set_range(start, len).is_err(), "{start} {len}");
        }
        assert_eq!((frame.start(), frame.bytes()), (HEADROOM, &[1, 2, 3][..]));
        frame.set_range(0, 2048).unwrap();
        assert_eq!(frame.bytes()[HEADROOM..HEADROOM + 3], [1, 2, 3]);
        frame.set_range(2048, 0).unwrap();
        assert!(frame.is_empty());
    }
}
