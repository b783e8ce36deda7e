//! Sending a capture's frames.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use arrayvec::ArrayVec;
use margay_xsk::Frame;
use serde::Serialize;

use crate::{
    arguments::ReplayArguments,
    capture::{Capture, Captured},
    port::{self, Port},
    probe, report,
    sender::BATCH,
};

/// How the frames follow each other.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// As they were captured.
    Captured,
    /// So many a second.
    Rate(u64),
    TopSpeed,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    interface: String,
    mode: String,
    /// Frames in the capture that can be sent.
    frames: usize,
    /// Left out: only their beginning was captured.
    cut: usize,
    /// Left out: larger than the interface's MTU allows, or than this program sends.
    too_large: usize,
    packets: u64,
    bytes: u64,
    /// Times through the whole capture.
    turns: u64,
    seconds: f64,
    packets_per_second: f64,
    /// The longest that a frame was sent after its time, in microseconds.
    latest: f64,
    notes: Vec<String>,
}

/// Frames and when they are due.
struct Replay {
    frames: Vec<Captured>,
    pace: Pace,
    again: bool,
    /// Nanoseconds of a turn at the captured pace: one mean gap after the last frame.
    turn: u64,
    next: usize,
    turns: u64,
    packets: u64,
    bytes: u64,
    latest: u64,
}

/// Sends the frames of the file until its end, the time's end or a signal.
pub(crate) fn replay(arguments: &ReplayArguments, stop: &AtomicBool) -> anyhow::Result<Report> {
    let place = &arguments.place;
    let Capture { mut frames, cut } = Capture::read(&arguments.file)?;
    let most = port::largest_frame(&place.interface, place.netns.as_deref())?.min(port::LARGEST);
    let all = frames.len();
    frames.retain(|frame| frame.bytes.len() <= most);
    let too_large = all - frames.len();
    let largest = frames.iter().map(|frame| frame.bytes.len()).max();
    let largest = largest.with_context(|| {
        format!(
            "--file: all frames are larger than the {most} bytes that {} takes",
            place.interface
        )
    })?;
    frames.iter_mut().for_each(|frame| readdress(frame, arguments));
    let mut port = Port::open(&place.interface, place.netns.as_deref(), largest)?;
    let mut replay = Replay::new(frames, arguments);
    let start = probe::now();
    let limit = arguments.seconds.map_or(u64::MAX, |seconds| (seconds * 1e9) as u64);
    let mut elapsed = 0;
    while !stop.load(Ordering::Relaxed) && elapsed < limit && !replay.done() {
        replay.step(&mut port, elapsed)?;
        elapsed = probe::now() - start;
    }
    // What the ring still holds would be lost with the socket.
    while port.socket.tx_pending() > 0 && probe::now() - start < elapsed + 1_000_000_000 {
        port.socket.complete(&mut port.pool);
        port.socket.kick_tx().with_context(|| place.interface.clone())?;
    }
    Ok(replay.report(&port, cut, too_large, elapsed))
}

fn readdress(frame: &mut Captured, arguments: &ReplayArguments) {
    for (mac, place) in [(arguments.dst_mac, 0..6), (arguments.src_mac, 6..12)] {
        if let (Some(mac), Some(bytes)) = (mac, frame.bytes.get_mut(place)) {
            bytes.copy_from_slice(&mac);
        }
    }
}

// === impl Replay ===

impl Replay {
    fn new(frames: Vec<Captured>, arguments: &ReplayArguments) -> Self {
        let pace = match (arguments.rate, arguments.top_speed) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, true) => Pace::TopSpeed,
            (None, false) => Pace::Captured,
        };
        let span = frames.iter().map(|frame| frame.at.as_nanos() as u64).max().unwrap_or_default();
        let turn = span + span / (frames.len() as u64 - 1).max(1);
        let again = arguments.again;
        Self { frames, pace, again, turn, next: 0, turns: 0, packets: 0, bytes: 0, latest: 0 }
    }

    fn done(&self) -> bool {
        self.turns > 0 && !self.again
    }

    /// When the next frame is due, in nanoseconds after the start; nothing to be late for at top
    /// speed.
    fn due(&self) -> u64 {
        match self.pace {
            Pace::TopSpeed => 0,
            Pace::Rate(rate) => {
                (u128::from(self.packets) * 1_000_000_000 / u128::from(rate)) as u64
            }
            Pace::Captured => {
                let at = self.frames.get(self.next).map_or(0, |frame| frame.at.as_nanos() as u64);
                at.saturating_add(self.turns.saturating_mul(self.turn))
            }
        }
    }

    /// Sends what is due, one batch at most.
    fn step(&mut self, port: &mut Port, elapsed: u64) -> anyhow::Result<()> {
        port.socket.complete(&mut port.pool);
        for _ in 0..BATCH {
            if self.done() || self.due() > elapsed {
                break;
            }
            let Some(captured) = self.frames.get(self.next) else { break };
            let Some(frame) = port.pool.packet(&captured.bytes) else { break };
            let mut one = ArrayVec::<Frame, 1>::from([frame]);
            let mut one = one.drain(..);
            if port.socket.tx(&mut one) == 0 {
                one.for_each(|frame| port.pool.put(frame));
                break;
            }
            drop(one);
            self.sent(elapsed);
        }
        port.socket.kick_tx().with_context(|| port.interface.clone())?;
        Ok(())
    }

    /// Counts the frame that was just sent, and goes on to the next.
    fn sent(&mut self, elapsed: u64) {
        if !matches!(self.pace, Pace::TopSpeed) {
            self.latest = self.latest.max(elapsed.saturating_sub(self.due()));
        }
        self.packets += 1;
        self.bytes += self.frames.get(self.next).map_or(0, |frame| frame.bytes.len() as u64);
        self.next += 1;
        if self.next == self.frames.len() {
            self.next = 0;
            self.turns += 1;
        }
    }

    fn report(&self, port: &Port, cut: usize, too_large: usize, elapsed: u64) -> Report {
        let seconds = elapsed as f64 / 1e9;
        let packets_per_second = self.packets as f64 / seconds;
        let mut notes = Vec::from_iter(report::ALONE.map(str::to_owned));
        // Sent in bursts it would not be: behind at the end means behind for good.
        if let Pace::Rate(rate) = self.pace
            && packets_per_second < rate as f64 * 0.99
            && self.packets > BATCH as u64
        {
            notes.push(format!(
                "the rate of {rate} packets a second was not kept: {packets_per_second:.0} were sent"
            ));
        }
        if cut + too_large > 0 {
            notes.push(format!("left out: {cut} frames cut short, {too_large} too large"));
        }
        Report {
            interface: port.interface.clone(),
            mode: port.socket.mode().to_string(),
            frames: self.frames.len(),
            cut,
            too_large,
            packets: self.packets,
            bytes: self.bytes,
            turns: self.turns,
            seconds,
            packets_per_second,
            latest: self.latest as f64 / 1000.0,
            notes,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, mode, frames, packets, bytes, turns, seconds, .. } = self;
        writeln!(
            f,
            "sent {packets} packets, {bytes} bytes, {:.3} Mpps over {seconds:.2} s, {interface}, {mode} \
             mode",
            self.packets_per_second / 1e6
        )?;
        writeln!(
            f,
            "  {turns} times {frames} frames, at most {:.1} us after their time",
            self.latest
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
