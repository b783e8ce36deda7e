//! The BPF programs, typed: load, attach, fill their maps, detach.
//!
//! Programs are attached by netlink and not by a link object: they stay in force, with their maps,
//! when the process that attached them dies in whatever way, and the next process puts its own in
//! their place in one step. Only `detach` takes them off.
//!
//! - [`Uplink`]: of an uplink's traffic, what the dataplane needs; [`HostFlowProgram`]: of what the
//!   kernel itself sends there; [`SafePort`]: what both leave alone whatever policy says;
//!   [`Exchange`]: what has no ports to know it by;
//! - [`PortProgram`]: every frame of an interface;
//! - [`PodProgram`], [`TrunkProgram`]: pods' frames into the trunk, and out of it; [`InwardProgram`]:
//!   uplinks' frames past it; [`Shortcut`]: what goes past it, from pods and uplinks.

mod object;
mod sockets;
mod tc;
mod xdp;

mod guard;
mod inward;
mod uplink;
mod hostflow;
mod portless;
mod port;
mod pod;
mod shortcut;
mod trunk;

pub use guard::SafePort;
pub use hostflow::{HostFlow, HostFlowProgram};
pub use inward::InwardProgram;
pub use pod::PodProgram;
pub use port::PortProgram;
pub use portless::Exchange;
pub use shortcut::{Approval, Cover, Moved, Passage, Shortcut};
pub use trunk::TrunkProgram;
pub use uplink::{AddressClass, Uplink, UplinkConfig};
pub use xdp::{Attached, XdpMode};

/// Why a BPF program could not be loaded, attached, filled or taken off.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The kernel refused the program or one of its maps.
    #[error("cannot load the BPF program {program}")]
    Load {
        /// Which program.
        program: &'static str,
        /// libbpf's answer.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The object file lacks a map: it was built from other sources than this crate.
    #[error("the BPF program {program} has no map {map}")]
    NoMap {
        /// Which program.
        program: &'static str,
        /// Which map.
        map: &'static str,
    },
    /// A map could not be read or written.
    #[error("cannot access the map {map} of the BPF program {program}")]
    Map {
        /// Which program.
        program: &'static str,
        /// Which map.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The program could not be attached.
    #[error("cannot attach the BPF program {program} to interface {ifindex}")]
    Attach {
        /// Which program.
        program: &'static str,
        /// The interface.
        ifindex: u32,
        /// The kernel's answer.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The program could not be taken off.
    #[error("cannot detach the BPF program {program} from interface {ifindex}")]
    Detach {
        /// Which program.
        program: &'static str,
        /// The interface.
        ifindex: u32,
        /// The kernel's answer.
        #[source]
        source: libbpf_rs::Error,
    },
}

/// An object file that the build script made, aligned as libelf wants it.
macro_rules! object_file {
    ($name:literal) => {{
        #[repr(align(8))]
        struct Aligned<T: ?Sized>(T);
        static FILE: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")));
        &FILE.0
    }};
}
use object_file;
