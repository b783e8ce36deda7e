//! Commands that ask a dataplane, asked of one that is not one.
//!
//! - [`seen`]: packets and connections; [`told`]: its answers; [`running`]: it runs;
//! - [`status`], [`flows`], [`trace`], [`policy`]: what is asked of it.

#[path = "../common/mod.rs"]
mod common;

mod seen;
mod told;
mod running;

mod status;
mod flows;
mod trace;
mod policy;
