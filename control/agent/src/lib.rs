//! The Margay control plane of one node: reads the datastore, tells the dataplane, answers the CNI
//! plugins.
//!
//! ```text
//!              ┌ keeper: this node's object, tunnel addresses ┐
//! datastore ←──┤                                              │
//!     │        └ cniserver: addresses, endpoints ──waits──┐   │
//!     └─ mirror → compiler → publisher → margayd ←────────┘───┘
//!        └──────── pipeline ────────┘
//! ```
//!
//! In the order of use:
//! - [`config`]: what the agent is told;
//! - [`agent`]: everything put together, and how it starts and ends;
//! - [`defaults`]: objects that are missing; [`node`]: this node's own; [`uplink`]: its interface;
//! - [`pipeline`]: from the datastore's changes to the publisher; [`publisher`]: on to `margayd`;
//! - [`cniserver`]: the CNI plugins' socket;
//! - [`authz`]: what proxies are told that ask about requests;
//! - [`health_check`], [`node_health`]: what load balancers outside are told, of services and the node;
//! - [`flowlog`]: what became of connections, named and written;
//! - [`metrics`]: what is counted, and the health.

pub mod config;

mod agent;

mod defaults;
mod node;
mod uplink;

mod pipeline;
mod publisher;

mod cniserver;

mod authz;

mod health_check;
mod node_health;

mod flowlog;

mod metrics;

pub use agent::{AgentError, run};
