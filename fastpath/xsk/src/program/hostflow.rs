//! `hostflow.bpf.c`: what the kernel sends out of the uplink and belongs to a flow of ours.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{ErrorKind, MapCore, MapFlags};

use super::{
    ProgramError,
    guard::{SafePort, set_failsafes},
    object::{Loaded, mapped},
    object_file,
    portless::{Exchange, Exchanges},
    tc::{self, Way},
};

const FLOWS: &str = "flows";
const GUARDED: &str = "guarded";

/// A packet of a flow, as the kernel sends it out of the uplink. Both addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostFlow {
    /// IP protocol number.
    pub protocol: u8,
    /// The node's side.
    pub source: SocketAddr,
    /// The far side.
    pub destination: SocketAddr,
}

/// The tc program at an uplink's egress: sends packets of registered flows into the trunk, and
/// leaves all others alone. It knows with whom the kernel speaks by protocols without ports. The
/// kernel keeps the flows that were used last, 65,536 of them. Of an uplink that is guarded it sends
/// everything there but safe ports and what the link itself needs: the Ethernet destination then holds
/// the uplink's index, the source the neighbour that the kernel had chosen.
#[derive(Debug)]
pub struct HostFlowProgram {
    loaded: Loaded,
    failsafes: Mutex<BTreeSet<[u8; 24]>>,
    exchanges: Exchanges,
}

// === impl HostFlow ===

impl HostFlow {
    /// `struct flow` of the program.
    fn to_bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&mapped(self.source.ip()));
        bytes[16..32].copy_from_slice(&mapped(self.destination.ip()));
        bytes[32..34].copy_from_slice(&self.source.port().to_be_bytes());
        bytes[34..36].copy_from_slice(&self.destination.port().to_be_bytes());
        bytes[36] = self.protocol;
        bytes
    }
}

// === impl HostFlowProgram ===

impl HostFlowProgram {
    /// Loads the program for a trunk whose kernel end has that interface index.
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(trunk: u32) -> Result<Self, ProgramError> {
        Loaded::load_with_trunk("hostflow", object_file!("hostflow"), trunk).map(|loaded| Self {
            loaded,
            failsafes: Mutex::default(),
            exchanges: Exchanges::default(),
        })
    }

    /// Registers a flow. Takes `&self`: the kernel's map is safe to change from any thread.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn add(&self, flow: HostFlow) -> Result<(), ProgramError> {
        let flows = self.loaded.map(FLOWS)?;
        flows.update(&flow.to_bytes(), &[1], MapFlags::ANY).map_err(map_error)
    }

    /// Forgets a flow; one that is not there is no error, since the kernel forgets by itself.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn remove(&self, flow: HostFlow) -> Result<(), ProgramError> {
        match self.loaded.map(FLOWS)?.delete(&flow.to_bytes()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(map_error(error)),
            _ => Ok(()),
        }
    }

    /// Says whether an uplink is guarded.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn set_guarded(&self, ifindex: u32, guarded: bool) -> Result<(), ProgramError> {
        let map = self.loaded.map(GUARDED)?;
        let done = match guarded {
            true => map.update(&ifindex.to_ne_bytes(), &[1], MapFlags::ANY),
            false => map.delete(&ifindex.to_ne_bytes()),
        };
        match done {
            Err(source) if guarded || source.kind() != ErrorKind::NotFound => {
                Err(ProgramError::Map { program: "hostflow", map: GUARDED, source })
            }
            _ => Ok(()),
        }
    }

    /// Replaces the ports elsewhere that guarded uplinks let out by themselves.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn set_failsafes(&self, wanted: &BTreeSet<SafePort>) -> Result<(), ProgramError> {
        let mut known = self.failsafes.lock().unwrap_or_else(PoisonError::into_inner);
        set_failsafes(&self.loaded, &mut known, wanted)
    }

    /// Has what comes in of an exchange brought to the dataplane, on all uplinks whose programs share
    /// this one's maps. `false`, and nothing done, if the kernel itself has spoken in it at or after
    /// `since` (nanoseconds since boot), or if there is no room: it holds 16,384.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn claim(&self, exchange: Exchange, since: u64) -> Result<bool, ProgramError> {
        self.exchanges.claim(&self.loaded, exchange, since)
    }

    /// Leaves to the kernel again what comes in of exchanges for which `lives` does not hold.
    ///
    /// # Errors
    /// [`ProgramError::Map`]; a second call then goes on.
    pub fn release(&self, lives: impl FnMut(&Exchange) -> bool) -> Result<(), ProgramError> {
        self.exchanges.release(&self.loaded, lives)
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Attaches it to an uplink, in place of a predecessor.
    ///
    /// # Errors
    /// [`ProgramError::Attach`].
    pub fn attach(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::attach(&self.loaded, ifindex, Way::Egress)
    }

    /// Takes it off again, unless a successor is there already.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn detach(&self, ifindex: u32) -> Result<(), ProgramError> {
        tc::detach(&self.loaded, ifindex, Way::Egress)
    }
}

fn map_error(source: libbpf_rs::Error) -> ProgramError {
    ProgramError::Map { program: "hostflow", map: FLOWS, source }
}
