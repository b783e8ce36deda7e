//! The loop, on one thread that never sleeps.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{port::Port, probe, sender::Sender, sink::Sink};

/// Batches received at most before something is sent again.
const BATCHES: usize = 32;

/// When to stop.
#[derive(Clone)]
pub(crate) struct Plan {
    /// How long to send, or to receive where nothing is sent; `None`: until `stop`, or until all
    /// senders are done.
    pub(crate) seconds: Option<f64>,
    /// How much of the beginning is left out of the rates.
    pub(crate) warm_up: f64,
    /// After the last packet was sent, a quiet time of so many seconds ends the run.
    pub(crate) settle: f64,
    pub(crate) stop: Arc<AtomicBool>,
}

/// A port, with what sends and what receives there.
pub(crate) struct Station {
    pub(crate) port: Port,
    pub(crate) sender: Option<Sender>,
    pub(crate) sink: Option<Sink>,
    /// What it sent without the warm-up, once it has run.
    pub(crate) sent: Stretch,
    /// What it received.
    pub(crate) received: Stretch,
}

/// Packets over a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stretch {
    pub(crate) packets: u64,
    pub(crate) nanoseconds: u64,
}

/// A station's counts at a time, from which stretches are measured.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    sent: u64,
    received: u64,
    time: u64,
}

/// Sends, receives, or both.
///
/// # Errors
/// An interface is down or gone.
pub(crate) fn run(plan: &Plan, stations: &mut [Station]) -> anyhow::Result<()> {
    let warm_up = nanoseconds(plan.warm_up);
    let sends = stations.iter().any(|station| station.sender.is_some());
    let start = probe::now();
    let limit = plan.seconds.map(|seconds| nanoseconds(seconds) + warm_up);
    // A sink alone starts its clock with the first packet.
    let mut begun = sends.then_some(start);
    let mut marks = None;
    let mut now = start;
    while !plan.stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| now - start < limit) {
        for station in &mut *stations {
            station.step(now, now - start)?;
        }
        now = probe::now();
        begun = begun.or(stations.iter().any(|station| station.arrived() > 0).then_some(now));
        if marks.is_none() && begun.is_some_and(|begun| now - begun >= warm_up) {
            marks = Some(stations.iter().map(|station| station.mark(now)).collect::<Vec<_>>());
        }
        if sends && stations.iter().all(Station::done) {
            break;
        }
    }
    for (station, mark) in stations.iter_mut().zip(marks.into_iter().flatten()) {
        station.measure(mark, now, sends);
    }
    if sends {
        drain(stations, nanoseconds(plan.settle), &plan.stop);
    }
    Ok(())
}

/// Takes what is still under way.
fn drain(stations: &mut [Station], quiet: u64, stop: &AtomicBool) {
    let mut last = probe::now();
    while !all_arrived(stations) && !stop.load(Ordering::Relaxed) {
        let now = probe::now();
        let mut came = false;
        for Station { port, sink, .. } in &mut *stations {
            // Frames may still wait for room in the device.
            port.socket.complete(&mut port.pool);
            let _ = port.socket.kick_tx();
            came |= sink.as_mut().is_some_and(|sink| sink.step(port));
        }
        if came {
            last = now;
        } else if now - last > quiet {
            return;
        }
    }
}

fn all_arrived(stations: &[Station]) -> bool {
    let sent = stations.iter().map(Station::departed).sum::<u64>();
    sent == stations.iter().map(Station::arrived).sum::<u64>()
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

// === impl Station ===

impl Station {
    pub(crate) fn new(port: Port, sender: Option<Sender>, sink: Option<Sink>) -> Self {
        Self { port, sender, sink, sent: Stretch::default(), received: Stretch::default() }
    }

    fn step(&mut self, now: u64, elapsed: u64) -> anyhow::Result<()> {
        if let Some(sender) = &mut self.sender {
            sender.step(&mut self.port, now, elapsed)?;
        }
        if let Some(sink) = &mut self.sink {
            // Not for ever: others may send faster than this receives.
            let _ = (0..BATCHES).all(|_| sink.step(&mut self.port));
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.sender.as_ref().is_none_or(Sender::done)
    }

    /// Packets received.
    fn arrived(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.numbers.received)
    }

    /// Packets sent, answers too.
    fn departed(&self) -> u64 {
        let answers = self.sink.as_ref().and_then(|sink| sink.answers.as_ref());
        self.sender.as_ref().map_or(0, |sender| sender.sent)
            + answers.map_or(0, |answers| answers.sent)
    }

    fn mark(&self, time: u64) -> Mark {
        let sent = self.sender.as_ref().map_or(0, |sender| sender.sent);
        Mark { sent, received: self.arrived(), time }
    }

    /// What happened since the mark.
    fn measure(&mut self, since: Mark, now: u64, sends: bool) {
        let end = match &self.sink {
            // Alone it does not know when the other end stopped, only when the last packet came.
            Some(sink) if !sends => sink.last.max(since.time),
            _ => now,
        };
        let mark = self.mark(now);
        self.sent =
            Stretch { packets: mark.sent - since.sent, nanoseconds: mark.time - since.time };
        self.received =
            Stretch { packets: mark.received - since.received, nanoseconds: end - since.time };
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
