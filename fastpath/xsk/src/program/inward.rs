//! `inward.bpf.c`: from uplinks past the workers.

use std::sync::Arc;

use super::{
    HostFlowProgram, PodProgram, ProgramError, Shortcut,
    object::Loaded,
    object_file,
    tc::{self, Way},
    xdp,
};

/// The section of the Ethernet address that the programs of an uplink agree on.
pub(super) const MAC: &str = ".rodata.inward";

/// The tc program at the ingress of uplinks: takes what their XDP programs have admitted to the
/// [`Shortcut`] where its passage leads, and leaves all else alone. Loaded once, attached to any number
/// of interfaces.
#[derive(Debug)]
pub struct InwardProgram {
    loaded: Arc<Loaded>,
    mac: [u8; 8],
}

// === impl InwardProgram ===

impl InwardProgram {
    /// Loads the program. Frames that were admitted are known by the Ethernet destination `mac`, which
    /// nobody outside may know. It shares the passages of the pods' program.
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(mac: [u8; 6], pods: &PodProgram) -> Result<Self, ProgramError> {
        let [a, b, c, d, e, f] = mac;
        let mac = [a, b, c, d, e, f, 0, 0];
        let shared = Shortcut::MAPS.map(|map| (map, pods.loaded()));
        let object = object_file!("inward");
        let loaded = Loaded::load_with("inward", object, &[(MAC, &mac)], &shared, |_| ())?;
        Ok(Self { loaded: Arc::new(loaded), mac })
    }

    pub(super) fn loaded(&self) -> &Arc<Loaded> {
        &self.loaded
    }

    /// The Ethernet destination of admitted frames, padded.
    pub(super) fn mac(&self) -> &[u8; 8] {
        &self.mac
    }

    /// Attaches it to an uplink, in place of a predecessor; before the XDP program is, which hands it
    /// its frames.
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

    /// Takes it, or a predecessor, off an interface that is no uplink any more, and the other programs of
    /// uplinks with it.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn clear(&self, host_flows: &HostFlowProgram, ifindex: u32) -> Result<(), ProgramError> {
        xdp::clear(&self.loaded, ifindex, "uplink")?;
        tc::clear(host_flows.loaded(), ifindex, Way::Egress)?;
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
