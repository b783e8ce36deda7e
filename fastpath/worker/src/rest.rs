//! When and how a worker sleeps.
//!
//! Sockets with traffic are *hot*: polled in every cycle. A socket that had none for a while cools:
//! epoll watches it, one-shot, and a worker with hot sockets asks epoll only now and then. When all
//! are cool the worker waits in epoll, with its bell among the descriptors.
//!
//! A socket that is in the epoll set, armed or not, has the kernel call epoll for every packet that
//! it receives or has sent. Busy ones are taken out of the set.
//!
//! Going to sleep, in this order (the other side is `link::ring_if`): note that it sleeps; look at
//! the queues once more; wait; take the note back.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};

use crate::link::Link;

/// The bell's number; the caller's are smaller.
const BELL: u64 = u64::MAX;

/// Descriptors that a worker waits for.
pub(crate) struct Rest {
    epoll: OwnedFd,
    events: Vec<Event>,
}

// === impl Rest ===

impl Rest {
    pub(crate) fn new(link: &Link) -> rustix::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &link.bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self { epoll, events: Vec::with_capacity(64) })
    }

    /// Puts a descriptor into the set under a number of the caller's, and arms it.
    pub(crate) fn add(&self, token: u64, fd: impl AsFd) -> rustix::io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    /// Arms a descriptor of the set: one event, then it is disarmed.
    pub(crate) fn arm(&self, token: u64, fd: impl AsFd) -> rustix::io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    /// Takes a descriptor out of the set.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // A descriptor that is not watched needs no end of it.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Which cool devices have something, without waiting.
    pub(crate) fn look(&mut self, link: &Link, woken: impl FnMut(u64)) {
        self.wait(link, Duration::ZERO, woken);
    }

    /// Sleeps until a device has something, the bell rings, or the time is over.
    pub(crate) fn sleep(&mut self, link: &Link, most: Duration, woken: impl FnMut(u64)) {
        link.asleep.store(true, SeqCst);
        std::sync::atomic::fence(SeqCst);
        let most = if link.has_work() { Duration::ZERO } else { most };
        self.wait(link, most, woken);
        link.asleep.store(false, SeqCst);
    }

    fn wait(&mut self, link: &Link, most: Duration, mut woken: impl FnMut(u64)) {
        let tv_nsec = most.subsec_nanos().into();
        let timeout = Timespec { tv_sec: most.as_secs() as i64, tv_nsec };
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        // Interrupted means that nothing is there yet: the next cycle asks again.
        if epoll::wait(&self.epoll, spare, Some(&timeout)).is_err() {
            return;
        }
        for event in &self.events {
            match event.data.u64() {
                BELL => drop(rustix::io::read(&link.bell, &mut [0u8; 8])),
                token => woken(token),
            }
        }
    }
}
