//! The agent's side of the CNI socket.
//!
//! In the order of use:
//! - [`socket`]: the socket file, its mode and a stale predecessor;
//! - [`server`]: connections, lines, requests and answers;
//! - [`backend`]: what can be asked, as a trait that the server calls;
//! - [`answer`]: the answers of this node, from its datastore, its addresses and its dataplane.

pub(crate) mod socket;

pub(crate) mod server;

pub(crate) mod backend;

mod answer;

pub(crate) use answer::Backend;
pub(crate) use server::serve;
