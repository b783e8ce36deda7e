//! Preferred busy polling: the kernel runs a queue's NAPI within the system calls of the socket's
//! owner and leaves the interrupt for later (Documentation/networking/napi.rst, "Busy polling").
//!
//! A socket must know the NAPI of its queue for that. Linux before 6.13 tells it with the first
//! packet, later ones when it is bound, and only where the driver says which NAPI serves a queue.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use libc::{
    SO_BUSY_POLL, SO_BUSY_POLL_BUDGET, SO_INCOMING_NAPI_ID, SO_PREFER_BUSY_POLL, SOL_SOCKET,
};

use crate::Socket;

/// Microseconds that a call which waits would poll. Calls here never wait; 0 turns polling off.
const PATIENCE: u32 = 20;
/// Packets of one call: a batch of the worker's.
const BUDGET: u32 = 64;

/// The NAPI behind a socket, as another thread sees it: 0 as long as the socket knows none.
#[derive(Clone, Debug, Default)]
pub struct Napi(Arc<AtomicU32>);

// === impl Napi ===

impl Napi {
    /// Whether the socket knows it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

// === impl Socket ===

impl Socket {
    /// Asks the kernel for preferred busy polling; it begins when the NAPI is known.
    ///
    /// # Errors
    /// The kernel's: ENOPROTOOPT before Linux 5.11, EPERM without `CAP_NET_ADMIN`. Nothing has
    /// changed then.
    pub fn prefer_busy_poll(&mut self) -> io::Result<Napi> {
        self.set_option(SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
        self.set_option(SOL_SOCKET, SO_BUSY_POLL_BUDGET, BUDGET)?;
        // The last: it is the one that turns polling on.
        self.set_option(SOL_SOCKET, SO_BUSY_POLL, PATIENCE)?;
        let napi = self.napi.insert(Napi::default()).clone();
        self.look_for_napi();
        Ok(napi)
    }

    /// Asks whether the NAPI is known by now; to be called now and then. Costs a system call as long
    /// as it is wanted and not known, else nothing.
    pub fn look_for_napi(&mut self) {
        let Some(napi) = self.napi.as_ref().filter(|_| !self.polled) else { return };
        let id = self.incoming_napi();
        napi.0.store(id, Ordering::Relaxed);
        self.polled = id != 0;
    }

    /// Runs the queue's NAPI, on behalf of [`Socket::rx`]: what has come is in the ring afterwards.
    /// Costs nothing where the interrupt does that.
    #[inline]
    pub fn run_napi(&mut self) {
        if self.polled {
            self.wake_rx();
        }
    }

    fn incoming_napi(&self) -> u32 {
        let (mut id, mut len) = (0u32, size_of::<u32>() as libc::socklen_t);
        // SAFETY: a live descriptor, and pointers to a value and to its length. Where the kernel
        // refuses, the value stays 0.
        unsafe {
            libc::getsockopt(
                self.as_fd().as_raw_fd(),
                SOL_SOCKET,
                SO_INCOMING_NAPI_ID,
                (&raw mut id).cast(),
                &raw mut len,
            )
        };
        id
    }
}
