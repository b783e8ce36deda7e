//! The loop.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use margay_xsk::{Frame, Pool, Region, Socket};

use crate::side::Side;

/// Frames moved at once, as in the dataplane's workers.
const BATCH: usize = 64;
/// Rounds between two looks at the clock and at `stop`.
const ROUNDS: u32 = 256;

/// What a run counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    /// Frames from the first interface to the second, and back.
    pub(crate) forwarded: [u64; 2],
    /// Frames for which a tx ring had no room, the same ways.
    pub(crate) dropped: [u64; 2],
    /// Time in which frames came: stretches of 256 rounds without one are left out.
    pub(crate) busy: Duration,
}

/// Forwards until `limit` is over or `stop` is set.
pub(crate) fn forward(
    input: &mut Side,
    output: &mut Side,
    region: &'static Region,
    limit: Option<Duration>,
    stop: &AtomicBool,
) -> Run {
    let mut pool = Pool::new(region, region.chunks() as usize);
    for socket in input.sockets.iter_mut().chain(&mut output.sockets) {
        socket.fill(&mut pool);
    }
    let started = Instant::now();
    let mut last = started;
    let mut run = Run::default();
    while !stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| last - started < limit) {
        let before = run.total();
        for _ in 0..ROUNDS {
            for (from, to) in input.sockets.iter_mut().zip(&mut output.sockets) {
                run.step(0, from, to, &mut pool);
                run.step(1, to, from, &mut pool);
            }
        }
        let now = Instant::now();
        if run.total() != before {
            run.busy += now - last;
        }
        last = now;
    }
    run
}

// === impl Run ===

impl Run {
    /// All frames that came in.
    pub(crate) fn total(&self) -> u64 {
        self.forwarded.iter().chain(&self.dropped).sum()
    }

    /// Moves one batch from one socket to another.
    fn step(&mut self, way: usize, from: &mut Socket, to: &mut Socket, pool: &mut Pool) {
        let mut batch = ArrayVec::<Frame, BATCH>::new();
        to.complete(pool);
        if from.rx(&mut batch) > 0 {
            let mut rest = batch.drain(..);
            self.forwarded[way] += to.tx(&mut rest) as u64;
            self.dropped[way] += rest.len() as u64;
            rest.for_each(|frame| pool.put(frame));
        }
        // Also without new frames: the device may have refused some of the last batch. A failure is
        // that of an interface which is down or gone; its tx ring fills and the drops are counted.
        let _ = to.kick_tx();
        from.fill(pool);
        if from.needs_fill_wakeup() {
            from.wake_rx();
        }
    }
}
