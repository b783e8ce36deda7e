//! The flow table: every connection of the node, shared by all workers, without locks.
//!
//! ```text
//!   tuple ── hash ──→ bucket (1 line: header + 7 entries) ─ entry: tag, id ─→ record
//!                     two candidates a key                       Orig line │ Reply line
//! ```
//!
//! - A *record* is a connection with both directions ([`FlowRef`]); it is found by either of its
//!   two keys through the index. A *cached denial* has one direction and one key.
//! - Readers ([`FlowTable::lookup`]) never wait and never write. Writers go through a
//!   [`FlowWorker`], of which each thread has its own.
//! - Memory is a [`Region`] of fixed size that holds no pointers: a new process opens the old
//!   one's region ([`FlowTable::open`]) and goes on.
//! - A removed record is used again only after every worker has been between two batches
//!   ([`FlowWorker::quiesce`]).
//! - Time is a counter of about a millisecond a tick, 32 bits, wrapping. It must go on over a
//!   restart of the process (a boot-time clock). Idle times are right up to 24 days.
//!
//! Memory for each connection, index at its planned load included: IPv4 2 × 64 + 29.3 + 1 = 158.3
//! bytes, IPv6 3 × 64 + 29.3 + 1 = 222.3 bytes. The last byte is for [`Affinities`]: which backend
//! a client of a service was sent to outlives the connection, and a restart too.
//!
//! In the order of use: [`region`] and [`layout`] (memory), [`key`] and [`record`] (what a connection
//! is), [`index`] (how it is found), [`epoch`], [`pool`] and [`hold`] (when it may be used again),
//! [`journal`] (what became of connections), [`table`], [`worker`] (insert, remove), [`sweep`] (ageing,
//! eviction, listing), [`recover`] (taking over); [`affinity`] beside them.
//!
//! What threads do to each other is model-checked by loom, what a death leaves behind by processes that
//! die at every step (`tests`). Miri, which wants a nightly toolchain, does not run here.

mod region;
mod layout;
mod key;
mod record;
mod index;
mod epoch;
mod pool;
mod hold;
mod journal;
mod table;
mod worker;
mod sweep;
mod recover;
mod affinity;

#[cfg(test)]
mod tests;

pub use affinity::{Affinities, AffinityKey, BackendId};
pub use journal::{Entry, FlowCopy, Journal, Logged, Tally};
pub use key::{FlowKey, KeyV4, KeyV6, Words};
pub use layout::{FlowConfig, LayoutError};
pub use record::{Dir, FlowId, FlowRef, MARKS, NewFlow, Rewrite, Stamped};
pub use region::{Line, Region};
pub use sweep::{Cursor, Evicted, Share, Worth};
pub use table::{FlowCounts, FlowTable};
pub use worker::{FlowWorker, Insert};
