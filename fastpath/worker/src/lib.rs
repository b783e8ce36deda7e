//! Pinned poll-mode workers: frames from AF_XDP sockets, through the engine, to AF_XDP sockets.
//!
//! Each worker is one thread on one core. It owns its sockets, its free chunks and its seat at the
//! flow table; what others want of it comes through queues without locks:
//!
//! ```text
//!              Command (snapshot, sockets)        Injected (the slow path's frames)
//!                     │                                   │
//!  rx ──→ engine ──→ outbox ──→ tx        Handoff: frames for a port that another worker has
//!            ├─→ Punted ──→ slow path
//!            └─→ Mentions ─→ whoever moves busy connections past the workers
//! ```
//!
//! In the order of use: [`link`]: the queues, as others see a worker; [`device`]: a socket with its
//! heat and what waits to be sent by it; `quota`: a port's share of the slow path;
//! `held`: frames that a limit keeps waiting; `desk`: packets larger than a chunk, in one piece;
//! [`cycle`]: one turn of the loop; [`tap`]: packets that somebody wants to see; [`rest`]: when and how a worker
//! sleeps; [`clock`].

pub mod link;

mod device;
mod quota;
mod held;
mod desk;
pub mod cycle;
mod rest;
pub mod tap;

pub mod clock;

pub use cycle::{Setup, Worker};
pub use link::{Command, Inbox, Injected, Link, Mentions, Polling, Punted, Punts};
