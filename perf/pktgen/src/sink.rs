//! The receiving end.

use arrayvec::ArrayVec;
use hdrhistogram::Histogram;
use margay_xsk::Frame;

use crate::{numbers::Numbers, port::Port, probe::Probe};

/// Frames received at once.
const BATCH: usize = 64;
/// Longest time under way that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// Counts what arrives.
pub(crate) struct Sink {
    pub(crate) port: Port,
    /// What arrived, by its numbers.
    pub(crate) numbers: Numbers,
    /// Bytes of the frames with a probe.
    pub(crate) bytes: u64,
    /// Frames without one.
    pub(crate) foreign: u64,
    /// Time under way in nanoseconds, of the first packet of every batch.
    pub(crate) latency: Histogram<u64>,
    /// When the last batch came.
    pub(crate) last: u64,
}

// === impl Sink ===

impl Sink {
    pub(crate) fn new(port: Port) -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3)?;
        Ok(Self { port, numbers: Numbers::default(), bytes: 0, foreign: 0, latency, last: 0 })
    }

    /// Takes one batch; whether there was any.
    pub(crate) fn step(&mut self, now: u64) -> bool {
        let mut batch = ArrayVec::<Frame, BATCH>::new();
        if self.port.socket.rx(&mut batch) == 0 {
            return false;
        }
        self.last = now;
        if let Some(probe) = batch.first().and_then(|frame| Probe::find(frame.bytes())) {
            self.latency.saturating_record(now.saturating_sub(probe.left).max(1));
        }
        for frame in batch {
            match Probe::find(frame.bytes()) {
                Some(probe) if self.numbers.note(&probe) => self.bytes += frame.len() as u64,
                _ => self.foreign += 1,
            }
            self.port.pool.put(frame);
        }
        self.port.socket.fill(&mut self.port.pool);
        if self.port.socket.needs_fill_wakeup() {
            self.port.socket.wake_rx();
        }
        true
    }
}
