//! The packet path: bytes in, bytes and fate out, one file for each matter.

#[path = "../support/mod.rs"]
mod support;

mod same_node;
mod express;
mod connections;
mod window;
mod shortcut;
mod encap;
mod decap;
mod hostile;
mod services;
mod direct;
mod affinity;
mod outgoing;
mod policy;
mod names;
mod limits;
mod connection_limits;
mod accounts;
mod host;
mod guards;
mod pressure;
mod sharing;
mod properties;
mod verdict;
mod edits;
mod trace;
