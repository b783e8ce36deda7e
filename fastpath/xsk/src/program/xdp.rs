//! Attaching XDP programs.

use std::os::fd::AsFd;

use libbpf_rs::{ErrorKind, OpenObject, Xdp, XdpFlags, query::ProgInfoIter};

use super::{ProgramError, object::Loaded};

/// `BPF_F_XDP_HAS_FRAGS` (include/uapi/linux/bpf.h, Linux 5.18).
const HAS_FRAGS: u32 = 1 << 5;

/// The section of what an uplink's program knows of that.
pub(super) const BUFFERS: &str = ".rodata.buffers";

/// How an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the stack, on a socket buffer: on any interface, slower.
    Generic,
}

/// An XDP program in force.
#[derive(Debug)]
pub struct Attached {
    /// How it runs.
    pub mode: XdpMode,
    /// Why not natively, if so.
    pub fallback: Option<libbpf_rs::Error>,
}

// === impl XdpMode ===

impl XdpMode {
    fn other(self) -> Self {
        match self {
            Self::Native => Self::Generic,
            Self::Generic => Self::Native,
        }
    }

    fn flags(self) -> XdpFlags {
        match self {
            Self::Native => XdpFlags::DRV_MODE,
            Self::Generic => XdpFlags::SKB_MODE,
        }
    }
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Whether the program of an object that is not loaded yet takes packets of several buffers, of which
/// it sees the first. Drivers want that where the MTU is beyond a page.
pub(super) fn set_multi_buffer(open: &mut OpenObject, multi_buffer: bool) {
    if multi_buffer {
        open.progs_mut().for_each(|mut program| program.set_flags(HAS_FRAGS));
    }
}

/// Attaches natively if the driver can, else generically. A native program that is there and cannot be
/// replaced stays.
pub(super) fn attach(loaded: &Loaded, ifindex: u32) -> Result<Attached, ProgramError> {
    let Err(fallback) = put(loaded, ifindex, XdpMode::Native) else {
        return Ok(Attached { mode: XdpMode::Native, fallback: None });
    };
    Xdp::new(loaded.as_fd())
        .attach(ifindex as i32, XdpMode::Generic.flags())
        .map(|()| Attached { mode: XdpMode::Generic, fallback: Some(fallback) })
        .map_err(|source| ProgramError::Attach { program: loaded.name(), ifindex, source })
}

/// Attaches in this mode, and in no other.
pub(super) fn attach_as(
    loaded: &Loaded,
    ifindex: u32,
    mode: XdpMode,
) -> Result<Attached, ProgramError> {
    put(loaded, ifindex, mode)
        .map(|()| Attached { mode, fallback: None })
        .map_err(|source| ProgramError::Attach { program: loaded.name(), ifindex, source })
}

/// A program that is there in the same mode is replaced in one step; one in the other mode is taken
/// off first, as the kernel allows one only. Where that was in vain this one takes its place as it was:
/// an interface that was guarded does not become an open one.
fn put(loaded: &Loaded, ifindex: u32, mode: XdpMode) -> libbpf_rs::Result<()> {
    let (xdp, index) = (Xdp::new(loaded.as_fd()), ifindex as i32);
    match xdp.attach(index, mode.flags()) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let other = || mode.other().flags();
            xdp.detach(index, other())?;
            xdp.attach(index, mode.flags()).inspect_err(|_| drop(xdp.attach(index, other())))
        }
        outcome => outcome,
    }
}

/// Takes the program off if it, and not a successor, is there. An interface that is gone is no
/// error.
pub(super) fn detach(loaded: &Loaded, ifindex: u32) -> Result<(), ProgramError> {
    take_off(loaded, ifindex, |id| id == loaded.id())
}

/// Takes off a program of that name in the kernel, whoever attached it; any program of ours can ask for
/// that. An interface that is gone is no error.
pub(super) fn clear(ours: &Loaded, ifindex: u32, name: &str) -> Result<(), ProgramError> {
    take_off(ours, ifindex, |id| id != 0 && is_called(id, name))
}

/// Takes off the program that is there, if it is the one that is meant.
fn take_off(
    ours: &Loaded,
    ifindex: u32,
    is_meant: impl Fn(u32) -> bool,
) -> Result<(), ProgramError> {
    let xdp = Xdp::new(ours.as_fd());
    for mode in [XdpMode::Native, XdpMode::Generic] {
        match xdp.query_id(ifindex as i32, mode.flags()) {
            Ok(id) if is_meant(id) => {
                return xdp.detach(ifindex as i32, mode.flags()).map_err(|source| {
                    ProgramError::Detach { program: ours.name(), ifindex, source }
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_called(id: u32, name: &str) -> bool {
    ProgInfoIter::default().any(|known| known.id == id && known.name.to_bytes() == name.as_bytes())
}
