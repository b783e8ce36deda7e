//! `portless.h`: exchanges by protocols with neither ports nor identifiers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{ErrorKind, MapCore, MapFlags};

use super::{
    ProgramError,
    object::{Loaded, mapped},
};

pub(super) const EXCHANGES: &str = "exchanges";
const KERNELS: &str = "kernels";

/// Entries of the map.
const ROOM: usize = 1 << 14;

/// What two ends say to each other by a protocol without ports. Both addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exchange {
    /// IP protocol number: none with ports, and neither ICMP.
    pub protocol: u8,
    /// The node's address.
    pub near: IpAddr,
    /// The other end's.
    pub far: IpAddr,
}

/// The exchanges that pods have in the node's name.
#[derive(Debug, Default)]
pub(super) struct Exchanges(Mutex<BTreeSet<Exchange>>);

// === impl Exchange ===

impl Exchange {
    /// `struct exchange` of the programs.
    fn to_bytes(self) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..16].copy_from_slice(&mapped(self.near));
        bytes[16..32].copy_from_slice(&mapped(self.far));
        bytes[32..].copy_from_slice(&u32::from(self.protocol).to_ne_bytes());
        bytes
    }
}

// === impl Exchanges ===

impl Exchanges {
    pub(super) fn claim(
        &self,
        loaded: &Loaded,
        exchange: Exchange,
        since: u64,
    ) -> Result<bool, ProgramError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains(&exchange) {
            return Ok(true);
        }
        if held.len() >= ROOM {
            return Ok(false);
        }
        let key = exchange.to_bytes();
        let spoke = loaded.map(KERNELS)?.lookup(&key, MapFlags::ANY).map_err(failed(KERNELS))?;
        let spoke = spoke.and_then(|time| time.try_into().ok()).map(u64::from_ne_bytes);
        if spoke.is_some_and(|spoke| spoke >= since) {
            return Ok(false);
        }
        let map = loaded.map(EXCHANGES)?;
        map.update(&key, &[1], MapFlags::ANY).map_err(failed(EXCHANGES))?;
        Ok(held.insert(exchange))
    }

    pub(super) fn release(
        &self,
        loaded: &Loaded,
        mut lives: impl FnMut(&Exchange) -> bool,
    ) -> Result<(), ProgramError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<_> = held.iter().filter(|exchange| !lives(exchange)).copied().collect();
        for exchange in over {
            match loaded.map(EXCHANGES)?.delete(&exchange.to_bytes()) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed(EXCHANGES)(error));
                }
                _ => held.remove(&exchange),
            };
        }
        Ok(())
    }
}

fn failed(map: &'static str) -> impl Fn(libbpf_rs::Error) -> ProgramError {
    move |source| ProgramError::Map { program: "hostflow", map, source }
}
