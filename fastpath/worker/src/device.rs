//! A socket that this worker drives: what waits to be sent by it, and how warm it is.

use std::sync::Arc;

use arrayvec::ArrayVec;
use margay_engine::snapshot::DeviceId;
use margay_engine::{BATCH, Counters, Ingress, PortId};
use margay_model::DropReason;
use margay_xsk::{Frame, KernelCounters, Kick, KickError, Pool, Socket};

use crate::rest::Rest;

/// Without a frame for so many milliseconds a device is quiet.
const QUIET_MS: u32 = 20;
/// A socket that receives or sends so many frames at once is busy: not for epoll to watch.
const BULK: usize = 16;
/// Frames that a busy socket keeps ready at most: what comes while the worker is elsewhere.
const BUSY: u32 = 2048;
/// So many milliseconds a worker may be kept from its core, by others' slices of 3 ms: what comes in as
/// many is to be ready.
const ELSEWHERE_MS: u32 = 10;

/// A socket in use.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    /// One of the device's queues.
    pub(crate) socket: Box<Socket>,
    /// Where its frames come from, by the snapshot in use; its worker says so.
    pub(crate) ingress: Ingress,
    /// Frames that it keeps ready while it is quiet.
    quiet: u32,
    /// Chunks that came since a moment, at most [`ELSEWHERE_MS`] ago.
    came: (u32, u32),
    /// Frames that wait for the end of the batch, and how they are counted when sent.
    outbox: ArrayVec<Frame, BATCH>,
    ports: ArrayVec<(PortId, usize), BATCH>,
    /// Frames were put into the ring since the last kick.
    unsent: bool,
    /// When it last had a frame.
    pub(crate) last: u32,
    /// Whether it is polled; otherwise epoll watches it.
    pub(crate) hot: bool,
    /// Whether it is in the epoll set.
    watched: bool,
    /// What the kernel had lost for it when it was last asked.
    lost: KernelCounters,
    /// `last` at that time.
    asked: u32,
}

/// Whether the device can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// Its interface is gone.
    Gone,
}

// === impl Device ===

impl Device {
    pub(crate) fn new(id: DeviceId, socket: Box<Socket>, now: u32) -> Self {
        let (outbox, ports, quiet) = (ArrayVec::new(), ArrayVec::new(), socket.ready());
        Self {
            id,
            socket,
            ingress: Ingress::Trunk,
            quiet,
            came: (0, now),
            outbox,
            ports,
            unsent: false,
            last: now,
            hot: true,
            watched: false,
            lost: KernelCounters::default(),
            asked: now,
        }
    }

    /// A number for this socket among the worker's.
    pub(crate) fn token(&self) -> u64 {
        u64::from(self.id.0) << 32 | u64::from(self.socket.queue())
    }

    /// Takes frames that the kernel has sent back into the pool, gives it empty ones, and receives;
    /// runs the queue's NAPI before, where that is this worker's to do.
    pub(crate) fn receive(&mut self, pool: &mut Pool, into: &mut ArrayVec<Frame, BATCH>, now: u32) {
        self.socket.run_napi();
        self.socket.complete(pool);
        self.socket.rx(into);
        if !into.is_empty() {
            self.last = now;
        }
        if self.is_short(into.iter().map(Frame::chunks).sum(), now) {
            self.keep_more(pool);
        }
        self.refill(pool);
    }

    /// Whether more comes than was expected: a batch about full, half of what was ready at once, or more
    /// than is ready in the time that its worker may be elsewhere.
    fn is_short(&mut self, chunks: usize, now: u32) -> bool {
        if now.wrapping_sub(self.came.1) >= ELSEWHERE_MS {
            self.came = (0, now);
        }
        self.came.0 += chunks as u32;
        let ready = self.socket.ready();
        chunks + Frame::MOST_CHUNKS > BATCH || chunks as u32 * 2 >= ready || self.came.0 > ready
    }

    /// More chunks are kept ready, as long as packet memory has enough for others too.
    fn keep_more(&mut self, pool: &Pool) {
        let (ready, region) = (self.socket.ready(), pool.region());
        if ready < BUSY && region.spare() > region.chunks() as usize / 4 {
            self.socket.set_ready((ready * 2).min(BUSY));
        }
    }

    /// Something came while epoll watched. After a long quiet, few frames are kept ready again.
    pub(crate) fn warm(&mut self, now: u32) {
        if self.is_quiet(now) {
            self.socket.set_ready(self.quiet);
        }
        self.hot = true;
        self.last = now;
    }

    /// Has epoll watch it; where that fails it stays polled.
    pub(crate) fn watch(&mut self, rest: &Rest) {
        let (token, socket) = (self.token(), &*self.socket);
        let armed = if self.watched { rest.arm(token, socket) } else { rest.add(token, socket) };
        if armed.is_ok() {
            (self.watched, self.hot) = (true, false);
        }
    }

    /// Ends the watch.
    pub(crate) fn unwatch(&mut self, rest: &Rest) {
        if self.watched {
            rest.remove(&*self.socket);
            self.watched = false;
        }
    }

    /// Frames wait to be sent, or came: many at once end the watch, also of a socket that only
    /// sends.
    pub(crate) fn used(&mut self, frames: usize, now: u32, rest: &Rest) {
        if frames >= BULK {
            self.unwatch(rest);
            self.hot = true;
            self.last = now;
        }
    }

    /// Frames in the outbox.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Whether nothing came for a while.
    pub(crate) fn is_quiet(&self, now: u32) -> bool {
        now.wrapping_sub(self.last) > QUIET_MS
    }

    /// Gives the kernel empty frames, as many as are to be ready.
    pub(crate) fn refill(&mut self, pool: &mut Pool) {
        self.socket.fill(pool);
        if self.socket.needs_fill_wakeup() {
            self.socket.wake_rx();
        }
    }

    /// Counts what the kernel dropped for want of room or of frames, unless nothing has come since
    /// it was last asked.
    pub(crate) fn count_lost(&mut self, counters: &Counters) {
        if self.asked == self.last {
            return;
        }
        self.asked = self.last;
        // A socket whose interface is gone has lost nothing more.
        let Ok(lost) = self.socket.kernel_counters() else { return };
        let more = |now: u64, before| now.saturating_sub(before);
        counters.ring_full.add(more(lost.rx_ring_full, self.lost.rx_ring_full));
        counters.no_frame.add(more(lost.rx_dropped, self.lost.rx_dropped));
        self.lost = lost;
    }

    /// Puts a frame into the outbox; a full outbox goes into the ring.
    pub(crate) fn send(
        &mut self,
        port: PortId,
        frame: Frame,
        pool: &mut Pool,
        counters: &Counters,
    ) {
        if !self.socket.can_send(&frame) {
            // Of more chunks than this socket takes: the MTU was smaller when it was bound.
            counters.dropped(DropReason::TooBig);
            return pool.put(frame);
        }
        if self.outbox.is_full() {
            self.flush(pool, counters);
        }
        self.ports.push((port, frame.packet_len()));
        self.outbox.push(frame);
    }

    /// Moves the outbox into the ring; what the ring has no room for is dropped and counted.
    pub(crate) fn flush(&mut self, pool: &mut Pool, counters: &Counters) {
        if self.outbox.is_empty() {
            return;
        }
        let mut frames = self.outbox.drain(..);
        let mut taken = self.socket.tx(&mut frames);
        if frames.len() > 0 {
            // Completions may have made room meanwhile: kick, collect, and try once more.
            let _ = self.socket.kick_tx();
            self.socket.complete(pool);
            taken += self.socket.tx(&mut frames);
        }
        for frame in frames {
            counters.dropped(DropReason::TxFull);
            pool.put(frame);
        }
        for (port, bytes) in self.ports.drain(..).take(taken) {
            counters.sent(port, bytes);
        }
        self.unsent = true;
    }

    /// Whether frames are in the ring that the kernel has not taken yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent
    }

    /// Tells the kernel, once for all frames of a cycle.
    pub(crate) fn kick(&mut self, pool: &mut Pool) -> Health {
        if !self.unsent {
            return Health::Good;
        }
        self.unsent = false;
        match self.socket.kick_tx() {
            Ok(Kick::Done) => {}
            Ok(Kick::Pending) => self.unsent = true,
            Err(KickError::Gone) => return Health::Gone,
            Err(KickError::Down | KickError::Other(_)) => {}
        }
        self.socket.complete(pool);
        Health::Good
    }

    /// Ends its use: frames in the outbox are counted as dropped.
    pub(crate) fn close(mut self, pool: &mut Pool, counters: &Arc<Counters>) -> Box<Socket> {
        for frame in self.outbox.drain(..) {
            counters.dropped(DropReason::PortDown);
            pool.put(frame);
        }
        self.count_lost(counters);
        self.socket
    }
}
