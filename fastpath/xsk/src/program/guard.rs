//! `guard.h`: what the programs of an uplink let through by themselves though it has a host endpoint.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags};

use super::{
    ProgramError,
    object::{Loaded, mapped},
};

const FAILSAFES: &str = "failsafes";
/// The map that the programs of both ways share: connections of such ports.
pub(super) const SAFE_FLOWS: &str = "safe_flows";

/// A port that no policy can close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePort {
    /// IP protocol number; of a protocol with ports.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
    /// Where the far end is; `None` for anywhere.
    pub net: Option<IpNet>,
}

// === impl SafePort ===

impl SafePort {
    /// `struct failsafe` of the programs. Without a network one for each family.
    fn keys(self) -> Vec<[u8; 24]> {
        const BEFORE: u32 = 32;
        let key = |is_v6: bool, far: IpAddr, length: u32| {
            let mut bytes = [0; 24];
            bytes[..4].copy_from_slice(&(BEFORE + length).to_ne_bytes());
            bytes[4..6].copy_from_slice(&self.port.to_be_bytes());
            (bytes[6], bytes[7]) = (self.protocol, u8::from(is_v6));
            bytes[8..].copy_from_slice(&mapped(far));
            bytes
        };
        let any = IpAddr::from([0u8; 16]);
        match self.net {
            None => vec![key(false, any, 0), key(true, any, 0)],
            Some(net) => {
                let is_v6 = matches!(net, IpNet::V6(_));
                let before = if is_v6 { 0 } else { 96 };
                vec![key(is_v6, net.trunc().addr(), before + u32::from(net.prefix_len()))]
            }
        }
    }
}

/// Replaces the ports that a program lets through; `known` is what it has. New ones come before old
/// ones go, and with an old one go all connections that the programs had let through.
pub(super) fn set_failsafes(
    loaded: &Loaded,
    known: &mut BTreeSet<[u8; 24]>,
    wanted: &BTreeSet<SafePort>,
) -> Result<(), ProgramError> {
    let failed = |map| {
        let program = loaded.name();
        move |source| ProgramError::Map { program, map, source }
    };
    let map = loaded.map(FAILSAFES)?;
    let wanted: BTreeSet<_> = wanted.iter().flat_map(|port| port.keys()).collect();
    for key in &wanted {
        if !known.contains(key) {
            map.update(key, &[1], MapFlags::ANY).map_err(failed(FAILSAFES))?;
            known.insert(*key);
        }
    }
    let old: Vec<_> = known.difference(&wanted).copied().collect();
    for key in &old {
        map.delete(key).map_err(failed(FAILSAFES))?;
        known.remove(key);
    }
    if !old.is_empty() {
        let flows = loaded.map(SAFE_FLOWS)?;
        for key in flows.keys().collect::<Vec<_>>() {
            // The kernel forgets by itself, too.
            let _ = flows.delete(&key);
        }
    }
    Ok(())
}
