//! This node as the others see it: its Node object, kept as it should be.
//!
//! - [`object`]: what the object has to say, pure;
//! - [`tunnels`]: which tunnels the pools want, and the node's addresses in them;
//! - [`keeper`]: writes the object, whenever something that it depends on changes;
//! - [`blocks`]: how many addresses the node has, for metrics.

mod object;
mod tunnels;

mod keeper;

mod blocks;

pub(crate) use blocks::{Addresses, count_addresses};
pub(crate) use keeper::Keeper;
