//! Loading: an object file, its one program, its maps by name.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use libbpf_rs::{MapCore, MapHandle, ObjectBuilder, OpenObject, Program};

use super::ProgramError;

/// A BPF program in the kernel, and its maps.
///
/// The kernel frees it when this value is gone and it is attached nowhere any more.
#[derive(Debug)]
pub(super) struct Loaded {
    name: &'static str,
    id: u32,
    program: OwnedFd,
    maps: HashMap<String, MapHandle>,
}

// === impl Loaded ===

impl Loaded {
    /// Loads an object file with exactly one program; `prepare` may set initial values.
    pub(super) fn load(
        name: &'static str,
        object_file: &[u8],
        prepare: impl FnOnce(&mut OpenObject) -> libbpf_rs::Result<()>,
    ) -> Result<Self, ProgramError> {
        Self::try_load(name, object_file, prepare)
            .map_err(|source| ProgramError::Load { program: name, source })
    }

    fn try_load(
        name: &'static str,
        object_file: &[u8],
        prepare: impl FnOnce(&mut OpenObject) -> libbpf_rs::Result<()>,
    ) -> libbpf_rs::Result<Self> {
        let mut open = ObjectBuilder::default().name(name)?.open_memory(object_file)?;
        prepare(&mut open)?;
        let object = open.load()?;
        let program = match object.progs().next() {
            Some(program) => program.as_fd().try_clone_to_owned()?,
            None => return Err(std::io::Error::from_raw_os_error(libc::ENOENT).into()),
        };
        let maps = object
            .maps()
            .map(|map| Ok((map.name().to_string_lossy().into_owned(), MapHandle::try_from(&map)?)))
            .collect::<libbpf_rs::Result<_>>()?;
        Ok(Self { name, id: Program::id_from_fd(program.as_fd())?, program, maps })
    }

    /// What the program is called in errors.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The kernel's number of the program.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The map of that name.
    pub(super) fn map(&self, map: &'static str) -> Result<&MapHandle, ProgramError> {
        self.maps.get(map).ok_or(ProgramError::NoMap { program: self.name, map })
    }
}

impl AsFd for Loaded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
