//! `pod.bpf.c`: from a pod's veth into the trunk.

use super::{
    ProgramError,
    object::Loaded,
    object_file,
    tc::{self, Way},
};

/// The tc program at the ingress of pods' host ends: marks each frame with the interface's index
/// and sends it into the trunk. Loaded once, attached to any number of interfaces.
#[derive(Debug)]
pub struct PodProgram {
    loaded: Loaded,
}

// === impl PodProgram ===

impl PodProgram {
    /// Loads the program for a trunk whose kernel end has that interface index.
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(trunk: u32) -> Result<Self, ProgramError> {
        Loaded::load_with_trunk("pod", object_file!("pod"), trunk).map(|loaded| Self { loaded })
    }

    /// Attaches it to a pod's host end, in place of a predecessor.
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
