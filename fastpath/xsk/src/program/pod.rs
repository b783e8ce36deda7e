//! `pod.bpf.c`: from a pod's veth into the trunk, or straight into another pod or out of an uplink.

use std::sync::Arc;

use super::{
    InwardProgram, ProgramError, Shortcut,
    object::Loaded,
    object_file,
    tc::{self, Way},
};

/// The tc program at the ingress of pods' host ends: marks each frame with the interface's index
/// and sends it into the trunk, except for what takes the [`Shortcut`]. Loaded once, attached to any
/// number of interfaces.
#[derive(Debug)]
pub struct PodProgram {
    loaded: Arc<Loaded>,
}

// === impl PodProgram ===

impl PodProgram {
    /// Loads the program for a trunk whose kernel end has that interface index.
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(trunk: u32) -> Result<Self, ProgramError> {
        let loaded = Loaded::load_with_trunk("pod", object_file!("pod"), trunk)?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// What goes past the workers, from pods and from uplinks: nothing, until it is told.
    pub fn shortcut(&self, inward: &InwardProgram) -> Shortcut {
        Shortcut::new(self.loaded.clone(), inward.loaded().clone())
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Attaches it to a pod's host end, in place of a predecessor.
    ///
    /// # Errors
    /// [`ProgramError::Attach`].
    pub fn attach(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::attach(&self.loaded, ifindex, Way::Ingress)
    }

    /// Whether it, or a predecessor, is attached to an interface.
    pub fn has_predecessor(&self, ifindex: u32) -> bool {
        tc::is_ours(&self.loaded, ifindex, Way::Ingress)
    }

    /// Takes it, or a predecessor, off an interface that is to be another kind of port.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn clear(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::clear(&self.loaded, ifindex, Way::Ingress)
    }

    /// Takes it off again, unless a successor is there already.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn detach(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::detach(&self.loaded, ifindex, Way::Ingress)
    }
}
