//! The table as every thread sees it: lookups and counts. Changes go through [`super::FlowWorker`].

use super::affinity::Affinities;
use super::epoch::Epochs;
use super::index::Index;
use super::journal::Journal;
use super::key::{FlowKey, Key, Words};
use super::layout::{FlowConfig, Layout, LayoutError, W_GENERATION, W_SEED};
use super::pool::Pool;
use super::record::{Dir, FlowId, FlowRef, State};
use super::region::{Line, Region};
use crate::addr::Tuple;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Relaxed};

/// All connections of a node, shared by its workers.
///
/// Everything in a [`FlowRef`] is good until the quiescent point of the thread that looked it up;
/// after that it may show another connection, never anything invalid.
#[derive(Debug)]
pub struct FlowTable {
    region: Region,
    pub(super) layout: Layout,
    seed: u64,
    pub(super) epochs: Epochs,
    /// Live records of each family, as sums of what each participant added and took away.
    live: Box<[LiveCount]>,
    pub(super) denials: AtomicU64,
    pub(super) denial_limit: u64,
    journal: Option<Journal>,
}

/// Written by one participant (and by the recovery, in the first).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct LiveCount([AtomicU64; 2]);

/// How full the table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Connections, both families.
    pub connections: u64,
    /// Cached denials, both families.
    pub denials: u64,
    /// IPv4 records in use, of `v4_capacity`.
    pub v4: u64,
    /// IPv4 records.
    pub v4_capacity: u64,
    /// IPv6 records in use, of `v6_capacity`.
    pub v6: u64,
    /// IPv6 records.
    pub v6_capacity: u64,
}

// === impl FlowTable ===

impl FlowTable {
    /// Bytes that a region for this configuration needs.
    pub fn required_bytes(config: &FlowConfig) -> Result<usize, LayoutError> {
        Ok(Layout::new(config)?.bytes())
    }

    /// Makes an empty table in a region, whatever was there. `seed` is for the hash and should be
    /// random; `incarnation` names the machine's boot, since times do not outlive it.
    pub fn create(
        region: Region,
        config: &FlowConfig,
        seed: u64,
        incarnation: u64,
    ) -> Result<Self, LayoutError> {
        let layout = Layout::new(config)?;
        layout.check_room(region.lines())?;
        Layout::disown(&region.lines()[0]);
        let table = Self::with(region, layout, config, seed);
        table.index().clear();
        for v6 in [false, true] {
            table.pool(v6).reset(0);
        }
        table.affinities().clear();
        layout.write_header(&table.lines()[0], seed, incarnation);
        Ok(table)
    }

    /// Takes over the table that an earlier process left in a region, however that process ended.
    ///
    /// Nobody else may use the region. Connections that were in place stay; what was half entered
    /// or half removed is cleared away; seats and claims of the dead process are void.
    pub fn open(
        region: Region,
        config: &FlowConfig,
        incarnation: u64,
    ) -> Result<Self, LayoutError> {
        let layout = Layout::new(config)?;
        layout.check_room(region.lines())?;
        layout.check_header(&region.lines()[0], incarnation)?;
        let seed = region.lines()[0].0[W_SEED].load(Relaxed);
        let table = Self::with(region, layout, config, seed);
        let found = super::recover::recover(&table);
        for (count, n) in table.live[0].0.iter().zip(found.live) {
            count.store(n, Relaxed);
        }
        table.denials.store(found.denials, Relaxed);
        Ok(table)
    }

    fn with(region: Region, layout: Layout, config: &FlowConfig, seed: u64) -> Self {
        let records = u64::from(layout.v4) + u64::from(layout.v6);
        let participants = config.participants.max(1);
        Self {
            region,
            layout,
            seed,
            epochs: Epochs::new(participants),
            live: (0..participants).map(|_| LiveCount::default()).collect(),
            denials: AtomicU64::new(0),
            denial_limit: records / u64::from(config.denial_share.max(1)),
            journal: None,
        }
    }

    /// Keeps a journal from now on; without this call nothing is noted.
    #[must_use]
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// The journal, if one is kept.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// The hash that the other functions take, computed once for each packet.
    #[inline]
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        tuple.hash(self.seed)
    }

    /// First step of a batch: brings the bucket into the cache.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index().prefetch(hash);
    }

    /// Second step of a batch: brings the record into the cache. It is probably this one: see
    /// [`Self::flow_of`].
    #[inline]
    pub fn prefetch_record(&self, hash: u64) -> Option<FlowId> {
        self.index().prefetch_record(hash)
    }

    /// Brings into the cache what will be looked at when a connection with this tuple is entered.
    #[inline]
    pub fn prefetch_entry(&self, tuple: &Tuple) {
        self.index().prefetch_both(self.hash(tuple));
    }

    /// The flow with this id, if it is the live one that packets with this key belong to.
    #[inline]
    pub fn flow_of(&self, id: FlowId, key: &FlowKey<impl Words>) -> Option<FlowRef<'_>> {
        self.flow(id).filter(|flow| key.is_of(flow))
    }

    /// The connection, and which of its directions, that a packet with this tuple belongs to.
    #[inline]
    pub fn lookup(&self, tuple: &Tuple, hash: u64) -> Option<FlowRef<'_>> {
        self.index().find(&Key::new(tuple), hash)
    }

    /// The flow with this id; `None` only if the id is of another table.
    #[inline]
    pub fn flow(&self, id: FlowId) -> Option<FlowRef<'_>> {
        FlowRef::new(self.lines(), id)
    }

    /// The connection with this id, in direction Orig, if it still is the one whose first packet's tuple
    /// has this hash. Whoever kept the id over its quiescent points asks so.
    pub fn still(&self, id: FlowId, hash: u64) -> Option<FlowRef<'_>> {
        let flow = self.flow(id.with_dir(Dir::Orig))?;
        let is_it = |flow: &FlowRef<'_>| {
            flow.state() == State::Live && !flow.is_denial() && self.hash(&flow.tuple()) == hash
        };
        Some(flow).filter(is_it)
    }

    /// Which backends clients were sent to.
    pub fn affinities(&self) -> Affinities<'_> {
        let of = self.layout.affinities_at as usize..self.layout.end as usize;
        Affinities::new(self.lines().get(of).unwrap_or_default(), self.seed)
    }

    /// The generation that the last process wrote down, for one that goes on from there.
    pub fn generation(&self) -> u64 {
        self.lines()[0].0[W_GENERATION].load(Relaxed)
    }

    /// Writes the generation down for the next process.
    pub fn set_generation(&self, generation: u64) {
        self.lines()[0].0[W_GENERATION].store(generation, Relaxed);
    }

    /// How full the table is, as far as one can tell while others work.
    pub fn counts(&self) -> FlowCounts {
        let denials = self.denials.load(Relaxed);
        let [v4, v6] = [self.live(false), self.live(true)];
        FlowCounts {
            connections: (v4 + v6).saturating_sub(denials),
            denials,
            v4,
            v4_capacity: u64::from(self.layout.v4),
            v6,
            v6_capacity: u64::from(self.layout.v6),
        }
    }

    /// Live records of a family.
    pub(super) fn live(&self, v6: bool) -> u64 {
        let sum = self
            .live
            .iter()
            .fold(0u64, |sum, count| sum.wrapping_add(count.0[usize::from(v6)].load(Relaxed)));
        // A removal may be seen before the insertion it belongs to.
        if (sum as i64) < 0 { 0 } else { sum }
    }

    /// Adds to a participant's own count.
    pub(super) fn count(&self, participant: usize, v6: bool, add: i64) {
        if let Some(count) = self.live.get(participant) {
            let word = &count.0[usize::from(v6)];
            word.store(word.load(Relaxed).wrapping_add_signed(add), Relaxed);
        }
    }

    /// Reserves room for a cached denial.
    pub(super) fn admit_denial(&self) -> bool {
        if self.denials.load(Relaxed) >= self.denial_limit {
            return false;
        }
        self.denials.fetch_add(1, AcqRel);
        true
    }

    pub(super) fn lines(&self) -> &[Line] {
        self.region.lines()
    }

    #[inline]
    pub(super) fn index(&self) -> Index<'_> {
        Index::new(self.lines(), &self.layout)
    }

    pub(super) fn pool(&self, v6: bool) -> Pool<'_> {
        Pool::new(self.lines(), &self.layout, v6)
    }
}
