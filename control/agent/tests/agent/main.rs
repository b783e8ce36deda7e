//! The agent on a directory, with a dataplane that is not one.
//!
//! - [`dataplane`]: speaks the daemon's side of the protocol and keeps what it is told;
//! - [`rig`]: a directory, an agent, a dataplane, and files that appear by renaming;
//! - the tests: [`publishing`], [`nodes`], [`cni`], [`process`], [`health`].

mod dataplane;
mod rig;

mod publishing;
mod nodes;
mod cni;
mod process;
mod health;
