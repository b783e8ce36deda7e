//! `trunk.bpf.c`: out of the trunk, to the host or into a pod.

use super::{
    ProgramError,
    object::Loaded,
    object_file,
    tc::{self, Way},
};

/// The tc program at the ingress of the trunk's kernel end: passes each frame to the host or, by the
/// interface index in its Ethernet source, into a pod.
#[derive(Debug)]
pub struct TrunkProgram {
    loaded: Loaded,
}

// === impl TrunkProgram ===

impl TrunkProgram {
    /// Loads the program. `arrival` is the Ethernet source of frames that it hands to the host as
    /// though they came from an uplink; see [`UplinkConfig::guard`](super::UplinkConfig::guard).
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(arrival: [u8; 6]) -> Result<Self, ProgramError> {
        let [a, b, c, d, e, f] = arrival;
        let constant = [a, b, c, d, e, f, 0, 0];
        Loaded::load_with_constant("trunk", object_file!("trunk"), ".rodata.arrival", &constant)
            .map(|loaded| Self { loaded })
    }

    /// Attaches it to the trunk's kernel end, in place of a predecessor.
    ///
    /// # Errors
    /// [`ProgramError::Attach`].
    pub fn attach(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::attach(&self.loaded, ifindex, Way::Ingress)
    }

    /// Takes it off again, unless a successor is there already.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn detach(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::detach(&self.loaded, ifindex, Way::Ingress)
    }
}
