//! The loop.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use margay_xsk::{Frame, Pool, Region, Socket};

use crate::{side::Side, trunk::Trunk};

/// Frames moved at once, as in the dataplane's workers.
const BATCH: usize = 64;
/// Rounds between two looks at the clock and at `stop`.
const ROUNDS: u32 = 256;

type Batch = ArrayVec<Frame, BATCH>;

/// What frames are forwarded between.
pub(crate) struct Between {
    /// The first interface, or the trunk before it.
    pub(crate) near: Side,
    /// The second one, if that is not behind the same trunk.
    pub(crate) far: Option<Side>,
    pub(crate) trunk: Option<Trunk>,
}

/// What a run counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    /// Frames that came from each side.
    pub(crate) forwarded: [u64; 2],
    /// Frames for which a tx ring had no room, by the side that they came from.
    pub(crate) dropped: [u64; 2],
    /// Time in which frames came: stretches of 256 rounds without one are left out.
    pub(crate) busy: Duration,
    /// Time of the rounds in which frames came, without those between them.
    pub(crate) at_work: Duration,
}

/// Forwards until `limit` is over or `stop` is set.
pub(crate) fn forward(
    between: &mut Between,
    region: &'static Region,
    limit: Option<Duration>,
    stop: &AtomicBool,
) -> Run {
    let mut pool = Pool::new(region, region.chunks() as usize);
    let sides = std::iter::once(&mut between.near).chain(&mut between.far);
    for socket in sides.flat_map(|side| &mut side.sockets) {
        socket.fill(&mut pool);
    }
    let started = Instant::now();
    let mut last = started;
    let mut run = Run::default();
    while !stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| last - started < limit) {
        let before = run.total();
        let stretch = last;
        for _ in 0..ROUNDS {
            let so_far = run.total();
            run.round(between, &mut pool);
            let now = Instant::now();
            if run.total() != so_far {
                run.at_work += now - last;
            }
            last = now;
        }
        if run.total() != before {
            run.busy += last - stretch;
        }
    }
    run
}

// === impl Run ===

impl Run {
    /// All frames that came in.
    pub(crate) fn total(&self) -> u64 {
        self.forwarded.iter().chain(&self.dropped).sum()
    }

    /// Moves one batch from each socket.
    fn round(&mut self, Between { near, far, trunk }: &mut Between, pool: &mut Pool) {
        let mut batch = ArrayVec::new();
        for (queue, near) in near.sockets.iter_mut().enumerate() {
            let far = far.as_mut().and_then(|far| far.sockets.get_mut(queue));
            let back = usize::from(far.is_some());
            receive(near, &mut batch, pool);
            if let Some(far) = far {
                self.send(0, &mut batch, far, pool);
                receive(far, &mut batch, pool);
            }
            if let Some(trunk) = trunk {
                batch.iter_mut().for_each(|frame| trunk.lead(frame.bytes_mut()));
            }
            self.send(back, &mut batch, near, pool);
        }
    }

    /// Sends a batch that came from that side.
    fn send(&mut self, side: usize, batch: &mut Batch, to: &mut Socket, pool: &mut Pool) {
        to.complete(pool);
        let mut rest = batch.drain(..);
        self.forwarded[side] += to.tx(&mut rest) as u64;
        self.dropped[side] += rest.len() as u64;
        rest.for_each(|frame| pool.put(frame));
        // Also without new frames: the device may have refused some of the last batch. A failure is
        // that of an interface which is down or gone; its tx ring fills and the drops are counted.
        let _ = to.kick_tx();
    }
}

/// Takes what has come, and gives the kernel chunks for more.
fn receive(from: &mut Socket, batch: &mut Batch, pool: &mut Pool) {
    from.rx(batch);
    from.fill(pool);
    if from.needs_fill_wakeup() {
        from.wake_rx();
    }
}
