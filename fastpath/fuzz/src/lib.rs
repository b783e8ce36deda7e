//! Hostile input for every parser and for the whole packet path.
//!
//! A target is a function of bytes that panics where something is wrong that must never be. The
//! same functions are called by libFuzzer (`scripts/fuzz`) and, from a kept corpus and with mutations
//! that are the same each time, by the test `replay`. In the order of use:
//! - [`mutate`]: how an input becomes another;
//! - [`wire`]: headers, and what comes out of tunnels; [`slow`]: the slow path's machines, one packet
//!   after the other;
//! - [`saved`]: what arrives in protobuf, from the agent and from disk; [`documents`]: what people
//!   write; [`takeover`]: a flow table that a dead process left;
//! - [`path`]: programs of packets through engine and slow path of a whole node, and what holds of
//!   everything that leaves it;
//! - [`support`]: the node of the engine's tests, its packets and checksums.

pub mod mutate;

pub mod wire;
pub mod slow;
pub mod saved;
#[cfg(feature = "control")]
pub mod documents;
pub mod takeover;
pub mod path;

#[allow(missing_docs, reason = "a module of tests that are documented where they are")]
#[path = "../../engine/tests/support/mod.rs"]
pub mod support;

/// One function of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Panics where something is wrong.
    pub run: fn(&[u8]),
    /// Bytes that mutations move, repeat and exchange as one: 1 where the input has no such parts.
    pub grain: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", run: wire::run, grain: 1 },
    Target { name: "arp_nd", run: slow::arp_nd, grain: 1 },
    Target { name: "fragments", run: slow::fragments, grain: slow::PIECE },
    Target { name: "icmp_errors", run: slow::icmp_errors, grain: 1 },
    Target { name: "dns", run: slow::dns, grain: 1 },
    Target { name: "updates", run: saved::updates, grain: 1 },
    Target { name: "state", run: saved::state, grain: 1 },
    #[cfg(feature = "control")]
    Target { name: "documents", run: documents::documents, grain: 1 },
    #[cfg(feature = "control")]
    Target { name: "cni_config", run: documents::cni_config, grain: 1 },
    #[cfg(feature = "control")]
    Target { name: "cni_request", run: documents::cni_request, grain: 1 },
    Target { name: "takeover", run: takeover::run, grain: takeover::GRAIN },
    Target { name: "path", run: path::run, grain: path::RECORD },
];

/// The target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
