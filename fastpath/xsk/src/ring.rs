//! The four rings of a socket, as memory shared with the kernel.
//!
//! Single producer, single consumer, indices that wrap at 2³² (include/uapi/linux/if_xdp.h,
//! net/xdp/xsk_queue.h). libxdp creates and maps them; its accessors are a C call a descriptor, so
//! the same few instructions stand here.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use libxdp_sys::{XDP_RING_NEED_WAKEUP, xsk_ring_cons, xsk_ring_prod};

/// A ring that we write and the kernel reads: fill (of addresses) or tx (of descriptors).
pub(crate) struct Producer<T> {
    shared: Shared<T>,
    /// Next slot to write; ahead of the shared index until [`Producer::commit`].
    head: u32,
    /// The kernel's index as last read.
    tail: u32,
}

/// A ring that the kernel writes and we read: rx (of descriptors) or completion (of addresses).
pub(crate) struct Consumer<T> {
    shared: Shared<T>,
    /// The kernel's index as last read.
    head: u32,
    /// Next slot to read; ahead of the shared index until [`Consumer::release`].
    tail: u32,
}

/// The mapped part of a ring.
///
/// Invariant: all pointers come from one ring mapping, which lives as long as the socket that this
/// belongs to; `slots` has `mask + 1` entries.
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    mask: u32,
}

// === impl Shared ===

impl<T: Copy> Shared<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: mapped as long as `self` by the type's invariant, 4-byte aligned, and accessed
        // by the kernel with atomic operations only.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }

    fn slot(&self, index: u32) -> *mut T {
        // SAFETY: `index & mask` is below the number of slots.
        unsafe { self.slots.as_ptr().add((index & self.mask) as usize) }
    }
}

// === impl Producer ===

impl<T: Copy> Producer<T> {
    /// The ring that libxdp filled `ring` in for; `None` if it did not.
    ///
    /// # Safety
    /// `ring` is as libxdp left it, its slots are of type `T`, it stays mapped while the result
    /// exists, and there is no other `Producer` for it.
    pub(crate) unsafe fn new(ring: &xsk_ring_prod) -> Option<Self> {
        let shared = Shared {
            producer: NonNull::new(ring.producer.cast())?,
            consumer: NonNull::new(ring.consumer.cast())?,
            flags: NonNull::new(ring.flags.cast())?,
            slots: NonNull::new(ring.ring.cast())?,
            mask: ring.mask,
        };
        let head = shared.producer().load(Ordering::Relaxed);
        let tail = shared.consumer().load(Ordering::Acquire);
        Some(Self { shared, head, tail })
    }

    /// How many slots are free; asks the kernel's index only when fewer than `wanted` are known.
    #[inline]
    pub(crate) fn free(&mut self, wanted: u32) -> u32 {
        if self.size() - self.head.wrapping_sub(self.tail) < wanted {
            self.tail = self.shared.consumer().load(Ordering::Acquire);
        }
        self.size() - self.head.wrapping_sub(self.tail)
    }

    /// Writes the next slot; the caller has seen by [`Producer::free`] that there is one.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        // SAFETY: inside the ring. The kernel does not read it before `commit`, and it is done with
        // what was there: that is what `free` counted.
        unsafe { self.shared.slot(self.head).write(value) };
        self.head = self.head.wrapping_add(1);
    }

    /// Shows everything pushed to the kernel.
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.shared.producer().store(self.head, Ordering::Release);
    }

    /// Entries that the kernel has not taken yet.
    pub(crate) fn pending(&mut self) -> u32 {
        self.tail = self.shared.consumer().load(Ordering::Acquire);
        self.head.wrapping_sub(self.tail)
    }

    /// Whether the kernel wants a system call before it goes on with this ring.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }

    /// Number of slots.
    pub(crate) fn size(&self) -> u32 {
        self.shared.mask + 1
    }
}

// === impl Consumer ===

impl<T: Copy> Consumer<T> {
    /// The ring that libxdp filled `ring` in for; `None` if it did not.
    ///
    /// # Safety
    /// As for [`Producer::new`].
    pub(crate) unsafe fn new(ring: &xsk_ring_cons) -> Option<Self> {
        let shared = Shared {
            producer: NonNull::new(ring.producer.cast())?,
            consumer: NonNull::new(ring.consumer.cast())?,
            flags: NonNull::new(ring.flags.cast())?,
            slots: NonNull::new(ring.ring.cast())?,
            mask: ring.mask,
        };
        let head = shared.producer().load(Ordering::Acquire);
        let tail = shared.consumer().load(Ordering::Relaxed);
        Some(Self { shared, head, tail })
    }

    /// How many entries can be read, at most `wanted`; asks the kernel's index only when none is
    /// known.
    #[inline]
    pub(crate) fn available(&mut self, wanted: u32) -> u32 {
        if self.head == self.tail {
            self.head = self.shared.producer().load(Ordering::Acquire);
        }
        // The kernel is trusted not to claim more than the ring holds; `min` keeps a broken one
        // from making us read an entry twice.
        self.head.wrapping_sub(self.tail).min(wanted).min(self.shared.mask + 1)
    }

    /// Reads the next entry; the caller has seen by [`Consumer::available`] that there is one.
    #[inline]
    pub(crate) fn pop(&mut self) -> T {
        // SAFETY: inside the ring, written by the kernel before it moved its index past it, and not
        // written again before `release`.
        let value = unsafe { self.shared.slot(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        value
    }

    /// Gives everything read back to the kernel.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.shared.consumer().store(self.tail, Ordering::Release);
    }
}
