//! The index: from a key's hash to the records that may have the key.
//!
//! A bucket is one line: a header word and seven entries. An entry is one word: a tag of 29 bits
//! of the hash, a bit that says it is occupied, and the flow's id (direction, family, line). A key
//! has two candidate buckets; the first is preferred until it is half full, then the emptier one
//! is taken, so that most probes end in the first. Entries never move.
//!
//! Rules that keep a key from being found twice:
//!
//! 1. Who enters a key claims the header of the key's *first* bucket before it looks for the key
//!    in both and until its entry stands. So two inserters of one key exclude each other, and
//!    nobody else ever waits.
//! 2. A claim is held for a bounded number of steps, and nobody holds two: no deadlock. Who does
//!    not get one after a bounded spin gives up ([`Linked::Contended`]).
//! 3. Different keys may compete for one slot (claims of different buckets): a slot is taken by
//!    compare-and-swap from 0 and cleared by compare-and-swap of its exact value.
//! 4. An entry is cleared only by who took its record from LIVE to DYING (or never made it LIVE),
//!    and the record is not used again before every reader has passed a quiescent point; so the
//!    value cleared is never somebody else's.

use super::key::Key;
use super::layout::{BUCKETS_AT, Layout};
use super::record::{FlowId, FlowRef, State};
use super::region::{Line, prefetch};
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, spin_loop};

/// Access to the buckets and, through the ids, to the records.
#[derive(Clone, Copy)]
pub(super) struct Index<'t> {
    lines: &'t [Line],
    buckets: u32,
}

/// How entering a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    /// The entry stands.
    Placed,
    /// This live or pending record has the key.
    Taken(FlowId),
    /// Another inserter did not let go of the bucket in time.
    Contended,
    /// Both buckets are full.
    Full,
}

const CLAIMED: u64 = 1;
const OCCUPIED: u64 = 1 << 34;
const TAG_SHIFT: u32 = 35;
/// Below so many entries the first bucket is taken without a look at the second.
const PREFERRED: usize = 4;
/// Turns of the spin for a bucket's header; a claim lasts for some tens of loads.
const SPINS: usize = if cfg!(loom) { 2 } else { 256 };

impl<'t> Index<'t> {
    pub(super) fn new(lines: &'t [Line], layout: &Layout) -> Self {
        Self { lines, buckets: layout.buckets }
    }

    /// Brings the key's first bucket into the cache.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(self.bucket(self.first(hash)));
    }

    /// Brings both buckets of a key that will be entered into the cache.
    #[inline]
    pub(super) fn prefetch_both(&self, hash: u64) {
        self.prefetch(hash);
        prefetch(self.bucket(self.second(hash)));
    }

    /// Brings the record behind the first entry of the key's first bucket whose tag fits into the
    /// cache, or else the second bucket; the record's id.
    #[inline]
    pub(super) fn prefetch_record(&self, hash: u64) -> Option<FlowId> {
        let tag = tag(hash);
        for slot in slots(self.bucket(self.first(hash))) {
            let entry = slot.load(Relaxed);
            if entry >> (TAG_SHIFT - 1) == tag {
                let id = FlowId::from_bits(entry);
                for line in id.lines() {
                    if let Some(line) = self.lines.get(line as usize) {
                        prefetch(line);
                    }
                }
                return Some(id);
            }
        }
        prefetch(self.bucket(self.second(hash)));
        None
    }

    /// The live record with the key.
    #[inline]
    pub(super) fn find(&self, key: &Key, hash: u64) -> Option<FlowRef<'t>> {
        self.find_in(self.first(hash), key, hash, State::Live)
            .or_else(|| self.find_in(self.second(hash), key, hash, State::Live))
    }

    #[inline(always)] // Measured: a result in memory costs a stalled load for each packet.
    fn find_in(&self, bucket: u32, key: &Key, hash: u64, accept: State) -> Option<FlowRef<'t>> {
        let tag = tag(hash);
        for slot in slots(self.bucket(bucket)) {
            // Acquire: what was written to the record before its entry was placed is visible.
            let entry = slot.load(Acquire);
            if entry >> (TAG_SHIFT - 1) == tag
                && let Some(flow) = self.flow(entry)
                && flow.matches(key, accept)
            {
                return Some(flow);
            }
        }
        None
    }

    /// Enters a key for a record that the caller has filled and keeps PENDING.
    pub(super) fn link(&self, key: &Key, hash: u64, id: FlowId) -> Linked {
        let (first, second) = (self.first(hash), self.second(hash));
        let Some(claim) = self.claim(first) else { return Linked::Contended };
        let taken = self
            .find_in(first, key, hash, State::Pending)
            .or_else(|| self.find_in(second, key, hash, State::Pending));
        let result = match taken {
            Some(flow) => Linked::Taken(flow.id()),
            None if self.place(first, second, entry(hash, id)) => Linked::Placed,
            None => Linked::Full,
        };
        drop(claim);
        result
    }

    /// Puts an entry into one of its buckets; `false` when both are full. The slots of a bucket
    /// may change under us (rule 3), so a lost race tries the next slot.
    fn place(&self, first: u32, second: u32, entry: u64) -> bool {
        let used = |b: u32| slots(self.bucket(b)).filter(|s| s.load(Relaxed) != 0).count();
        let in_first = used(first);
        let order = if in_first < PREFERRED || in_first <= used(second) {
            [first, second]
        } else {
            [second, first]
        };
        order.into_iter().flat_map(|b| slots(self.bucket(b))).any(|slot| {
            slot.load(Relaxed) == 0 && slot.compare_exchange(0, entry, Release, Relaxed).is_ok()
        })
    }

    /// Clears a record's entry for a key; a missing one is no error.
    pub(super) fn unlink(&self, hash: u64, id: FlowId) {
        let entry = entry(hash, id);
        for bucket in [self.first(hash), self.second(hash)] {
            for slot in slots(self.bucket(bucket)) {
                if slot.load(Relaxed) == entry
                    && slot.compare_exchange(entry, 0, AcqRel, Relaxed).is_ok()
                {
                    return;
                }
            }
        }
    }

    /// The records that the entries of a key's two buckets name.
    pub(super) fn neighbours(&self, hash: u64) -> impl Iterator<Item = FlowRef<'t>> {
        let index = *self;
        [self.first(hash), self.second(hash)]
            .into_iter()
            .flat_map(move |b| slots(index.bucket(b)))
            .map(|slot| slot.load(Acquire))
            .filter(|entry| *entry != 0)
            .filter_map(move |entry| index.flow(entry))
    }

    /// Empties every bucket. For a table that nobody uses yet.
    pub(super) fn clear(&self) {
        for bucket in 0..self.buckets {
            for word in &self.bucket(bucket).0 {
                // Reading first keeps the untouched pages of a fresh mapping untouched.
                if word.load(Relaxed) != 0 {
                    word.store(0, Relaxed);
                }
            }
        }
    }

    fn claim(&self, bucket: u32) -> Option<Claim<'t>> {
        let header = &self.bucket(bucket).0[0];
        for _ in 0..SPINS {
            if header.load(Relaxed) == 0
                && header.compare_exchange(0, CLAIMED, Acquire, Relaxed).is_ok()
            {
                return Some(Claim(header));
            }
            spin_loop();
        }
        None
    }

    #[inline]
    fn flow(&self, entry: u64) -> Option<FlowRef<'t>> {
        FlowRef::new(self.lines, FlowId::from_bits(entry))
    }

    #[inline]
    fn bucket(&self, bucket: u32) -> &'t Line {
        &self.lines[(BUCKETS_AT + bucket) as usize]
    }

    /// The upper half of the hash chooses the first bucket (multiply and shift: no power of two
    /// is needed).
    #[inline]
    fn first(&self, hash: u64) -> u32 {
        self.reduce(hash >> 32)
    }

    /// The lower half chooses the second, which is never the first.
    #[inline]
    fn second(&self, hash: u64) -> u32 {
        let (first, second) = (self.first(hash), self.reduce(hash & u64::from(u32::MAX)));
        if second != first {
            second
        } else if second + 1 < self.buckets {
            second + 1
        } else {
            0
        }
    }

    #[inline]
    fn reduce(&self, half: u64) -> u32 {
        ((half * u64::from(self.buckets)) >> 32) as u32
    }
}

/// A claimed bucket header.
struct Claim<'t>(&'t AtomicU64);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

#[inline]
fn slots(bucket: &Line) -> impl Iterator<Item = &AtomicU64> {
    bucket.0[1..].iter()
}

/// The tag with the occupied bit below it. It takes the low bits of both halves: the choice of a
/// bucket uses the high ones.
#[inline]
fn tag(hash: u64) -> u64 {
    let bits = (hash >> 32 & 0x7fff) << 14 | hash & 0x3fff;
    bits << 1 | 1
}

fn entry(hash: u64, id: FlowId) -> u64 {
    debug_assert_eq!(OCCUPIED >> (TAG_SHIFT - 1), 1);
    tag(hash) << (TAG_SHIFT - 1) | id.bits()
}
