//! Counters of one worker: written by it alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use margay_model::{DropReason, PuntReason};

use crate::meter::Meters;
use crate::snapshot::PortId;

/// A number with one writer; adding is a plain load and store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number. Only its one writer may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Frames and bytes of a port in one direction; bytes count whole Ethernet frames.
#[derive(Debug, Default)]
struct PortCount {
    frames: Counter,
    bytes: Counter,
}

/// What a worker counts.
#[derive(Debug)]
pub struct Counters {
    /// Received, by port.
    rx: Box<[PortCount]>,
    /// Sent, by port.
    tx: Box<[PortCount]>,
    /// Frames dropped, by reason.
    drops: [Counter; DropReason::COUNT],
    /// Frames punted, by reason.
    punts: [Counter; PuntReason::COUNT],
    /// Frames of the slow path's making that entered the dataplane, by reason.
    injected: [Counter; PuntReason::COUNT],
    /// Punts that ended in the slow path, by reason.
    consumed: [Counter; PuntReason::COUNT],
    /// Packets that no flow knew.
    pub misses: Counter,
    /// Decisions made anew because their generation was old.
    pub stale: Counter,
    /// Denied packets that no record was left for, and packets of untracked policies that there was no
    /// room for: rules have not counted them.
    pub unremembered: Counter,
    /// Connections evicted to make room.
    pub evicted: Counter,
    /// Connections that ended by age.
    pub expired: Counter,
    /// Frames that the kernel dropped before they were received: the receive ring was full.
    pub ring_full: Counter,
    /// The same: no empty frame was ready, or it was too small.
    pub no_frame: Counter,
    /// What it does with its time.
    pub meters: Meters,
}

impl Default for Counters {
    fn default() -> Self {
        let ports = || (0..Self::PORTS).map(|_| PortCount::default()).collect();
        Self {
            rx: ports(),
            tx: ports(),
            drops: std::array::from_fn(|_| Counter::default()),
            punts: std::array::from_fn(|_| Counter::default()),
            injected: std::array::from_fn(|_| Counter::default()),
            consumed: std::array::from_fn(|_| Counter::default()),
            misses: Counter::default(),
            stale: Counter::default(),
            unremembered: Counter::default(),
            evicted: Counter::default(),
            expired: Counter::default(),
            ring_full: Counter::default(),
            no_frame: Counter::default(),
            meters: Meters::default(),
        }
    }
}

impl Counters {
    /// Ports that can be counted, one for each number.
    pub const PORTS: usize = 1 << 12;

    /// Ports with a higher number share the last counter.
    fn slot(ports: &[PortCount], port: PortId) -> Option<&PortCount> {
        ports.get(usize::from(port.0).min(Self::PORTS - 1))
    }

    /// Counts a received frame.
    #[inline]
    pub fn received(&self, port: PortId, bytes: usize) {
        if let Some(count) = Self::slot(&self.rx, port) {
            count.frames.add(1);
            count.bytes.add(bytes as u64);
        }
    }

    /// Counts a sent frame.
    #[inline]
    pub fn sent(&self, port: PortId, bytes: usize) {
        if let Some(count) = Self::slot(&self.tx, port) {
            count.frames.add(1);
            count.bytes.add(bytes as u64);
        }
    }

    /// Counts a dropped frame.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Counts a punted frame.
    #[inline]
    pub fn punted(&self, reason: PuntReason) {
        if let Some(counter) = self.punts.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Counts a frame of the slow path's making.
    pub fn injected(&self, reason: PuntReason) {
        if let Some(counter) = self.injected.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Counts a punt that ended.
    pub fn consumed(&self, reason: PuntReason) {
        if let Some(counter) = self.consumed.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Frames and bytes that a port received.
    pub fn rx(&self, port: PortId) -> (u64, u64) {
        Self::slot(&self.rx, port).map_or((0, 0), |c| (c.frames.get(), c.bytes.get()))
    }

    /// Frames and bytes that a port sent.
    pub fn tx(&self, port: PortId) -> (u64, u64) {
        Self::slot(&self.tx, port).map_or((0, 0), |c| (c.frames.get(), c.bytes.get()))
    }

    /// Dropped, punted, injected and consumed frames, each in the order of its table.
    pub fn by_reason(&self) -> ([u64; DropReason::COUNT], [[u64; PuntReason::COUNT]; 3]) {
        let read = |counters: &[Counter; PuntReason::COUNT]| {
            std::array::from_fn(|i| counters.get(i).map_or(0, Counter::get))
        };
        let drops = std::array::from_fn(|i| self.drops.get(i).map_or(0, Counter::get));
        (drops, [read(&self.punts), read(&self.injected), read(&self.consumed)])
    }
}
