//! Where a worker's time goes, stage by stage, as VPP's `show runtime` tells it.
//!
//! A [`Stopwatch`] reads the clock once between two stages of a batch, so that every tick of a worker
//! belongs to exactly one [`Stage`], and what it costs is shared by the packets of the batch. Of the
//! misses, which are a part of a stage, every sixteenth is timed and stands for all. No clock is known here:
//! who runs the engine gives one that counts [`Ticks`].

use crate::counters::Counter;

/// A clock that goes on evenly, of any unit; a time stamp counter is one.
pub type Ticks = fn() -> u64;

/// What a worker does, in the order in which it does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// Frames of the slow path and of other workers go to their devices.
    Inject,
    /// Frames are taken out of a receive ring, and empty ones put into the fill ring.
    Receive,
    /// Headers are read, and the flow's memory is asked for.
    Parse,
    /// The flow is found, and its decision carried out.
    Decide,
    /// Those packets of the stage before that a decision had to be made for.
    Miss,
    /// Frames go to their device, to another worker, to the slow path, or nowhere.
    Forward,
    /// Frames are put into transmit rings, and the kernel is told; in copy mode it sends them now.
    Transmit,
    /// Flows age, commands are obeyed, quiet devices are looked after.
    Upkeep,
    /// There was nothing to do.
    Idle,
}

impl Stage {
    /// All of them, by their number.
    pub const ALL: [Self; 9] = [
        Self::Inject,
        Self::Receive,
        Self::Parse,
        Self::Decide,
        Self::Miss,
        Self::Forward,
        Self::Transmit,
        Self::Upkeep,
        Self::Idle,
    ];

    /// What it is called in tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Receive => "receive",
            Self::Parse => "parse",
            Self::Decide => "decide",
            Self::Miss => "miss",
            Self::Forward => "forward",
            Self::Transmit => "transmit",
            Self::Upkeep => "upkeep",
            Self::Idle => "idle",
        }
    }
}

/// What a stage was given, and what it took.
#[derive(Debug, Default)]
pub struct Meter {
    /// Times that it ran.
    pub calls: Counter,
    /// Packets that it was given.
    pub packets: Counter,
    /// What it took.
    pub ticks: Counter,
}

/// The stages of one worker, and how long its turns were: written by it alone, read by anyone.
#[derive(Debug)]
pub struct Meters {
    stages: [Meter; Stage::ALL.len()],
    turns: [Counter; Self::BUCKETS],
}

// === impl Meters ===

impl Default for Meters {
    fn default() -> Self {
        Self {
            stages: std::array::from_fn(|_| Meter::default()),
            turns: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Meters {
    /// Of the lengths of turns.
    pub const BUCKETS: usize = u64::BITS as usize + 1;

    /// A stage's.
    pub fn stage(&self, stage: Stage) -> &Meter {
        &self.stages[stage as usize]
    }

    /// How many turns in which there was something to do took less than 2ⁿ ticks and not less than half of
    /// that, by n.
    pub fn turns(&self) -> impl Iterator<Item = u64> {
        self.turns.iter().map(Counter::get)
    }

    #[inline]
    fn add(&self, stage: Stage, packets: usize, ticks: u64) {
        let meter = self.stage(stage);
        meter.calls.add(1);
        meter.packets.add(packets as u64);
        meter.ticks.add(ticks);
    }
}

/// Of so many misses one is timed.
const SAMPLE: u64 = 16;

/// Reads the clock between stages.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    ticks: Ticks,
    /// When the last stage ended.
    last: u64,
    /// When the turn began.
    began: u64,
    /// Misses there were.
    misses: u64,
    /// Of the deciding, what misses took and is not counted as theirs yet.
    aside: u64,
}

// === impl Stopwatch ===

impl Stopwatch {
    pub(crate) fn new(ticks: Ticks) -> Self {
        let now = ticks();
        Self { ticks, last: now, began: now, misses: 0, aside: 0 }
    }

    #[inline]
    pub(crate) fn now(&self) -> u64 {
        (self.ticks)()
    }

    /// Ends a stage, which began when the last one ended.
    #[inline]
    pub(crate) fn lap(&mut self, meters: &Meters, stage: Stage, packets: usize) {
        let now = self.now();
        let mut took = now.wrapping_sub(self.last);
        if stage == Stage::Decide && self.aside > 0 {
            let misses = self.aside.min(took);
            meters.stage(Stage::Miss).ticks.add(misses);
            (took, self.aside) = (took - misses, self.aside - misses);
        }
        meters.add(stage, packets, took);
        self.last = now;
    }

    /// A miss begins: when, if it is one of those that are timed.
    pub(crate) fn begin_miss(&mut self) -> Option<u64> {
        self.misses = self.misses.wrapping_add(1);
        self.misses.is_multiple_of(SAMPLE).then(|| self.now())
    }

    /// Counts it as a stage of its own.
    pub(crate) fn end_miss(&mut self, meters: &Meters, began: Option<u64>) {
        meters.add(Stage::Miss, 1, 0);
        if let Some(began) = began {
            let ticks = self.now().wrapping_sub(began).saturating_mul(SAMPLE);
            self.aside = self.aside.saturating_add(ticks);
        }
    }

    /// Ends a turn.
    #[inline]
    pub(crate) fn turn(&mut self, meters: &Meters, busy: bool) {
        self.lap(meters, if busy { Stage::Upkeep } else { Stage::Idle }, 0);
        let took = self.last.wrapping_sub(std::mem::replace(&mut self.began, self.last));
        if busy {
            meters.turns[(u64::BITS - took.leading_zeros()) as usize].add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn wait(ticks: u64) {
        NOW.set(NOW.get() + ticks);
    }

    #[test]
    fn every_tick_belongs_to_one_stage() {
        let meters = Meters::default();
        let mut watch = Stopwatch::new(|| NOW.get());
        wait(10);
        watch.lap(&meters, Stage::Receive, 3);
        wait(7);
        for _ in 0..SAMPLE {
            let began = watch.begin_miss();
            wait(10);
            watch.end_miss(&meters, began);
        }
        wait(5);
        watch.lap(&meters, Stage::Decide, 10);
        wait(2);
        watch.turn(&meters, true);
        wait(50);
        watch.turn(&meters, false);
        let read = |stage| {
            let Meter { calls, packets, ticks } = meters.stage(stage);
            (calls.get(), packets.get(), ticks.get())
        };
        assert_eq!(read(Stage::Receive), (1, 3, 10));
        assert_eq!(read(Stage::Miss), (SAMPLE, SAMPLE, SAMPLE * 10));
        assert_eq!(read(Stage::Decide), (1, 10, 12));
        assert_eq!(read(Stage::Upkeep), (1, 0, 2));
        assert_eq!(read(Stage::Idle), (1, 0, 50));
        let all: u64 = Stage::ALL.into_iter().map(|stage| read(stage).2).sum();
        assert_eq!(all, NOW.get());
        // 184 ticks are less than 2⁸; the idle turn is none.
        let turns: Vec<_> = meters.turns().enumerate().filter(|(_, n)| *n > 0).collect();
        assert_eq!(turns, [(8, 1)]);
    }

    #[test]
    fn a_miss_that_stands_for_many_takes_no_more_than_there_was() {
        let meters = Meters::default();
        let mut watch = Stopwatch::new(|| NOW.get());
        for nth in 1..=2 * SAMPLE {
            let began = watch.begin_miss();
            wait(10);
            watch.end_miss(&meters, began);
            wait(1);
            watch.lap(&meters, Stage::Decide, 1);
            let [miss, decide] =
                [Stage::Miss, Stage::Decide].map(|of| meters.stage(of).ticks.get());
            assert_eq!(miss + decide, nth * 11, "every tick is somebody's");
        }
        assert_eq!(meters.stage(Stage::Miss).packets.get(), 2 * SAMPLE);
        let caught_up = SAMPLE * 10 + 11;
        assert!(
            meters.stage(Stage::Miss).ticks.get() >= caught_up,
            "as many turns' are caught up with"
        );
    }

    #[test]
    fn stages_stand_at_their_numbers() {
        assert!(Stage::ALL.into_iter().enumerate().all(|(n, stage)| stage as usize == n));
    }
}
