//! The memory that the flow table lives in: lines of 64 bytes, on the heap or mapped from a file.

#![allow(unsafe_code)] // Hands out slices of memory that another crate mapped.

use std::any::Any;
use std::ptr::NonNull;

use crate::sync::AtomicU64;

/// Words in a line.
pub(super) const LINE_WORDS: usize = 8;

/// One cache line of atomic words.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Line(pub(super) [AtomicU64; LINE_WORDS]);

/// Memory for a [`super::FlowTable`].
///
/// It holds no pointers, so the same bytes may lie at another address in the next process.
pub struct Region {
    start: NonNull<Line>,
    count: usize,
    /// Keeps the memory alive; dropped last.
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: `Region` gives out nothing but `&[Line]`, which is `Sync` (atomics), and `_owner` is
// `Send + Sync`; no thread-bound state is reachable through `start`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

// === impl Region ===

impl Region {
    /// Zeroed memory on the heap for at least `bytes` bytes; pages are touched when they are used.
    #[cfg(not(loom))]
    pub fn heap(bytes: usize) -> Self {
        let lines = Box::<[Line]>::new_zeroed_slice(bytes.div_ceil(size_of::<Line>()));
        // SAFETY: `Line` is an array of `AtomicU64`, for which zero bytes are a valid value.
        Self::own(unsafe { lines.assume_init() })
    }

    /// As above; the model checker's atomics need to be constructed.
    #[cfg(loom)]
    pub fn heap(bytes: usize) -> Self {
        let line = || Line(std::array::from_fn(|_| AtomicU64::new(0)));
        Self::own((0..bytes.div_ceil(64)).map(|_| line()).collect())
    }

    fn own(lines: Box<[Line]>) -> Self {
        let count = lines.len();
        let owned = Owned(NonNull::from(Box::leak(lines)));
        Self { start: owned.0.cast(), count, _owner: Box::new(owned) }
    }

    /// Memory that somebody else allocated, such as a shared file mapping. `bytes` is rounded
    /// down to whole lines.
    ///
    /// # Safety
    ///
    /// 1. `start` is aligned to 64 bytes and `bytes` bytes from it are readable and writable for
    ///    as long as `owner` lives.
    /// 2. Nothing in this process accesses them but through the `Region`. Another process may
    ///    only if it too uses 8-byte atomic accesses.
    /// 3. A file behind the mapping is never truncated.
    #[cfg(not(loom))]
    pub unsafe fn from_raw(
        start: NonNull<u8>,
        bytes: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self { start: start.cast(), count: bytes / size_of::<Line>(), _owner: owner }
    }

    /// A file, made and grown as needed and shared by everybody who maps it: what is written stays
    /// for the next process.
    ///
    /// # Errors
    /// The file cannot be opened, grown or mapped.
    #[cfg(not(loom))]
    pub fn file(path: &std::path::Path, bytes: usize) -> std::io::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < bytes as u64 {
            file.set_len(bytes as u64)?;
        }
        // SAFETY: 1. The mapping is of a file that only this program writes, through atomics, and
        // that nobody truncates (the daemon holds the directory's lock). 2. It is at least `bytes`
        // long, page-aligned, and lives in `_owner`.
        unsafe {
            let map = memmap2::MmapOptions::new().len(bytes).map_mut(&file)?;
            let start = NonNull::new(map.as_ptr().cast_mut()).ok_or(std::io::ErrorKind::Other)?;
            Ok(Self::from_raw(start, bytes, Box::new(map)))
        }
    }

    /// All of the memory.
    #[inline]
    pub fn lines(&self) -> &[Line] {
        // SAFETY:
        // 1. `start` is valid for reads of `count` lines and aligned: by the contract of
        //    `from_raw`, or because it came from a boxed slice of that length.
        // 2. The memory is initialised: it was zeroed or mapped, and every bit pattern is a valid
        //    `AtomicU64`.
        // 3. It lives as long as `_owner`, which `self` owns, and the result borrows `self`.
        // 4. It is changed through atomics only, so shared references may coexist.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("lines", &self.count).finish()
    }
}

/// A leaked boxed slice, kept as a pointer so that moving the owner does not assert uniqueness
/// over memory that references are out to.
struct Owned(NonNull<[Line]>);

// SAFETY: it owns plain atomics.
unsafe impl Send for Owned {}
// SAFETY: it gives no access at all.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::leak` and is dropped here once only.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Asks the processor to bring a line into the nearest cache.
#[inline]
pub(super) fn prefetch(line: &Line) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
    // SAFETY: a prefetch has no effect but on the cache, and the address is valid besides.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
    let _ = line;
}
