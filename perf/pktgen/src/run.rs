//! The loop, on one thread that never sleeps.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{probe, report::Report, sender::Sender, sink::Sink};

/// After the last packet was sent, a quiet time of this many nanoseconds ends the run.
const QUIET: u64 = 100_000_000;

/// When to stop.
pub(crate) struct Plan {
    /// How long to send, or to receive where nothing is sent; `None`: until `stop`.
    pub(crate) seconds: Option<f64>,
    /// How much of the beginning is left out of the rates.
    pub(crate) warm_up: f64,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Packets over a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stretch {
    pub(crate) packets: u64,
    pub(crate) nanoseconds: u64,
}

/// A count at a time, from which a stretch is measured.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    packets: u64,
    time: u64,
}

/// Sends, receives, or both, and tells what came of it.
pub(crate) fn run(
    plan: Plan,
    mut sender: Option<Sender>,
    mut sink: Option<Sink>,
) -> anyhow::Result<Report> {
    let warm_up = nanoseconds(plan.warm_up);
    let start = probe::now();
    let limit = plan.seconds.map(|seconds| nanoseconds(seconds) + warm_up);
    // A sink alone starts its clock with the first packet.
    let mut begun = sender.is_some().then_some(start);
    let mut marks = None;
    let mut now = start;
    while !plan.stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| now - start < limit) {
        if let Some(sender) = &mut sender {
            sender.step(now, now - start);
        }
        if let Some(sink) = &mut sink {
            while sink.step(now) {}
            begun = begun.or((sink.numbers.received > 0).then_some(now));
        }
        now = probe::now();
        if marks.is_none() && begun.is_some_and(|begun| now - begun >= warm_up) {
            marks = Some(Mark::both(&sender, &sink, now));
        }
    }
    let end = Mark::both(&sender, &sink, now);
    let [sent, mut received] = marks.map_or_else(Default::default, |marks: [Mark; 2]| {
        [end[0].since(&marks[0]), end[1].since(&marks[1])]
    });
    if let Some(sink) = &mut sink {
        if sender.is_some() {
            drain(sink);
        } else {
            // It does not know when the other end stopped, only when the last packet came.
            received.nanoseconds = received.nanoseconds.saturating_sub(end[1].time - sink.last);
        }
    }
    Report::new(sender.as_ref(), sink.as_ref(), sent, received)
}

/// Takes what is still under way.
fn drain(sink: &mut Sink) {
    let mut last = probe::now();
    loop {
        let now = probe::now();
        if sink.step(now) {
            last = now;
        } else if now - last > QUIET {
            return;
        }
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

// === impl Mark ===

impl Mark {
    /// Of what was sent and of what was received.
    fn both(sender: &Option<Sender>, sink: &Option<Sink>, time: u64) -> [Self; 2] {
        let sent = sender.as_ref().map_or(0, |sender| sender.sent);
        let received = sink.as_ref().map_or(0, |sink| sink.numbers.received);
        [sent, received].map(|packets| Self { packets, time })
    }

    fn since(&self, earlier: &Self) -> Stretch {
        Stretch { packets: self.packets - earlier.packets, nanoseconds: self.time - earlier.time }
    }
}

// === impl Stretch ===

impl Stretch {
    /// Packets a second.
    pub(crate) fn rate(&self) -> f64 {
        if self.nanoseconds == 0 {
            return 0.0;
        }
        self.packets as f64 * 1e9 / self.nanoseconds as f64
    }
}
