//! `port.bpf.c`: every frame of an interface to the dataplane.

use super::{Attached, ProgramError, XdpMode, object::Loaded, object_file, sockets, xdp};
use crate::Socket;

/// The XDP program of an interface whose every frame is the dataplane's: the trunk's far end, the
/// host end of a pod of the native kind. Frames of a queue without a socket are dropped.
///
/// One value serves one interface: it has one socket a queue.
#[derive(Debug)]
pub struct PortProgram {
    loaded: Loaded,
}

// === impl PortProgram ===

impl PortProgram {
    /// Loads the program; with `multi_buffer` for interfaces whose packets may be larger than a chunk.
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(multi_buffer: bool) -> Result<Self, ProgramError> {
        Loaded::load("port", object_file!("port"), |open| {
            xdp::set_multi_buffer(open, multi_buffer);
            Ok(())
        })
        .map(|loaded| Self { loaded })
    }

    /// Sends the socket's queue to it. Sockets are registered before the program is attached, so
    /// that a program that is replaced never leaves a queue without one.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn register_socket(&self, socket: &Socket) -> Result<(), ProgramError> {
        sockets::register(&self.loaded, socket)
    }

    /// Attaches it to an interface, in place of whatever XDP program is there.
    ///
    /// # Errors
    /// [`ProgramError::Attach`] if neither native nor generic XDP is possible.
    pub fn attach(&self, ifindex: u32) -> Result<Attached, ProgramError> {
        xdp::attach(&self.loaded, ifindex)
    }

    /// Attaches it in this mode only. Generically it also sees what the kernel redirects to the
    /// interface, which a veth's native program does not.
    ///
    /// # Errors
    /// [`ProgramError::Attach`].
    pub fn attach_as(&self, ifindex: u32, mode: XdpMode) -> Result<Attached, ProgramError> {
        xdp::attach_as(&self.loaded, ifindex, mode)
    }

    /// Takes it, or a predecessor, off an interface that is to be another kind of port.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn clear(&self, ifindex: u32) -> Result<(), ProgramError> {
        xdp::clear(&self.loaded, ifindex, self.loaded.name())
    }

    /// Takes it off again, unless a successor is there already.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn detach(&self, ifindex: u32) -> Result<(), ProgramError> {
        xdp::detach(&self.loaded, ifindex)
    }
}
