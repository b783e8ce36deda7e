//! Who gets which address: Calico's address management on any datastore.
//!
//! A pool is cut into blocks, a block belongs to a node by an affinity, an address is taken out of
//! a block under a handle. Nothing is locked: every record is changed by compare-and-swap, and
//! the order of the writes keeps each intermediate state safe for whoever comes across it.
//!
//! In the order of use:
//! - [`names`]: what records and handles are called; [`error`]: how it fails;
//! - [`pool`]: which pools serve a request;
//! - [`block`]: one block, pure: who has which of its addresses;
//! - `records`: the records in the datastore; `affinity`, `handle`: how they change;
//! - [`assign`]: addresses for a workload, any ([`AutoAssign`]) or a given one ([`AssignIp`]);
//! - [`release`]: giving them back;
//! - [`tunnel`]: the addresses of a node's tunnels;
//! - [`gc`]: what nobody gave back;
//! - [`query`], [`check`], [`admin`]: what `margayctl ipam` shows, checks and changes.

pub mod names;

pub mod error;

pub mod pool;

pub mod block;

mod records;

mod affinity;
mod handle;

pub mod assign;

pub mod release;

pub mod tunnel;

pub mod gc;

pub mod admin;
pub mod check;
pub mod query;

use std::sync::Arc;

use jiff::Timestamp;
use margay_datastore::Datastore;
use tokio::sync::Mutex;

pub use assign::{AssignIp, Assigned, AutoAssign};
pub use block::{Allocation, Block};
pub use error::{Error, Shortage};
pub use names::Owner;
pub use pool::{Family, Pool};
pub use release::Released;
pub use tunnel::TunnelKind;

use crate::records::Records;

/// Address management on a datastore. Cheap to share; any number of them, in any number of
/// processes, may work on one datastore.
pub struct Ipam {
    records: Records,
    clock: Clock,
    /// One assignment at a time in this process: they would only meet in the same block and make
    /// each other repeat.
    turn: Mutex<()>,
}

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

// === impl Ipam ===

impl Ipam {
    /// Works on `store`, by the system's clock.
    pub fn new(store: Arc<dyn Datastore>) -> Self {
        Self::with_clock(store, Arc::new(Timestamp::now))
    }

    /// Works on `store`, by another clock.
    pub fn with_clock(store: Arc<dyn Datastore>, clock: Clock) -> Self {
        Self { records: Records { store }, clock, turn: Mutex::default() }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
