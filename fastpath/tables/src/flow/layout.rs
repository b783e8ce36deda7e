//! Where things lie in the region, and how a region is recognised.
//!
//! ```text
//! line 0            header: magic, version, sizes, seed, incarnation, generation
//! line 1            free lists: a stack and a mark of the never-used records for each family
//! lines 2..         buckets of the index
//! then              IPv4 records, two lines each
//! then              IPv6 records, three lines each
//! then              affinities, four entries a line
//! ```

use super::region::{LINE_WORDS, Line};
use crate::sync::Ordering::{Relaxed, Release};

/// Sizes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowConfig {
    /// IPv4 connections that fit.
    pub v4: u32,
    /// IPv6 connections that fit.
    pub v6: u32,
    /// Workers and guests ([`super::FlowWorker`]) at one time, at most. Not part of the layout.
    pub participants: usize,
    /// Cached denials may take up to 1/n of the records. Not part of the layout.
    pub denial_share: u32,
}

/// Why a region cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It holds something else, or nothing.
    #[error("the memory holds no flow table")]
    NoTable,
    /// It was written by a program with another layout.
    #[error("the flow table has layout version {found}, this program knows {VERSION}")]
    Version {
        /// The version in the memory.
        found: u64,
    },
    /// It was made in another life of the machine, so its times mean nothing.
    #[error("the flow table was left by an earlier boot")]
    Incarnation,
    /// It has other capacities than configured.
    #[error("the flow table is for {v4} IPv4 and {v6} IPv6 connections")]
    Capacity {
        /// IPv4 capacity in the memory.
        v4: u32,
        /// IPv6 capacity in the memory.
        v6: u32,
    },
    /// The region is smaller than the sizes need.
    #[error("the memory has {found} bytes, {needed} are needed")]
    TooSmall {
        /// Bytes that are there.
        found: usize,
        /// Bytes that the configuration needs.
        needed: usize,
    },
    /// More records than a 32-bit line number reaches, or none at all.
    #[error("a flow table holds between 1 and 2^30 connections")]
    Config,
}

/// Line numbers of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) buckets: u32,
    pub(super) v4: u32,
    pub(super) v6: u32,
    /// First line of the IPv4 records; buckets begin at [`BUCKETS_AT`].
    pub(super) v4_at: u32,
    /// First line of the IPv6 records.
    pub(super) v6_at: u32,
    /// First line of the affinities.
    pub(super) affinities_at: u32,
    /// One past the last line.
    pub(super) end: u32,
}

const MAGIC: u64 = u64::from_le_bytes(*b"margayFT");
const VERSION: u64 = 4;

/// Entries of a bucket.
pub(super) const WAYS: u32 = LINE_WORDS as u32 - 1;

/// The share of the index that is filled when all records are: 5/8. Buckets of seven, filled with
/// preference for the first candidate, refuse about one key in a million at that load (simulated);
/// at 3/4 it would be one in four thousand.
const LOAD: (u64, u64) = (5, 8);

pub(super) const LINES_V4: u32 = 2;
pub(super) const LINES_V6: u32 = 3;
pub(super) const BUCKETS_AT: u32 = 2;

/// Records for each line of affinities: a client may be remembered for every sixteen connections,
/// since one outlives the other. That is one byte a connection.
const RECORDS_A_LINE: u64 = 64;

// Words of line 0.
const W_MAGIC: usize = 0;
const W_VERSION: usize = 1;
const W_SIZES: usize = 2;
pub(super) const W_SEED: usize = 3;
const W_INCARNATION: usize = 4;
pub(super) const W_GENERATION: usize = 5;

// Words of line 1, plus 1 for IPv6.
pub(super) const W_FREE: usize = 0;
pub(super) const W_FRESH: usize = 2;
pub(super) const W_ORPHANS: usize = 4;

// === impl FlowConfig ===

impl Default for FlowConfig {
    fn default() -> Self {
        Self { v4: 1 << 20, v6: 1 << 16, participants: 16, denial_share: 8 }
    }
}

// === impl Layout ===

impl Layout {
    pub(super) fn new(config: &FlowConfig) -> Result<Self, LayoutError> {
        let records = u64::from(config.v4) + u64::from(config.v6);
        if records == 0 || records > 1 << 30 {
            return Err(LayoutError::Config);
        }
        let buckets = (2 * records * LOAD.1).div_ceil(u64::from(WAYS) * LOAD.0);
        let v4_at = u64::from(BUCKETS_AT) + buckets.max(2);
        let v6_at = v4_at + u64::from(config.v4) * u64::from(LINES_V4);
        let affinities_at = v6_at + u64::from(config.v6) * u64::from(LINES_V6);
        let end = affinities_at + records.div_ceil(RECORDS_A_LINE);
        // 2^30 records of three lines, their buckets and affinities stay below 2^32 lines.
        let line = |n: u64| u32::try_from(n).map_err(|_| LayoutError::Config);
        Ok(Self {
            buckets: line(buckets.max(2))?,
            v4: config.v4,
            v6: config.v6,
            v4_at: line(v4_at)?,
            v6_at: line(v6_at)?,
            affinities_at: line(affinities_at)?,
            end: line(end)?,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.end as usize * size_of::<Line>()
    }

    pub(super) fn check_room(&self, lines: &[Line]) -> Result<(), LayoutError> {
        if lines.len() < self.end as usize {
            let found = size_of_val(lines);
            return Err(LayoutError::TooSmall { found, needed: self.bytes() });
        }
        Ok(())
    }

    /// Makes the header of an empty table; the magic number comes last, so that a half-made one
    /// is not taken for a table.
    pub(super) fn write_header(&self, header: &Line, seed: u64, incarnation: u64) {
        let words = &header.0;
        words[W_VERSION].store(VERSION, Relaxed);
        words[W_SIZES].store(u64::from(self.v4) << 32 | u64::from(self.v6), Relaxed);
        words[W_SEED].store(seed, Relaxed);
        words[W_INCARNATION].store(incarnation, Relaxed);
        words[W_GENERATION].store(0, Relaxed);
        words[W_MAGIC].store(MAGIC, Release);
    }

    /// Takes the magic number away, before the rest is overwritten.
    pub(super) fn disown(header: &Line) {
        header.0[W_MAGIC].store(0, Release);
    }

    pub(super) fn check_header(&self, header: &Line, incarnation: u64) -> Result<(), LayoutError> {
        let word = |i: usize| header.0[i].load(Relaxed);
        if word(W_MAGIC) != MAGIC {
            return Err(LayoutError::NoTable);
        }
        if word(W_VERSION) != VERSION {
            return Err(LayoutError::Version { found: word(W_VERSION) });
        }
        if word(W_INCARNATION) != incarnation {
            return Err(LayoutError::Incarnation);
        }
        let sizes = word(W_SIZES);
        if sizes != u64::from(self.v4) << 32 | u64::from(self.v6) {
            return Err(LayoutError::Capacity { v4: (sizes >> 32) as u32, v6: sizes as u32 });
        }
        Ok(())
    }

    /// First line, lines a record and number of the records of a family.
    pub(super) fn records(&self, v6: bool) -> (u32, u32, u32) {
        if v6 { (self.v6_at, LINES_V6, self.v6) } else { (self.v4_at, LINES_V4, self.v4) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn bytes_per_connection(v4: u32, v6: u32) -> f64 {
        let layout = Layout::new(&FlowConfig { v4, v6, ..FlowConfig::default() }).unwrap();
        layout.bytes() as f64 / f64::from(v4 + v6)
    }

    #[test]
    fn a_connection_with_both_directions_and_index_fits_the_target() {
        assert!(bytes_per_connection(1 << 20, 0) <= 160.0);
        assert!(bytes_per_connection(0, 1 << 20) <= 256.0);
        assert!(bytes_per_connection(1 << 20, 0) <= 158.3);
        assert!(bytes_per_connection(0, 1 << 20) <= 222.3);
    }

    #[test]
    fn sizes_that_no_line_number_reaches_are_refused() {
        for (v4, v6) in [(0, 0), (u32::MAX, 0), (0, u32::MAX)] {
            let config = FlowConfig { v4, v6, ..FlowConfig::default() };
            assert_eq!(Layout::new(&config), Err(LayoutError::Config));
        }
        assert!(Layout::new(&FlowConfig { v4: 1 << 30, v6: 0, ..FlowConfig::default() }).is_ok());
    }
}
