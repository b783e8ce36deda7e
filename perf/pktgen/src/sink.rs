//! The receiving end.

use margay_xsk::Frame;

use crate::{
    answers::Answers,
    delay::Delays,
    numbers::Numbers,
    port::Port,
    probe::{self, Probe},
};

/// Frames received at once.
pub(crate) const BATCH: usize = 64;

/// Counts what arrives.
pub(crate) struct Sink {
    /// What arrived, by its numbers.
    pub(crate) numbers: Numbers,
    /// Bytes of the frames with a probe.
    pub(crate) bytes: u64,
    /// Frames without one.
    pub(crate) foreign: u64,
    /// Frames that left before this sink began: of an earlier run.
    pub(crate) stale: u64,
    pub(crate) delays: Delays,
    /// When the last batch came.
    pub(crate) last: u64,
    /// When it began; 0 to count whatever comes.
    since: u64,
    /// What goes back, where that is asked for.
    pub(crate) answers: Option<Answers>,
}

// === impl Sink ===

impl Sink {
    /// Counts what left from `since` on.
    pub(crate) fn new(since: u64, variation: bool) -> anyhow::Result<Self> {
        let delays = Delays::new(variation)?;
        let numbers = Numbers::default();
        Ok(Self { numbers, bytes: 0, foreign: 0, stale: 0, delays, last: 0, since, answers: None })
    }

    /// The same, and some of what arrives goes back.
    pub(crate) fn answering(self) -> Self {
        Self { answers: Some(Answers::default()), ..self }
    }

    /// Takes a batch from each queue; whether there was any.
    pub(crate) fn step(&mut self, port: &mut Port) -> bool {
        let mut any = false;
        port.take::<BATCH>(|batch| {
            any = true;
            self.last = probe::now();
            batch.iter().for_each(|frame| self.count(frame));
            if let Some(answers) = &mut self.answers {
                answers.take(batch, self.last);
            }
        });
        if let Some(answers) = &mut self.answers {
            answers.send(port);
        }
        any
    }

    fn count(&mut self, frame: &Frame) {
        match Probe::find(frame.bytes()) {
            Some(probe) if probe.left < self.since => self.stale += 1,
            Some(probe) if self.numbers.note(&probe) => {
                self.bytes += frame.packet_len() as u64;
                self.delays.note(self.last.saturating_sub(probe.left));
            }
            _ => self.foreign += 1,
        }
    }
}
