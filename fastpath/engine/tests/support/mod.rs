//! A node in memory: state, kernel view, snapshot, flow table and engine, and packets to send
//! through it, built by etherparse and never by Margay's own encoders.

// Each test and bench that shares this module uses its own part of it, in a crate of its own.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod packet;
mod verify;
mod node;
mod rules;

pub use node::*;
pub use packet::*;
pub use rules::*;
pub use verify::{crc32c, sums_are_right};
