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

    /// Takes a frame back that is no longer needed.
    pub fn put(&mut self, frame: Frame) {
        let region = frame.region();
        self.give(region, frame.into_chunk());
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
