//! `shortcut.h`, a part of `pod.bpf.c` and `inward.bpf.c`, and `admit.h`, a part of `uplink.bpf.c`: TCP
//! and UDP from and to pods past the workers.

use std::{net::SocketAddr, sync::Arc};

use libbpf_rs::{ErrorKind, MapCore, MapFlags};

use super::{
    ProgramError,
    object::{Loaded, mapped},
};

const PASSAGES: &str = "passages";
const PORT_COUNTS: &str = "port_counts";
const GENERATION: &str = "generation";
const LOST: &str = "lost";

/// One direction of a connection of TCP or UDP, as its packets come out of a pod or in by an uplink.
/// Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Passage {
    /// Where its packets come from.
    pub source: SocketAddr,
    /// Where they go.
    pub destination: SocketAddr,
    /// TCP's number or UDP's.
    pub protocol: u8,
    /// The host end of the pod's veth, or the uplink.
    pub ifindex: u32,
}

/// What stands before an IP packet, from the Ethernet header on: that alone, an IPv4 header too
/// (RFC 2003), or VXLAN over IPv4 (RFC 7348).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    bytes: [u8; Self::MOST],
    length: u8,
}

/// What the program is to do with a passage's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// It holds while this is the generation in force; not 0.
    pub generation: u32,
    /// The host end of the receiving pod's veth, or the uplink.
    pub ifindex: u32,
    /// Whether it is an uplink.
    pub to_uplink: bool,
    /// What its packets leave behind. What depends on the packet is filled in.
    pub cover: Cover,
    /// What its packets must come behind, from an uplink: whatever does not depend on the packet, but
    /// for the Ethernet source. `None` where they come from a pod.
    pub expected: Option<Cover>,
    /// What the identification of a packet's outer header differs from its own by.
    pub identification: u16,
    /// The largest IP packet that may leave, without what is put around it, in bytes.
    pub mtu: u16,
    /// Number of the port that the packets come by, for [`Shortcut::port`].
    pub from: u16,
    /// Number of the port that they leave by.
    pub to: u16,
    /// Source and destination that its packets leave with, where those are others.
    pub translated: Option<(SocketAddr, SocketAddr)>,
}

/// What a passage has moved, and whether it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Segments; a super-frame counts as those that it would be cut into.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
    /// The generation that it was approved for; 0 once a SYN, FIN or RST was seen.
    pub generation: u32,
}

/// The maps of the shortcut. They live as long as its programs are loaded; all methods may be called
/// from any thread.
#[derive(Clone, Debug)]
pub struct Shortcut {
    loaded: Arc<Loaded>,
    inward: Arc<Loaded>,
}

// === impl Passage ===

impl Passage {
    /// `struct passage_key` of the program.
    fn to_bytes(self) -> [u8; 44] {
        let mut bytes = [0; 44];
        bytes[..16].copy_from_slice(&mapped(self.source.ip()));
        bytes[16..32].copy_from_slice(&mapped(self.destination.ip()));
        bytes[32..34].copy_from_slice(&self.source.port().to_be_bytes());
        bytes[34..36].copy_from_slice(&self.destination.port().to_be_bytes());
        bytes[36..40].copy_from_slice(&self.ifindex.to_ne_bytes());
        let family: u16 = if self.source.is_ipv4() { 4 } else { 6 };
        bytes[40..42].copy_from_slice(&family.to_ne_bytes());
        bytes[42..].copy_from_slice(&u16::from(self.protocol).to_ne_bytes());
        bytes
    }
}

// === impl Cover ===

impl Cover {
    /// Bytes before a packet within VXLAN over IPv4.
    const MOST: usize = 64;
    const LENGTHS: [usize; 3] = [14, 34, Self::MOST];

    /// The headers; `None` for a length that is none of the three's.
    pub fn new(headers: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MOST];
        if !Self::LENGTHS.contains(&headers.len()) {
            return None;
        }
        bytes.get_mut(..headers.len())?.copy_from_slice(headers);
        Some(Self { bytes, length: headers.len() as u8 })
    }
}

// === impl Approval ===

impl Approval {
    /// `struct passage` of the program, with nothing moved yet.
    fn to_bytes(self) -> [u8; 208] {
        const TRANSLATED: u32 = 1;
        const TO_UPLINK: u32 = 2;
        let mut bytes = [0; 208];
        bytes[16..20].copy_from_slice(&self.generation.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[24..26].copy_from_slice(&self.from.to_ne_bytes());
        bytes[26..28].copy_from_slice(&self.to.to_ne_bytes());
        bytes[28..30].copy_from_slice(&self.mtu.to_ne_bytes());
        bytes[30] = self.cover.length;
        let mut flags = if self.to_uplink { TO_UPLINK } else { 0 };
        if let Some((source, destination)) = self.translated {
            bytes[32..34].copy_from_slice(&source.port().to_be_bytes());
            bytes[34..36].copy_from_slice(&destination.port().to_be_bytes());
            flags |= TRANSLATED;
            bytes[40..56].copy_from_slice(&mapped(source.ip()));
            bytes[56..72].copy_from_slice(&mapped(destination.ip()));
        }
        bytes[36..40].copy_from_slice(&flags.to_ne_bytes());
        bytes[72..136].copy_from_slice(&self.cover.bytes);
        if let Some(expected) = self.expected {
            bytes[31] = expected.length;
            bytes[136..200].copy_from_slice(&expected.bytes);
        }
        bytes[200..202].copy_from_slice(&self.identification.to_be_bytes());
        bytes
    }
}

// === impl Moved ===

impl Moved {
    fn from_bytes(bytes: &[u8]) -> Self {
        Self { packets: word(bytes, 0), bytes: word(bytes, 8), generation: half(bytes, 16) }
    }
}

// === impl Shortcut ===

impl Shortcut {
    /// Passages that can be approved at one time.
    pub const PASSAGES: usize = 4096;
    /// Ports that are counted by themselves; those with higher numbers share the last counters.
    pub const PORTS: u32 = 4096;

    /// The maps that other programs share.
    pub(super) const MAPS: [&'static str; 3] = [PASSAGES, PORT_COUNTS, GENERATION];

    pub(super) fn new(loaded: Arc<Loaded>, inward: Arc<Loaded>) -> Self {
        Self { loaded, inward }
    }

    /// Puts a generation in force: approvals for any other are void from now on. With 0, as after
    /// loading, there is no shortcut.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn set_generation(&self, generation: u32) -> Result<(), ProgramError> {
        let map = self.loaded.map(GENERATION)?;
        let done = map.update(&0u32.to_ne_bytes(), &generation.to_ne_bytes(), MapFlags::ANY);
        done.map_err(failed(GENERATION))
    }

    /// Opens a passage; `false` if there is one already, open or not, which stays as it is.
    ///
    /// # Errors
    /// [`ProgramError::Map`], also where there are [`Shortcut::PASSAGES`].
    pub fn approve(&self, passage: Passage, approval: Approval) -> Result<bool, ProgramError> {
        let map = self.loaded.map(PASSAGES)?;
        match map.update(&passage.to_bytes(), &approval.to_bytes(), MapFlags::NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(PASSAGES)(error)),
        }
    }

    /// What a passage has moved so far; `None` where there is none.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn moved(&self, passage: Passage) -> Result<Option<Moved>, ProgramError> {
        let found = self.loaded.map(PASSAGES)?.lookup(&passage.to_bytes(), MapFlags::ANY);
        let found = found.map_err(failed(PASSAGES))?;
        Ok(found.map(|bytes| Moved::from_bytes(&bytes)))
    }

    /// Closes a passage and says what it has moved in all. What an open one moves at this very
    /// moment may be missing.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn close(&self, passage: Passage) -> Result<Option<Moved>, ProgramError> {
        let found = self.loaded.map(PASSAGES)?.lookup_and_delete(&passage.to_bytes());
        let found = found.map_err(failed(PASSAGES))?;
        Ok(found.map(|bytes| Moved::from_bytes(&bytes)))
    }

    /// Segments that came by an uplink and had lost their passage when they were to take it. They are
    /// counted as received.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn lost(&self) -> Result<u64, ProgramError> {
        let found = self.inward.map(LOST)?.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY);
        let cpus = found.map_err(failed(LOST))?.unwrap_or_default();
        Ok(cpus.iter().map(|count| word(count, 0)).sum())
    }

    /// What all passages have ever moved into (first) and out of the dataplane at a port: segments,
    /// and bytes of their Ethernet frames.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn port(&self, port: u16) -> Result<[(u64, u64); 2], ProgramError> {
        let slot = u32::from(port).min(Self::PORTS - 1).to_ne_bytes();
        let found = self.loaded.map(PORT_COUNTS)?.lookup_percpu(&slot, MapFlags::ANY);
        let cpus = found.map_err(failed(PORT_COUNTS))?.unwrap_or_default();
        Ok(cpus.iter().fold([(0, 0); 2], |[received, sent], count| {
            [
                (received.0 + word(count, 0), received.1 + word(count, 8)),
                (sent.0 + word(count, 16), sent.1 + word(count, 24)),
            ]
        }))
    }
}

fn failed(map: &'static str) -> impl Fn(libbpf_rs::Error) -> ProgramError {
    move |source| ProgramError::Map { program: "pod", map, source }
}

/// The number at an offset of a value of the kernel's; 0 beyond its end.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_ne_bytes)
}

/// The same with four bytes.
fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_ne_bytes)
}
