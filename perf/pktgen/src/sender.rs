//! The sending end.

use arrayvec::ArrayVec;
use margay_xsk::{Frame, HEADROOM, Kick};

use crate::{flows::Flows, port::Port, probe::Probe};

/// Frames sent at once.
const BATCH: usize = 64;

/// Sends the packets of its flows in turn.
pub(crate) struct Sender {
    pub(crate) port: Port,
    pub(crate) flows: Flows,
    /// Packets a second, if limited.
    pub(crate) rate: Option<u64>,
    /// Packets that the tx ring took.
    pub(crate) sent: u64,
    next_flow: u32,
    /// Number of the next packet of every flow from `next_flow` on; the flows before are one ahead.
    next_number: u32,
}

// === impl Sender ===

impl Sender {
    pub(crate) fn new(port: Port, flows: Flows, rate: Option<u64>) -> Self {
        Self { port, flows, rate, sent: 0, next_flow: 0, next_number: 0 }
    }

    /// Sends one batch at most, of what is due `elapsed` nanoseconds after the start.
    pub(crate) fn step(&mut self, now: u64, elapsed: u64) {
        self.port.socket.complete(&mut self.port.pool);
        let due = match self.rate {
            Some(rate) => u128::from(rate) * u128::from(elapsed) / 1_000_000_000,
            None => u128::MAX,
        };
        let due = due.saturating_sub(self.sent.into()).min(BATCH as u128) as usize;
        let mut batch = ArrayVec::<Frame, BATCH>::new();
        while batch.len() < due
            && let Some(frame) = self.port.pool.take()
        {
            batch.push(frame);
        }
        for frame in &mut batch {
            self.write(frame, now);
        }
        let mut rest = batch.drain(..);
        self.sent += self.port.socket.tx(&mut rest) as u64;
        // Their numbers are missed at the other end, as those of other packets lost.
        rest.for_each(|frame| self.port.pool.put(frame));
        if let Ok(Kick::Pending) = self.port.socket.kick_tx() {
            self.port.socket.complete(&mut self.port.pool);
        }
    }

    fn write(&mut self, frame: &mut Frame, left: u64) {
        let probe = Probe { flow: self.next_flow, number: self.next_number, left };
        self.next_flow += 1;
        if self.next_flow == self.flows.count() {
            self.next_flow = 0;
            self.next_number = self.next_number.wrapping_add(1);
        }
        // A chunk of this port was never written behind its probe: it is zero there.
        if frame.set_range(HEADROOM, self.flows.size()).is_ok() {
            self.flows.write(&probe, frame.bytes_mut());
        }
    }
}
