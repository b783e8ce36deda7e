//! A worker's own free chunks, balanced with the other workers' through the region.

use crate::{Frame, Region};

/// How many chunks move between a pool and the region at once.
const BATCH: usize = 64;

/// Free chunks that one worker takes and gives without touching anything shared.
///
/// A worker that transmits what another received gains chunks that the other lacks: what is above
/// the pool's limit goes to the region, and a pool that is empty takes from there. Dropping a pool
/// gives all of its chunks back.
#[derive(Debug)]
pub struct Pool {
    region: &'static Region,
    /// Never grows past `limit`, the capacity it was made with.
    chunks: Vec<u32>,
    limit: usize,
}

// === impl Pool ===

impl Pool {
    /// An empty pool that keeps at most `limit` chunks (at least one batch of 64) to itself.
    #[must_use]
    pub fn new(region: &'static Region, limit: usize) -> Self {
        let limit = limit.max(2 * BATCH);
        Self { region, chunks: Vec::with_capacity(limit), limit }
    }

    /// A frame without a packet, starting where the kernel would put one; `None` if the packet
    /// memory is used up.
    #[must_use]
    pub fn take(&mut self) -> Option<Frame> {
        self.take_chunk().map(|chunk| self.region.frame(chunk, crate::HEADROOM as u16, 0))
    }

    /// A frame for a packet of that length, in as many chunks as it needs; `None` if the packet
    /// memory is used up, or if that is too long for [`Frame::MOST_CHUNKS`]. What is in it is
    /// whatever was there before.
    #[must_use]
    pub fn take_for(&mut self, len: usize) -> Option<Frame> {
        let most = self.region.chunk_size() - crate::HEADROOM;
        let mut frame = self.take()?;
        frame.set_range(crate::HEADROOM, len.min(most)).ok()?;
        if len <= most { Some(frame) } else { self.lengthen(frame, len - most) }
    }

    /// Adds chunks for so many more bytes.
    #[cold]
    fn lengthen(&mut self, mut frame: Frame, mut more: usize) -> Option<Frame> {
        while more > 0 {
            let len = more.min(self.region.chunk_size() - crate::HEADROOM);
            let appended = match self.take_for(len) {
                Some(rest) => frame.append(rest).map_err(|rest| self.put(rest)).is_ok(),
                None => false,
            };
            if !appended {
                self.put(frame);
                return None;
            }
            more -= len;
        }
        Some(frame)
    }

    /// A frame with this packet in it, in as many chunks as it needs; `None` as
    /// [`Pool::take_for`].
    #[must_use]
    pub fn packet(&mut self, packet: &[u8]) -> Option<Frame> {
        let mut frame = self.take_for(packet.len())?;
        let mut rest = packet;
        for part in frame.parts_mut() {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        }
        Some(frame)
    }

    /// Takes a frame back that is no longer needed, with all of its chunks.
    pub fn put(&mut self, mut frame: Frame) {
        let region = frame.region();
        let mut rest = frame.split_rest();
        self.give(region, frame.into_chunk());
        while let Some(mut frame) = rest {
            rest = frame.split_rest();
            self.give(region, frame.into_chunk());
        }
    }

    /// The region that the chunks are of.
    #[must_use]
    pub fn region(&self) -> &'static Region {
        self.region
    }

    /// Free chunks of this worker's own.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the worker has no free chunk of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// A free chunk of that region, from the region itself if the pool is of another.
    #[inline]
    pub(crate) fn lend(&mut self, region: &'static Region) -> Option<u32> {
        if std::ptr::eq(region, self.region) { self.take_chunk() } else { region.take_spare() }
    }

    /// Takes a chunk of that region, which goes home if it is not this pool's.
    #[inline]
    pub(crate) fn give(&mut self, region: &'static Region, chunk: u32) {
        if std::ptr::eq(region, self.region) {
            self.put_chunk(chunk);
        } else {
            region.put_spare(chunk);
        }
    }

    #[inline]
    fn take_chunk(&mut self) -> Option<u32> {
        if self.chunks.is_empty() {
            self.refill();
        }
        self.chunks.pop()
    }

    #[inline]
    fn put_chunk(&mut self, chunk: u32) {
        if self.chunks.len() == self.limit {
            self.spill();
        }
        self.chunks.push(chunk);
    }

    #[cold]
    fn refill(&mut self) {
        let region = self.region;
        self.chunks.extend(std::iter::from_fn(|| region.take_spare()).take(BATCH));
    }

    #[cold]
    fn spill(&mut self) {
        let keep = self.chunks.len() - BATCH;
        self.chunks.drain(keep..).for_each(|chunk| self.region.put_spare(chunk));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.chunks.drain(..).for_each(|chunk| self.region.put_spare(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RegionConfig, Socket};

    fn region(chunks: u32) -> &'static Region {
        let config = RegionConfig { chunks, hugepages: false, ..RegionConfig::default() };
        Region::new(config).unwrap()
    }

    #[test]
    fn every_chunk_can_be_taken_once() {
        let region = region(100);
        let mut pool = Pool::new(region, 64);
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((frames.len(), region.spare()), (100, 0));
        for (number, frame) in (0u8..).zip(&mut frames) {
            frame.chunk_mut().fill(number);
        }
        for (number, frame) in (0u8..).zip(&frames) {
            assert!(frame.chunk().iter().all(|byte| *byte == number), "chunks do not overlap");
        }
        drop(frames);
        assert_eq!(region.spare(), 100, "dropped frames go home");
    }

    #[test]
    fn a_pool_keeps_its_limit_and_gives_the_rest_to_the_others() {
        let region = region(1000);
        let (mut taker, mut giver) = (Pool::new(region, 128), Pool::new(region, 128));
        for _ in 0..1000 {
            giver.put(taker.take().expect("a free chunk"));
            assert!(giver.len() <= 128);
        }
        assert!(taker.take().is_some(), "what the giver could not keep is there for others");
        drop((taker, giver));
        assert_eq!(region.spare(), 1000);
    }

    #[test]
    fn a_frame_of_another_region_goes_to_its_own() {
        let (home, abroad) = (region(10), region(10));
        let mut pool = Pool::new(home, 128);
        pool.put(Pool::new(abroad, 128).take().unwrap());
        assert_eq!((pool.len(), home.spare(), abroad.spare()), (0, 10, 10));
    }

    #[test]
    fn frames_and_sockets_can_go_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Frame>();
        is_send::<Socket>();
        is_send::<Pool>();
    }
}
