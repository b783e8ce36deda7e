//! Attaching tc programs (cls_bpf in a clsact qdisc).

use std::os::fd::AsFd;

use libbpf_rs::{ErrorKind, TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use super::{ProgramError, object::Loaded};

/// Where our filter is among the others of an interface: first, and with a handle that marks it.
const PRIORITY: u32 = 1;
const HANDLE: u32 = 0x4d;

/// On which way of an interface a program sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Ingress,
    Egress,
}

/// Attaches the program, in place of a predecessor's in one step. The clsact qdisc is made if there
/// is none.
pub(super) fn attach(loaded: &Loaded, ifindex: u32, way: Way) -> Result<(), ProgramError> {
    let mut hook = hook(loaded, ifindex, way);
    hook.create()
        .and_then(|mut hook| hook.attach())
        .map(drop)
        .map_err(|source| ProgramError::Attach { program: loaded.name(), ifindex, source })
}

/// Whether a program of ours, this one or a predecessor's, is there.
pub(super) fn is_ours(loaded: &Loaded, ifindex: u32, way: Way) -> bool {
    hook(loaded, ifindex, way).query().is_ok()
}

/// Takes the program off if it, and not a successor, is there. An interface that is gone is no
/// error. The qdisc stays: it does nothing by itself, and others may use it.
pub(super) fn detach(loaded: &Loaded, ifindex: u32, way: Way) -> Result<(), ProgramError> {
    match hook(loaded, ifindex, way).query() {
        Ok(id) if id == loaded.id() => clear(loaded, ifindex, way),
        _ => Ok(()),
    }
}

/// Takes off a program of ours, this one or a predecessor's.
pub(super) fn clear(loaded: &Loaded, ifindex: u32, way: Way) -> Result<(), ProgramError> {
    let mut hook = hook(loaded, ifindex, way);
    if hook.query().is_err() {
        return Ok(());
    }
    match hook.detach() {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(ProgramError::Detach { program: loaded.name(), ifindex, source })
        }
        _ => Ok(()),
    }
}

fn hook(loaded: &Loaded, ifindex: u32, way: Way) -> TcHook {
    TcHookBuilder::new(loaded.as_fd())
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(HANDLE)
        .priority(PRIORITY)
        .hook(match way {
            Way::Ingress => TC_INGRESS,
            Way::Egress => TC_EGRESS,
        })
}
