//! What becomes of connections, for somebody who keeps accounts of them.
//!
//! Nothing is written for a packet that hits its flow: a flow counts its own packets, and an entry
//! is made when the flow ends, or when it is decided anew and differently. Who keeps the accounts
//! sees what lives in a walk over the table ([`super::FlowWorker::list`]).
//!
//! The journal is bounded and nobody waits for it: what finds it full is counted as lost.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;

use super::record::{Dir, FlowId, FlowRef, Stamped};
use crate::addr::Tuple;

/// A flow as it was at one moment. Of a cached denial the second of each pair but `keys` and
/// `rules` has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCopy {
    /// Its name, in direction Orig.
    pub id: FlowId,
    /// Whether it is a cached denial.
    pub denial: bool,
    /// The marks it was inserted with.
    pub marks: u8,
    /// Keys of Orig and Reply; of a cached denial the second is what answers would have carried.
    pub keys: [Tuple; 2],
    /// What was decided about both directions.
    pub decisions: [Stamped; 2],
    /// Conntrack words.
    pub conntrack: [u64; 2],
    /// Numbers of the rules that decided at the source's and at the destination's endpoint.
    pub rules: [u32; 2],
    /// Packets (40 bits, wrapping).
    pub packets: [u64; 2],
    /// Bytes.
    pub bytes: [u64; 2],
    /// When the last packet came.
    pub last_seen: [u32; 2],
}

/// A packet that met Log rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Addresses and ports, the destination's translated.
    pub tuple: Tuple,
    /// Type and code of ICMP.
    pub icmp: (u8, u8),
    /// Bytes of the IP packet.
    pub len: u16,
    /// Number of the rule.
    pub rule: u32,
    /// Whether the rule is for packets to the endpoint.
    pub ingress: bool,
}

/// Packets that a rule decided one by one: no flow counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Number of the rule.
    pub rule: u32,
    /// Whether the rule is for packets to the endpoint.
    pub ingress: bool,
    /// Whether it allowed them.
    pub allowed: bool,
    /// How many.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A flow that ended.
    Ended(FlowCopy),
    /// A flow that goes on and is about to be decided differently.
    Changing(FlowCopy),
    /// A packet to be logged.
    Logged(Logged),
    /// Packets without a flow.
    Tally(Tally),
}

/// The entries that were not read yet.
#[derive(Debug)]
pub struct Journal {
    entries: ArrayQueue<Entry>,
    lost: AtomicU64,
    unlogged: AtomicU64,
}

// === impl FlowCopy ===

impl FlowCopy {
    /// The flow as it is now, whichever of its directions `flow` is.
    pub fn new(flow: &FlowRef<'_>) -> Self {
        let orig = if flow.dir() == Dir::Orig { *flow } else { flow.peer() };
        let both = [orig, orig.peer()];
        Self {
            id: orig.id(),
            denial: orig.is_denial(),
            marks: orig.marks(),
            keys: both.map(|line| line.tuple()),
            decisions: both.map(|line| line.decision()),
            conntrack: both.map(|line| line.conntrack()),
            rules: both.map(|line| line.rule()),
            packets: both.map(|line| line.packets()),
            bytes: both.map(|line| line.bytes()),
            last_seen: both.map(|line| line.last_seen()),
        }
    }

    /// Ticks since the last packet of either direction. A time slightly ahead of `now` counts as 0.
    pub fn idle(&self, now: u32) -> u32 {
        let since = |seen: u32| (now.wrapping_sub(seen) as i32).max(0) as u32;
        let [orig, reply] = self.last_seen.map(since);
        if self.denial { orig } else { orig.min(reply) }
    }
}

// === impl Journal ===

impl Journal {
    /// A journal for at most so many entries, at least one.
    pub fn new(entries: usize) -> Self {
        Self {
            entries: ArrayQueue::new(entries.max(1)),
            lost: AtomicU64::new(0),
            unlogged: AtomicU64::new(0),
        }
    }

    pub(super) fn ended(&self, flow: &FlowRef<'_>) {
        self.push(Entry::Ended(FlowCopy::new(flow)));
    }

    /// Notes a flow as it was decided up to now.
    pub fn changing(&self, flow: &FlowRef<'_>) {
        self.push(Entry::Changing(FlowCopy::new(flow)));
    }

    fn push(&self, entry: Entry) {
        if self.entries.push(entry).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Notes a packet to be logged. Accounts come first: packets get half of the room.
    pub fn log(&self, packet: Logged) {
        if self.entries.len() > self.entries.capacity() / 2
            || self.entries.push(Entry::Logged(packet)).is_err()
        {
            self.unlogged.fetch_add(1, Relaxed);
        }
    }

    /// Notes packets without a flow; whether there was room. It is no loss if not: they can wait.
    pub fn tally(&self, packets: Tally) -> bool {
        self.entries.push(Entry::Tally(packets)).is_ok()
    }

    /// The oldest entry.
    pub fn take(&self) -> Option<Entry> {
        self.entries.pop()
    }

    /// Flows that were not noted, since the journal was full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Packets that were not noted.
    pub fn unlogged(&self) -> u64 {
        self.unlogged.load(Relaxed)
    }
}
