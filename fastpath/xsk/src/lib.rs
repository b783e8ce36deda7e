//! AF_XDP sockets on shared packet memory, and the BPF programs that feed them.
//!
//! In the order of use:
//! - [`region`]: the packet memory; [`frame`]: a packet in it; [`pool`]: a worker's free chunks;
//! - [`umem`]: the memory as the kernel knows it, one registration a mode; [`bind`]: the best mode
//!   that an interface can do, and why no better;
//! - [`socket`], with [`Socket::rx`], [`Socket::tx`], [`Socket::complete`], [`Socket::fill`]: one
//!   (interface, queue), driven by one worker; `ring`, `lent` and `gather` are what they are made of;
//!   [`Socket::run_napi`]: reception without interrupts;
//! - [`program`]: the BPF programs that decide what reaches the sockets, sources in `bpf/`.
//!
//! The configuration types are xsk-rs's. Its `Umem` and `Socket` are not used: they own the memory
//! they register, so that two registrations (one a mode) cannot lie over one region, and they hide
//! descriptor addresses, without which a frame that had headers pushed on one port cannot go out of
//! another. What they do for the life of a socket is done here through the same `libxdp-sys`.
//!
//! ```no_run
//! use arrayvec::ArrayVec;
//! use margay_xsk::{Frame, Mode, Pool, Region, RegionConfig, SocketOptions, Umem, UmemOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let region = Region::new(RegionConfig::default())?;
//! let (umem, mut home) =
//!     Umem::open(region, Mode::Copy, UmemOptions::default(), "margay0x", 0, SocketOptions::default())?;
//! let mut uplink = umem.bind("eth0", 0, SocketOptions::default())?;
//!
//! // On the worker's thread.
//! let mut pool = Pool::new(region, 4096);
//! let mut batch = ArrayVec::<Frame, 64>::new();
//! loop {
//!     home.complete(&mut pool);
//!     uplink.fill(&mut pool);
//!     uplink.rx(&mut batch);
//!     for frame in &mut batch {
//!         let (start, len) = (frame.start(), frame.len());
//!         frame.chunk_mut()[start - 50..start].fill(0); // an outer header
//!         frame.set_range(start - 50, len + 50)?;
//!     }
//!     let mut rest = batch.drain(..);
//!     home.tx(&mut rest);
//!     rest.for_each(|frame| pool.put(frame)); // the ring was full: counted drops
//!     home.kick_tx()?;
//! }
//! # }
//! ```

pub mod region;

pub mod frame;
pub mod pool;

pub mod umem;
pub mod bind;

pub mod program;

pub mod socket;
mod ring;
mod lent;
mod fill;
mod rx;
mod gather;
mod busy_poll;
mod tx;
mod completion;

mod error;

pub use bind::{Binder, Bound, Fallback, Preference};
pub use busy_poll::Napi;
pub use error::Error;
pub use frame::{Frame, OutOfChunk};
pub use pool::Pool;
pub use region::{ChunkSize, Region, RegionConfig};
pub use socket::{KernelCounters, Socket, SocketCounters};
pub use tx::{Kick, KickError};
pub use umem::{SocketOptions, Umem, UmemOptions};

/// Where in its chunk a received packet starts (`XDP_PACKET_HEADROOM`): the room for outer headers.
pub const HEADROOM: usize = 256;

/// How packets get between a socket and its driver; a property of the whole UMEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The driver reads and writes packet memory itself.
    ZeroCopy,
    /// The kernel copies. Works with native and with generic XDP.
    Copy,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}
