//! From what the datastore says to what the dataplane accepts: pure, and incremental.
//!
//! A [`Compiler`] takes objects in any order and gives the updates of a dataplane's state. What it
//! keeps is indexed so that a change costs in proportion to what it touches.
//!
//! In the order of use:
//! - [`compiler`]: the entrance; [`request`]: what rules ask beyond what packets show; [`work`]: how
//!   much was done;
//! - `input`: from objects to the facts that matter; `name`: names of objects;
//! - `intent`: from policies of every kind to one form;
//! - `label`: labels, selectors, and the index that joins them;
//! - `profiles`, `workloads`: namespaces, service accounts, pods and their interfaces; `limits`: what
//!   these may use;
//! - `sets`: address sets; `policy`: tiers, rules, and the endpoints that they apply to;
//! - `service`: services and their usable endpoints;
//! - `configuration`, [`network`]: settings, nodes, pools, routes.

pub mod compiler;
pub mod request;
pub mod work;

mod input;
mod name;

mod intent;

mod label;

mod profiles;
mod limits;
mod workloads;

mod sets;
mod policy;

mod service;

mod configuration;
pub mod network;

pub use compiler::{CompileError, Compiler, Label, PortView, ResourceChange, Scope};
pub use intent::Stage;
pub use label::Unmet;
pub use network::{Connections, NodeConfig, NodePorts};
pub use policy::view::{PolicyView, TierView};
pub use request::{Account, HttpMatch, Identity, PathMatch, RequestMatch, Requests};
pub use service::view::BackendView;
pub use service::{HealthCheck, HealthChecks, Usable};
pub use sets::SetMeaning;
pub use work::Work;
