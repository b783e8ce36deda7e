//! The dataplane's tables: what a packet is looked up in.
//!
//! In the order of a packet's way:
//! - [`addr`]: addresses, prefixes and 5-tuples of both families in one shape;
//! - [`flow`]: the connections, shared by all workers;
//! - [`service`]: what is translated, and [`maglev`], one way to choose a backend;
//! - [`lpm`][]: networks;
//! - [`ipset`] and [`classifier`]: address sets, and the policies that name them;
//! - [`cow`]: the persistent map that the others are made of; [`ticks`]: the processor's clock.

pub mod addr;
pub mod flow;
pub mod service;
pub mod maglev;
pub mod lpm;
pub mod ipset;
pub mod classifier;
pub mod cow;

mod sync;
mod ticks;

pub use addr::{Addr, Prefix, Tuple};
pub use classifier::{Classifier, Decision, Direction, EndpointPolicy, PacketFacts, PolicyBook};
pub use cow::CowMap;
pub use flow::{FlowConfig, FlowId, FlowRef, FlowTable, FlowWorker, Insert, NewFlow, Region};
pub use lpm::Lpm;
pub use service::ServiceTable;
pub use ticks::ticks;
