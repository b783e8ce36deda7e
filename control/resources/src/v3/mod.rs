//! Objects of `projectcalico.org/v3`, as JSON spells them.
//!
//! Fields that may be missing are absent from the output when they are empty, so that what is read
//! is written back unchanged. Names, networks, ports and the like are typed; selectors are kept as
//! text, which [`crate::Resource::validate`] checks.
//!
//! - [`value`]: protocols, ports, networks; [`object`]: what is common to all;
//! - [`rule`], [`policy`], [`tier`], [`set`], [`endpoint`], [`qos`]: policy, what it applies to, and what that may use;
//! - [`pool`]: pools and the settings of address management; [`block`]: its records;
//! - [`bgp`], [`node`], [`felix`], [`cluster`]: the rest.

mod value;
mod object;
mod rule;
mod policy;
mod tier;
mod set;
mod qos;
mod endpoint;
mod pool;
mod block;
mod bgp;
mod node;
mod felix;
mod cluster;

pub use bgp::*;
pub use block::*;
pub use cluster::*;
pub use endpoint::*;
pub use felix::*;
pub use node::*;
pub use object::*;
pub use policy::*;
pub use pool::*;
pub use qos::*;
pub use rule::*;
pub use set::*;
pub use tier::*;
pub use value::*;
