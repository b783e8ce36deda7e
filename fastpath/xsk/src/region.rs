//! The packet memory: one mapping, cut into chunks of equal size, for every port and worker.

use std::{
    io,
    mem::ManuallyDrop,
    ptr::NonNull,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam::queue::ArrayQueue;
use memmap2::{Advice, MmapMut, MmapOptions};

use crate::{Error, Frame};

/// How long a driver may still write to the chunks of a zero-copy socket after its close.
///
/// The kernel takes the buffer pool off the device in a work item after `close(2)` has returned
/// (`xp_put_pool` → `xp_release_deferred`); a rebind sees EBUSY for as long, measured up to 0.6 s.
const QUARANTINE: Duration = Duration::from_secs(2);

/// Size of a chunk: a frame, its headroom (256 bytes at least, `XDP_PACKET_HEADROOM`) included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChunkSize {
    /// 2048 bytes: frames of up to 1792 bytes.
    #[default]
    Bytes2048,
    /// 4096 bytes: frames of up to 3840 bytes.
    Bytes4096,
}

/// How large the packet memory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionConfig {
    /// Number of chunks. Each bound (interface, queue) costs about 128 bytes of kernel memory for
    /// each of them.
    pub chunks: u32,
    /// Size of each chunk.
    pub chunk_size: ChunkSize,
    /// Ask for hugepages of 2 MiB first. Without any reserved, the region is made of ordinary pages
    /// with a request for transparent ones.
    pub hugepages: bool,
}

/// The packet memory of the process, and the chunks that belong to no worker.
///
/// A region lives until the process ends: that makes a [`Frame`] a plain value of 16 bytes, without
/// a count or a lifetime to carry through the packet path.
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    chunks: u32,
    shift: u32,
    hugepages: bool,
    /// Chunks that no worker, no ring and no [`Frame`] owns. One slot for each chunk, so a push
    /// always finds room.
    spare: ArrayQueue<u32>,
    /// For each chunk, where its packet goes on: 0 for nowhere, else as [`Span::packed`]. Only what
    /// owns the chunk reads and writes it, so that the order of memory is that of the chunk itself.
    links: Box<[AtomicU64]>,
    /// Chunks whose socket is closed, but which a device may still write to until that moment.
    quarantine: Mutex<Vec<(Instant, Vec<u32>)>>,
}

/// Where in a chunk a packet is, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) chunk: u32,
    pub(crate) start: u16,
    pub(crate) len: u16,
}

// SAFETY: `base` points to memory that is mapped for the rest of the process. The region itself
// never reads or writes there; access goes through `Frame`, and there is at most one for a chunk.
unsafe impl Send for Region {}
// SAFETY: as above; the other fields are `Sync` by themselves.
unsafe impl Sync for Region {}

// === impl ChunkSize ===

impl ChunkSize {
    /// The smallest chunk that takes frames of this many bytes (Ethernet header included) together
    /// with XDP's headroom; `None` if none does.
    #[must_use]
    pub fn for_frame(len: usize) -> Option<Self> {
        [Self::Bytes2048, Self::Bytes4096].into_iter().find(|size| len + 256 <= size.bytes())
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn bytes(self) -> usize {
        1 << self.shift()
    }

    fn shift(self) -> u32 {
        match self {
            Self::Bytes2048 => 11,
            Self::Bytes4096 => 12,
        }
    }
}

// === impl Span ===

impl Span {
    /// As a number above 0, since a chunk is smaller than 2¹⁶ bytes.
    fn packed(self) -> u64 {
        (u64::from(self.chunk) << 32 | u64::from(self.start) << 16 | u64::from(self.len)) + 1
    }

    fn unpacked(packed: u64) -> Option<Self> {
        let bits = packed.checked_sub(1)?;
        Some(Self { chunk: (bits >> 32) as u32, start: (bits >> 16) as u16, len: bits as u16 })
    }
}

// === impl RegionConfig ===

impl Default for RegionConfig {
    fn default() -> Self {
        Self { chunks: 16_384, chunk_size: ChunkSize::default(), hugepages: true }
    }
}

// === impl Region ===

impl Region {
    /// Maps the packet memory, for the rest of the process. All chunks start out spare.
    ///
    /// # Errors
    /// [`Error::RegionSize`] for no chunks at all, [`Error::Map`] if the kernel refuses.
    pub fn new(config: RegionConfig) -> Result<&'static Self, Error> {
        let RegionConfig { chunks, chunk_size, hugepages } = config;
        let bytes = (chunks as usize)
            .checked_mul(chunk_size.bytes())
            .filter(|&bytes| bytes > 0 && isize::try_from(bytes).is_ok())
            .ok_or(Error::RegionSize { chunks, chunk_size: chunk_size.bytes() })?;
        let (mut map, huge) =
            map(bytes, hugepages).map_err(|source| Error::Map { bytes, source })?;
        let base = NonNull::from(&mut *map).cast::<u8>();
        // The mapping is never undone: see the type's contract.
        let _ = ManuallyDrop::new(map);

        let spare = ArrayQueue::new(chunks as usize);
        for chunk in 0..chunks {
            let _ = spare.push(chunk);
        }
        Ok(Box::leak(Box::new(Self {
            base,
            bytes,
            chunks,
            shift: chunk_size.shift(),
            hugepages: huge,
            spare,
            links: (0..chunks).map(|_| AtomicU64::new(0)).collect(),
            quarantine: Mutex::default(),
        })))
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> usize {
        1 << self.shift
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the region is made of reserved hugepages.
    #[must_use]
    pub fn hugepages(&self) -> bool {
        self.hugepages
    }

    /// Chunks that nobody owns at this moment (an estimate while workers run).
    #[must_use]
    pub fn spare(&self) -> usize {
        self.spare.len()
    }

    /// Gives the chunks of closed zero-copy sockets back once their time is over. To be called
    /// now and then; returns how many came back.
    pub fn reap(&self, now: Instant) -> usize {
        let mut waiting = self.quarantine.lock().unwrap_or_else(|poison| poison.into_inner());
        let mut freed = 0;
        waiting.retain_mut(|(until, chunks)| {
            let over = *until <= now;
            if over {
                freed += chunks.len();
                chunks.drain(..).for_each(|chunk| self.put_spare(chunk));
            }
            !over
        });
        freed
    }

    /// First byte of the region.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// First byte of a chunk, which must be below [`Region::chunks`].
    pub(crate) fn chunk_base(&self, chunk: u32) -> NonNull<u8> {
        debug_assert!(chunk < self.chunks);
        // SAFETY: `chunk < self.chunks` (callers hold a `Frame`, which is only ever made of such a
        // number), so the offset is inside the one mapping of `bytes` bytes.
        unsafe { self.base.add((chunk as usize) << self.shift) }
    }

    /// The descriptor address of a byte of a chunk (Documentation/networking/af_xdp.rst,
    /// aligned mode: offset from the region's first byte).
    pub(crate) fn address(&self, chunk: u32, start: u16) -> u64 {
        (u64::from(chunk) << self.shift) + u64::from(start)
    }

    /// The chunk and the offset in it that a descriptor address names; `None` outside the region.
    pub(crate) fn locate(&self, address: u64) -> Option<(u32, u16)> {
        let chunk = u32::try_from(address >> self.shift).ok().filter(|&c| c < self.chunks)?;
        // At most 4095, as chunks have at most 4096 bytes.
        let start = (address & ((1 << self.shift) - 1)) as u16;
        Some((chunk, start))
    }

    /// Says where the packet of a chunk goes on; the caller owns both chunks.
    pub(crate) fn link(&self, chunk: u32, next: Option<Span>) {
        if let Some(link) = self.links.get(chunk as usize) {
            link.store(next.map_or(0, Span::packed), Ordering::Relaxed);
        }
    }

    /// Where the packet of a chunk goes on, as was last said.
    pub(crate) fn linked(&self, chunk: u32) -> Option<Span> {
        Span::unpacked(self.links.get(chunk as usize)?.load(Ordering::Relaxed))
    }

    pub(crate) fn take_spare(&self) -> Option<u32> {
        self.spare.pop()
    }

    pub(crate) fn put_spare(&self, chunk: u32) {
        let pushed = self.spare.push(chunk);
        debug_assert!(pushed.is_ok(), "chunk {chunk} exists twice");
    }

    /// Takes the chunks of a closed socket back, at once or, if a device may still write to them,
    /// by [`Region::reap`].
    pub(crate) fn reclaim(&self, chunks: Vec<u32>, device_may_write: bool) {
        if device_may_write {
            let until = Instant::now() + QUARANTINE;
            let mut waiting = self.quarantine.lock().unwrap_or_else(|poison| poison.into_inner());
            waiting.push((until, chunks));
        } else {
            chunks.into_iter().for_each(|chunk| self.put_spare(chunk));
        }
    }

    /// The frame of a chunk whose single owner the caller is.
    pub(crate) fn frame(&'static self, chunk: u32, start: u16, len: u16) -> Frame {
        Frame::new(self, chunk, start, len)
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("chunks", &self.chunks)
            .field("chunk_size", &self.chunk_size())
            .field("hugepages", &self.hugepages)
            .field("spare", &self.spare.len())
            .finish_non_exhaustive()
    }
}

/// Anonymous memory: reserved hugepages if wanted and there, else ordinary pages.
fn map(bytes: usize, hugepages: bool) -> io::Result<(MmapMut, bool)> {
    const HUGE_SHIFT: u8 = 21;
    if hugepages {
        let rounded = bytes.next_multiple_of(1 << HUGE_SHIFT);
        let mut options = MmapOptions::new();
        if let Ok(map) = options.len(rounded).huge(Some(HUGE_SHIFT)).populate().map_anon() {
            map.advise(Advice::DontFork)?;
            return Ok((map, true));
        }
    }
    let map = MmapOptions::new().len(bytes).map_anon()?;
    // A child of fork(2) must not share pages that the kernel writes packets to.
    map.advise(Advice::DontFork)?;
    // Only a wish: a kernel without transparent hugepages refuses it.
    let _ = map.advise(Advice::HugePage);
    Ok((map, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_chunks_are_each_others_inverse() {
        let config = RegionConfig { chunks: 3, chunk_size: ChunkSize::Bytes4096, hugepages: false };
        let region = Region::new(config).unwrap();
        assert_eq!(region.address(2, 256), 2 * 4096 + 256);
        assert_eq!(region.locate(2 * 4096 + 4095), Some((2, 4095)));
        assert_eq!(region.locate(3 * 4096), None, "behind the region");
        assert_eq!(region.locate(u64::MAX), None);
    }

    #[test]
    fn chunks_that_a_device_may_still_write_to_come_back_later() {
        let config = RegionConfig { chunks: 2, hugepages: false, ..RegionConfig::default() };
        let region = Region::new(config).unwrap();
        let chunk = region.take_spare().unwrap();
        let now = Instant::now();
        region.reclaim(vec![chunk], true);
        assert_eq!((region.reap(now), region.spare()), (0, 1));
        assert_eq!((region.reap(now + 2 * QUARANTINE), region.spare()), (1, 2));
    }

    #[test]
    fn a_frame_and_its_headroom_decide_the_chunk_size() {
        assert_eq!(ChunkSize::for_frame(1514), Some(ChunkSize::Bytes2048));
        assert_eq!(ChunkSize::for_frame(1793), Some(ChunkSize::Bytes4096));
        assert_eq!(ChunkSize::for_frame(3841), None);
    }

    #[test]
    fn no_chunks_at_all_is_an_error() {
        let config = RegionConfig { chunks: 0, ..RegionConfig::default() };
        assert!(matches!(Region::new(config), Err(Error::RegionSize { .. })));
    }
}
