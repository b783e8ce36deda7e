//! What can go wrong outside the packet path, as values.

use std::io;

use crate::Mode;

/// Why packet memory, a socket or a BPF program could not be set up, asked or taken down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gave no memory for packets.
    #[error("cannot map {bytes} bytes of packet memory")]
    Map {
        /// How much was asked for.
        bytes: usize,
        /// What mmap(2) said.
        #[source]
        source: io::Error,
    },
    /// A region without chunks, or with more than a 32-bit index reaches.
    #[error("packet memory of {chunks} chunks of {chunk_size} bytes is not possible")]
    RegionSize {
        /// Chunks asked for.
        chunks: u32,
        /// Bytes in each.
        chunk_size: usize,
    },
    /// A ring size or a frame size that AF_XDP does not take.
    #[error("invalid AF_XDP configuration: {0}")]
    Config(String),
    /// An interface name that cannot be one (a NUL byte inside).
    #[error("{0:?} is not an interface name")]
    InterfaceName(String),
    /// The region could not be registered as a UMEM.
    #[error("cannot register {bytes} bytes of packet memory as a UMEM")]
    Register {
        /// Size of the region.
        bytes: usize,
        /// What setsockopt(XDP_UMEM_REG) said.
        #[source]
        source: io::Error,
    },
    /// A socket could not be made or bound.
    #[error("cannot bind an AF_XDP socket to {interface} queue {queue}, mode {mode}")]
    Bind {
        /// The interface's name.
        interface: String,
        /// The interface's queue.
        queue: u32,
        /// The mode that was tried.
        mode: Mode,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// This process already holds a socket on that queue, over the same UMEM.
    #[error("{interface} queue {queue} already has an AF_XDP socket of this process")]
    AlreadyBound {
        /// The interface's name.
        interface: String,
        /// The interface's queue.
        queue: u32,
    },
    /// A question to a socket failed.
    #[error("cannot read {what} of an AF_XDP socket")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}
