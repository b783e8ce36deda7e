//! The sending end.

use anyhow::Context;
use arrayvec::ArrayVec;
use margay_xsk::Frame;

use crate::{flows::Flows, port::Port, probe::Probe, sizes::Sizes};

/// Frames sent at once.
pub(crate) const BATCH: usize = 64;

/// Sends the packets of its flows in turn.
pub(crate) struct Sender {
    pub(crate) flows: Flows,
    pub(crate) sizes: Sizes,
    /// Packets a second, if limited.
    pub(crate) rate: Option<f64>,
    /// Packets to send in all, if limited.
    pub(crate) limit: Option<u64>,
    /// Packets that the tx ring took.
    pub(crate) sent: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    next: Place,
    /// What was not sent yet of what was due when the last step began.
    behind: u64,
    /// Whether chunks may hold what was received in them.
    used: bool,
}

/// A packet's place in what is sent.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    flow: u32,
    /// In its flow; the flows before it are one ahead.
    number: u32,
    /// In the turn of the sizes.
    turn: usize,
}

// === impl Sender ===

impl Sender {
    /// `receives` says whether frames are received into the same packet memory.
    pub(crate) fn new(flows: Flows, sizes: Sizes, rate: Option<f64>, receives: bool) -> Self {
        Self {
            flows,
            sizes,
            rate,
            limit: None,
            sent: 0,
            bytes: 0,
            next: Place::default(),
            behind: 0,
            used: receives,
        }
    }

    /// Whether all is sent that was asked for.
    pub(crate) fn done(&self) -> bool {
        self.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// Whether the rate was kept to the end, but for what a busy moment leaves.
    pub(crate) fn kept_rate(&self) -> bool {
        self.rate.is_none() || self.behind <= self.sent / 100 + BATCH as u64
    }

    /// Sends one batch at most, of what is due `elapsed` nanoseconds after the start.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub(crate) fn step(&mut self, port: &mut Port, now: u64, elapsed: u64) -> anyhow::Result<()> {
        port.socket.complete(&mut port.pool);
        let limit = self.limit.unwrap_or(u64::MAX);
        let due = match self.rate {
            // One more than whole intervals have passed: the first packet leaves at once.
            Some(rate) => ((rate * elapsed as f64 / 1e9) as u64).saturating_add(1).min(limit),
            None => limit,
        };
        self.behind = due.saturating_sub(self.sent);
        let mut batch = ArrayVec::<(Frame, Place), BATCH>::new();
        while (batch.len() as u64) < self.behind.min(BATCH as u64)
            && let Some(mut frame) = port.pool.take_for(self.sizes.of(self.next.turn))
        {
            let place = self.next;
            self.write(&mut frame, now);
            batch.push((frame, place));
        }
        self.submit(port, batch);
        port.socket.kick_tx().with_context(|| port.interface.clone())?;
        Ok(())
    }

    /// Hands the batch to the kernel. What the ring has no room for is made again later.
    fn submit(&mut self, port: &mut Port, batch: ArrayVec<(Frame, Place), BATCH>) {
        let (mut frames, mut places) = (ArrayVec::<Frame, BATCH>::new(), [Place::default(); BATCH]);
        for ((frame, place), kept) in batch.into_iter().zip(&mut places) {
            self.bytes += frame.packet_len() as u64;
            *kept = place;
            frames.push(frame);
        }
        let mut rest = frames.drain(..);
        let taken = port.socket.tx(&mut rest);
        self.sent += taken as u64;
        if rest.len() > 0 {
            self.next = places.get(taken).copied().unwrap_or_default();
        }
        for frame in rest {
            self.bytes -= frame.packet_len() as u64;
            port.pool.put(frame);
        }
    }

    /// Makes the next packet in a frame of its length.
    fn write(&mut self, frame: &mut Frame, left: u64) {
        let Place { flow, number, turn } = self.next;
        self.next = Place {
            flow: if flow + 1 == self.flows.count() { 0 } else { flow + 1 },
            number: number.wrapping_add((flow + 1 == self.flows.count()).into()),
            turn: if turn + 1 >= self.sizes.turn() { 0 } else { turn + 1 },
        };
        // A chunk that only ever held such packets is zero behind the probe.
        if self.used {
            frame.parts_mut().for_each(|part| part.fill(0));
        } else if frame.goes_on() {
            // What was the first chunk of another packet has its headers.
            let least = self.flows.least();
            for part in frame.parts_mut().skip(1) {
                part.iter_mut().take(least).for_each(|byte| *byte = 0);
            }
        }
        self.flows.write(&Probe { flow, number, left }, self.sizes.of(turn), frame.bytes_mut());
    }
}
