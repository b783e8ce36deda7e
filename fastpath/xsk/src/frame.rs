//! A packet in its chunk, or chunks: the only way to packet memory.

use std::{fmt, iter::successors};

use crate::region::{Region, Span};

/// The owner of a packet and of the chunk of packet memory that it is in.
///
/// There is at most one `Frame` for a chunk, and none while the chunk is in the kernel's hands;
/// it cannot be copied. So it can go to another thread through any channel, and its bytes can be
/// handed out as plain slices. A frame that is dropped gives its chunk back to the region; where
/// it matters, [`Pool::put`](crate::Pool::put) does that without touching a shared cache line.
///
/// A packet that is longer than a chunk goes on in further ones, which the same frame owns. All
/// methods are about its first chunk, where the headers are, but for those that say otherwise.
///
/// Invariant: `start + len <= chunk size`, for each chunk.
pub struct Frame {
    region: &'static Region,
    chunk: u32,
    start: u16,
    /// The topmost bit is [`GOES_ON`]: a frame stays a value of 16 bytes.
    len: u16,
}

/// Set if the packet goes on in another chunk, which the region has the link to. Lengths do not
/// reach that bit: a chunk has 4096 bytes at most.
const GOES_ON: u16 = 1 << 15;

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
    /// Chunks of a packet at most: as many pieces as the kernel's own packets have
    /// (`MAX_SKB_FRAGS` + 1, af_xdp.rst).
    pub const MOST_CHUNKS: usize = 18;

    /// The caller owns `chunk`, and `start + len` is at most the size of a chunk.
    pub(crate) fn new(region: &'static Region, chunk: u32, start: u16, len: u16) -> Self {
        debug_assert!(usize::from(start) + usize::from(len) <= region.chunk_size());
        Self { region, chunk, start, len }
    }

    /// The packet, as far as it is in the first chunk.
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

    /// Length in bytes of [`Frame::bytes`].
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len & !GOES_ON)
    }

    /// Whether there is no packet in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        self.len = u16::try_from(len).map_err(|_| error)? | (self.len & GOES_ON);
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

    /// Length in bytes of the whole packet.
    #[inline]
    #[must_use]
    pub fn packet_len(&self) -> usize {
        if self.goes_on() { self.measured().1 } else { self.len() }
    }

    /// Chunks of the whole packet.
    #[inline]
    #[must_use]
    pub fn chunks(&self) -> usize {
        if self.goes_on() { self.measured().0 } else { 1 }
    }

    /// Chunks and bytes of the whole packet.
    #[cold]
    fn measured(&self) -> (usize, usize) {
        self.spans().fold((0, 0), |(chunks, len), span| (chunks + 1, len + usize::from(span.len)))
    }

    /// The whole packet, chunk by chunk.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.spans().map(|span| {
            let base = self.region.chunk_base(span.chunk);
            // SAFETY: as in `chunk`, for each of the frame's chunks; the range is inside it.
            unsafe {
                let start = base.as_ptr().add(span.start.into());
                std::slice::from_raw_parts(start, span.len.into())
            }
        })
    }

    /// The whole packet, chunk by chunk, to be changed.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.spans().map(|span| {
            let base = self.region.chunk_base(span.chunk);
            // SAFETY: as in `chunk_mut`, for each of the frame's chunks, no two of which are the
            // same; the range is inside it. The frame is borrowed exclusively as long as any part.
            unsafe {
                let start = base.as_ptr().add(span.start.into());
                std::slice::from_raw_parts_mut(start, span.len.into())
            }
        })
    }

    /// Makes another packet the end of this one.
    ///
    /// # Errors
    /// The other one, if it is of another region, or if there would be more than
    /// [`Frame::MOST_CHUNKS`].
    pub fn append(&mut self, rest: Self) -> Result<(), Self> {
        let chunks = self.spans().count() + rest.spans().count();
        if !std::ptr::eq(self.region, rest.region) || chunks > Self::MOST_CHUNKS {
            return Err(rest);
        }
        let last = self.spans().last().map_or(self.chunk, |span| span.chunk);
        if !rest.goes_on() {
            self.region.link(rest.chunk, None);
        }
        self.region.link(last, Some(rest.span()));
        self.len |= GOES_ON;
        std::mem::forget(rest);
        Ok(())
    }

    /// Takes off what is beyond the first chunk, if there is any, as a packet of its own.
    #[inline]
    pub fn split_rest(&mut self) -> Option<Self> {
        if self.goes_on() { self.split_linked() } else { None }
    }

    /// Whether the packet goes on beyond its first chunk.
    #[inline]
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.len & GOES_ON != 0
    }

    #[cold]
    fn split_linked(&mut self) -> Option<Self> {
        self.len &= !GOES_ON;
        let Span { chunk, start, len } = self.region.linked(self.chunk)?;
        let goes_on = if self.region.linked(chunk).is_some() { GOES_ON } else { 0 };
        Some(Self { region: self.region, chunk, start, len: len | goes_on })
    }

    /// Where the packet is, chunk by chunk.
    fn spans(&self) -> impl Iterator<Item = Span> + use<> {
        let (region, goes_on) = (self.region, self.goes_on());
        let next = move |span: &Span| if goes_on { region.linked(span.chunk) } else { None };
        successors(Some(self.span()), next)
    }

    fn span(&self) -> Span {
        Span { chunk: self.chunk, start: self.start, len: self.len & !GOES_ON }
    }

    /// Gives up ownership of a packet in one chunk, whose number is from now on the caller's to keep.
    pub(crate) fn into_chunk(self) -> u32 {
        debug_assert!(!self.goes_on(), "its other chunks would be lost");
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
        // The rest in a loop, so that no drop is inside another.
        let mut rest = self.split_rest();
        while let Some(mut frame) = rest {
            rest = frame.split_rest();
        }
        self.region.put_spare(self.chunk);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("chunk", &self.chunk)
            .field("start", &self.start)
            .field("len", &self.len())
            .field("goes_on", &self.goes_on())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Frame, HEADROOM, Pool, Region, RegionConfig};

    #[test]
    fn a_packet_of_several_chunks_is_one_frame() {
        let config = RegionConfig { chunks: 20, hugepages: false, ..RegionConfig::default() };
        let region = Region::new(config).unwrap();
        let mut pool = Pool::new(region, 64);
        let packet: Vec<u8> = (0..9018_u32).map(|number| (number % 251) as u8).collect();
        let mut frame = pool.packet(&packet).unwrap();
        let parts: Vec<_> = frame.parts().map(<[u8]>::len).collect();
        assert_eq!((parts, frame.packet_len()), (vec![1792, 1792, 1792, 1792, 1792, 58], 9018));
        assert_eq!(frame.parts().collect::<Vec<_>>().concat(), packet);

        frame.set_range(HEADROOM - 50, 50 + 1792).unwrap();
        assert_eq!(frame.packet_len(), 9068, "a header before it leaves the rest as it is");
        frame.set_range(HEADROOM, 1792).unwrap();
        let rest = frame.split_rest().unwrap();
        assert_eq!((frame.packet_len(), rest.packet_len()), (1792, 9018 - 1792));
        assert!(frame.split_rest().is_none());
        frame.append(rest).unwrap();
        frame.append(pool.packet(&[1, 2]).unwrap()).unwrap();
        assert_eq!(frame.parts().collect::<Vec<_>>().concat(), [&packet[..], &[1, 2]].concat());

        pool.put(frame);
        let dropped = pool.packet(&packet).unwrap();
        drop(dropped);
        drop(pool);
        assert_eq!(region.spare(), 20, "every chunk is back, once");
    }

    #[test]
    fn a_packet_has_no_more_chunks_than_the_kernels_have() {
        let config = RegionConfig { chunks: 20, hugepages: false, ..RegionConfig::default() };
        let (region, abroad) = (Region::new(config).unwrap(), Region::new(config).unwrap());
        let mut pool = Pool::new(region, 64);
        let most = Frame::MOST_CHUNKS * 1792;
        assert!(pool.take_for(most + 1).is_none(), "longer than a packet can be");
        let mut frame = pool.take_for(most).unwrap();
        let more = frame.append(pool.take_for(60).unwrap()).unwrap_err();
        assert_eq!((frame.packet_len(), more.packet_len()), (most, 60));
        let stranger = Pool::new(abroad, 64).take_for(60).unwrap();
        assert!(pool.take_for(60).unwrap().append(stranger).is_err());
        drop((frame, more));
        assert!(pool.take_for(60).is_some());
        drop(pool);
        assert_eq!((region.spare(), abroad.spare()), (20, 20));
    }

    #[test]
    fn chunks_that_do_not_suffice_are_kept() {
        let config = RegionConfig { chunks: 3, hugepages: false, ..RegionConfig::default() };
        let mut pool = Pool::new(Region::new(config).unwrap(), 64);
        assert!(pool.take_for(9018).is_none());
        assert_eq!(pool.len(), 3);
    }

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
