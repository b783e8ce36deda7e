//! A worker as others see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst, fence};

use crossbeam::queue::{ArrayQueue, SegQueue};
use margay_engine::snapshot::DeviceId;
use margay_engine::{Counters, PortId, Punt, Snapshot};
use margay_tables::addr::Tuple;
use margay_xsk::{Frame, Socket};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::tap::Tap;

/// How a worker waits for frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// It polls while there is traffic and sleeps when there is none.
    #[default]
    Adaptive,
    /// It never sleeps.
    Busy,
}

/// What a worker is told.
pub enum Command {
    /// Forward by this from now on.
    Snapshot(Arc<Snapshot>),
    /// Drive this socket: the device is this worker's from now on.
    Attach(DeviceId, Box<Socket>),
    /// Give the device's socket back.
    Detach(DeviceId),
    /// These want to see packets from now on.
    Taps(Arc<[Arc<Tap>]>),
    /// Frames for the device go to that worker; `None`: to nobody.
    Route(DeviceId, Option<usize>),
    /// End.
    Stop,
}

/// What a worker gives back, for another thread to drop: freeing a snapshot or closing a socket
/// takes longer than a batch may.
pub enum Returned {
    /// A snapshot that is not used any more.
    Snapshot(Arc<Snapshot>),
    /// A socket that was taken from it, or whose interface is gone.
    Socket(DeviceId, Box<Socket>),
}

/// A frame of the slow path's making; it has been counted as injected.
pub struct Injected {
    /// The port to leave by.
    pub port: PortId,
    /// When, by [`crate::clock`] in nanoseconds; 0 for at once.
    pub due: u64,
    /// The whole frame.
    pub bytes: Vec<u8>,
}

/// A frame for the slow path.
pub struct Punted {
    /// Why, and with what.
    pub punt: Punt,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// The way from all workers to one task, which sleeps while there is nothing.
pub struct Inbox<T> {
    queue: ArrayQueue<T>,
    bell: OwnedFd,
    /// Whether the task waits for the bell.
    waiting: AtomicBool,
}

/// The way to the slow path.
pub type Punts = Inbox<Punted>;

/// Busy connections that may need no worker, by the tuple of one direction: see
/// [`margay_engine::shortcut`]. What finds it full is mentioned again later.
pub type Mentions = Inbox<Tuple>;

/// One worker's queues.
pub struct Link {
    commands: SegQueue<Command>,
    pub(crate) returned: SegQueue<Returned>,
    injected: ArrayQueue<Injected>,
    handoff: ArrayQueue<(PortId, DeviceId, Frame)>,
    pub(crate) bell: OwnedFd,
    pub(crate) asleep: AtomicBool,
    /// Generation of the snapshot in use.
    pub(crate) generation: AtomicU32,
    /// Snapshots taken into use.
    pub(crate) adopted: std::sync::atomic::AtomicU64,
    /// What it counts.
    pub counters: Arc<Counters>,
}

/// Frames that wait in one of a worker's queues at most.
const QUEUE: usize = 4096;

// === impl Inbox ===

impl<T> Inbox<T> {
    /// It takes at most `size`.
    pub fn new(size: usize) -> rustix::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { queue: ArrayQueue::new(size), bell, waiting: AtomicBool::new(true) })
    }

    /// Hands one over; gives it back where the queue is full.
    pub(crate) fn push(&self, one: T) -> Result<(), T> {
        self.queue.push(one)?;
        ring_if(&self.waiting, &self.bell);
        Ok(())
    }

    /// The next one. After `None` the bell will ring for it.
    pub fn pop(&self) -> Option<T> {
        if let Some(one) = self.queue.pop() {
            return Some(one);
        }
        self.waiting.store(true, SeqCst);
        fence(SeqCst);
        // One may have come between the look and the note.
        self.queue.pop()
    }

    /// How many it takes.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Readable when [`Inbox::pop`] may have something; to be read once before it.
    pub fn bell(&self) -> &OwnedFd {
        &self.bell
    }
}

// === impl Link ===

impl Link {
    /// The queues of a new worker.
    pub fn new(counters: Arc<Counters>) -> rustix::io::Result<Self> {
        Ok(Self {
            commands: SegQueue::new(),
            returned: SegQueue::new(),
            injected: ArrayQueue::new(QUEUE),
            handoff: ArrayQueue::new(QUEUE),
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            asleep: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            adopted: Default::default(),
            counters,
        })
    }

    /// Tells the worker something, and wakes it.
    pub fn command(&self, command: Command) {
        self.commands.push(command);
        self.wake();
    }

    /// Gives the worker a frame to send; gives it back where too many wait.
    pub fn inject(&self, frame: Injected) -> Result<(), Injected> {
        self.injected.push(frame)?;
        self.wake();
        Ok(())
    }

    /// What the worker has given back. To be taken regularly, and before frames can run short.
    pub fn take_returned(&self) -> Option<Returned> {
        self.returned.pop()
    }

    /// How many snapshots the worker has taken into use.
    pub fn adopted(&self) -> u64 {
        self.adopted.load(SeqCst)
    }

    /// Whether the worker waits for something to do.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(SeqCst)
    }

    pub(crate) fn next_command(&self) -> Option<Command> {
        if self.commands.is_empty() { None } else { self.commands.pop() }
    }

    pub(crate) fn next_injected(&self) -> Option<Injected> {
        self.injected.pop()
    }

    pub(crate) fn hand_over(
        &self,
        port: PortId,
        device: DeviceId,
        frame: Frame,
    ) -> Result<(), Frame> {
        self.handoff.push((port, device, frame)).map_err(|(.., frame)| frame)
    }

    pub(crate) fn next_handed_over(&self) -> Option<(PortId, DeviceId, Frame)> {
        self.handoff.pop()
    }

    pub(crate) fn has_work(&self) -> bool {
        !(self.commands.is_empty() && self.injected.is_empty() && self.handoff.is_empty())
    }

    pub(crate) fn wake(&self) {
        ring_if(&self.asleep, &self.bell);
    }
}

/// Rings a bell if somebody sleeps: the sleeper notes that it sleeps, then looks once more; who
/// brings work puts it down, then looks at the note. One of the two sees the other.
fn ring_if(asleep: &AtomicBool, bell: &OwnedFd) {
    fence(SeqCst);
    if asleep.swap(false, SeqCst) {
        // A bell that is full of rings rings already.
        let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
    }
}
