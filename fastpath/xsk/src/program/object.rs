//! Loading: an object file, its one program, its maps by name.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Once,
};

use libbpf_rs::{
    MapCore, MapHandle, ObjectBuilder, OpenMapMut, OpenObject, PrintLevel, Program, set_print,
};

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

    /// Loads an object file whose program knows the trunk: a `__u32` in `.rodata.trunk`.
    pub(super) fn load_with_trunk(
        name: &'static str,
        object_file: &[u8],
        ifindex: u32,
    ) -> Result<Self, ProgramError> {
        Self::load_with_constant(name, object_file, ".rodata.trunk", &ifindex.to_ne_bytes())
    }

    /// Loads an object file with a constant, which is alone in a section of its own.
    pub(super) fn load_with_constant(
        name: &'static str,
        object_file: &[u8],
        section: &str,
        value: &[u8],
    ) -> Result<Self, ProgramError> {
        Self::load_with(name, object_file, &[(section, value)], &[], |_| ())
    }

    /// Loads an object file with constants, each alone in a section of its own, that shares maps with
    /// programs that are there; `prepare` may set more.
    pub(super) fn load_with(
        name: &'static str,
        object_file: &[u8],
        constants: &[(&str, &[u8])],
        shared: &[(&'static str, &Loaded)],
        prepare: impl FnOnce(&mut OpenObject),
    ) -> Result<Self, ProgramError> {
        let shared = (shared.iter())
            .map(|(map, with)| Ok((*map, with.map(map)?)))
            .collect::<Result<Vec<_>, ProgramError>>()?;
        Self::load(name, object_file, |open| {
            for (section, value) in constants {
                own_map(open, section)?.set_initial_value(value)?;
            }
            for (map, with) in shared {
                own_map(open, map)?.reuse_fd(with.as_fd())?;
            }
            prepare(open);
            Ok(())
        })
    }

    fn try_load(
        name: &'static str,
        object_file: &[u8],
        prepare: impl FnOnce(&mut OpenObject) -> libbpf_rs::Result<()>,
    ) -> libbpf_rs::Result<Self> {
        log_by_tracing();
        let mut open = ObjectBuilder::default().name(name)?.open_memory(object_file)?;
        prepare(&mut open)?;
        let object = open.load()?;
        let program = match object.progs().next() {
            Some(program) => program.as_fd().try_clone_to_owned()?,
            None => return Err(io::Error::from_raw_os_error(libc::ENOENT).into()),
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

/// The map of that name of an object that is not loaded yet.
fn own_map<'o>(open: &'o mut OpenObject, name: &str) -> libbpf_rs::Result<OpenMapMut<'o>> {
    let found = open.maps_mut().find(|map| map.name() == OsStr::new(name));
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT).into())
}

/// An address as the programs keep it: 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2).
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What libbpf has to say goes to the log, not to standard error. Nothing of it is above debug: what
/// matters comes back as an error, and it warns of what is none (a qdisc that exists already).
fn log_by_tracing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_print(Some((PrintLevel::Info, |_, text| tracing::debug!("{}", text.trim_end()))));
    });
}
