//! The socket map (XSKMAP) that every XDP program here has.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags};

use super::{ProgramError, object::Loaded};
use crate::Socket;

const MAP: &str = "sockets";

/// Makes the program send the socket's queue to it.
pub(super) fn register(loaded: &Loaded, socket: &Socket) -> Result<(), ProgramError> {
    let fd = socket.as_fd().as_raw_fd();
    loaded
        .map(MAP)?
        .update(&socket.queue().to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
        .map_err(|source| ProgramError::Map { program: loaded.name(), map: MAP, source })
}
