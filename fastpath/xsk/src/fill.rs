//! Fill: chunks for the kernel to receive into.

use rustix::net::{RecvFlags, recv};

use crate::{Pool, Socket};

/// Chunks are given in groups of at least this many, so that the ring's index, a cache line shared
/// with the kernel, is not written for every packet.
const GROUP: u32 = 32;

impl Socket {
    /// Gives the kernel free chunks until it has as many as the socket's options say, and returns
    /// how many were given. Makes no system call; see [`Socket::needs_fill_wakeup`].
    #[inline]
    pub fn fill(&mut self, pool: &mut Pool) -> usize {
        let size = self.fill.size();
        let group = GROUP.min(self.ready);
        // `free` reads the kernel's index only if the last known one does not leave enough.
        let in_ring = size - self.fill.free(size - self.ready + group);
        let wanted = self.ready.saturating_sub(in_ring);
        if wanted < group {
            return 0;
        }
        let mut given = 0;
        while given < wanted as usize {
            let Some(chunk) = pool.lend(self.region) else {
                self.counters.fill_starved += 1;
                break;
            };
            self.lent.insert(chunk);
            self.fill.push(self.region.address(chunk, 0));
            given += 1;
        }
        if given > 0 {
            self.fill.commit();
        }
        given
    }

    /// How many frames [`Socket::fill`] keeps ready.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.ready
    }

    /// Changes that number; at most the fill ring's size. Frames that are ready beyond a lower one
    /// stay until packets come for them: the kernel gives none back.
    pub fn set_ready(&mut self, ready: u32) {
        self.ready = ready.min(self.fill.size());
    }

    /// Whether the driver ran out of chunks and waits for [`Socket::wake_rx`] (or a poll of the
    /// socket). Only zero-copy drivers do.
    #[inline]
    #[must_use]
    pub fn needs_fill_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Tells the driver that there are chunks again.
    pub fn wake_rx(&mut self) {
        // Nothing is read: on an AF_XDP socket this only runs the driver's wakeup. A failure means
        // that the interface is down or gone, which the next kick reports.
        let _ = recv(&*self, &mut [0u8; 0][..], RecvFlags::DONTWAIT);
    }
}
