//! Which blocks belong to whom, and how that changes.
//!
//! An affinity is written in two phases, so that whoever dies in between leaves nothing that two
//! nodes could believe in:
//! - claiming: affinity `pending` → block created for the owner → affinity `confirmed`;
//! - releasing: affinity `pendingDeletion` → block removed, or left without owner → affinity
//!   removed.
//!
//! The block decides: an affinity without a block of the same owner means nothing. Whoever takes a
//! pending affinity up again writes the block first, so that a slow releaser's compare-and-swap on
//! the block fails.

use ipnet::IpNet;
use margay_datastore as datastore;
use margay_resources::v3::BlockAffinitySpec;
use serde_json::Value;

use crate::Ipam;
use crate::block::Block;
use crate::error::{Error, RETRIES, pause};
use crate::names::{self, Owner};
use crate::pool::{Family, Pool};
use crate::records::{CONFIRMED, PENDING, PENDING_DELETION, Stored, StoredBlock};

/// An affinity as it is stored.
pub(crate) type StoredAffinity = Stored<BlockAffinitySpec>;

// === impl Ipam ===

impl Ipam {
    /// The affinities of an owner in one family, in whatever state, in the order of the blocks.
    pub(crate) async fn affinities(
        &self,
        owner: &Owner,
        family: Option<Family>,
    ) -> Result<Vec<(IpNet, StoredAffinity)>, Error> {
        let mut found = Vec::new();
        for affinity in self.records.list::<BlockAffinitySpec>().await? {
            let Ok(cidr) = affinity.spec.cidr.parse::<IpNet>() else { continue };
            let of_owner = owner_of(&affinity.spec) == *owner;
            if of_owner && family.is_none_or(|family| family == Family::of(cidr)) {
                found.push((cidr, affinity));
            }
        }
        found.sort_by_key(|(cidr, _)| *cidr);
        Ok(found)
    }

    /// The block of an affinity, made sure of: claimed if it is missing, confirmed if it was
    /// pending. Nothing if it belongs to somebody else; the affinity is removed then.
    pub(crate) async fn block_of_affinity(
        &self,
        owner: &Owner,
        cidr: IpNet,
        affinity: StoredAffinity,
    ) -> Result<Option<StoredBlock>, Error> {
        let Some(stored) = self.records.block(cidr).await? else {
            return self.claim(owner, cidr).await;
        };
        if !stored.belongs_to(owner) || stored.block.is_being_deleted() {
            if !stored.block.is_being_deleted() {
                accept_race(self.records.delete(&affinity).await)?;
            }
            return Ok(None);
        }
        if affinity.spec.state == CONFIRMED || affinity.spec.state.is_empty() {
            return Ok(Some(stored));
        }
        let pending = self.set_state(affinity, PENDING).await?;
        let Some(pending) = pending else { return Ok(None) };
        let Some(stored) = accept_race(self.records.update_block(&stored).await)? else {
            return Ok(None);
        };
        let confirmed = self.set_state(pending, CONFIRMED).await?;
        Ok(confirmed.map(|_| stored))
    }

    /// Claims a block. Nothing if somebody else was faster, or has it.
    pub(crate) async fn claim(
        &self,
        owner: &Owner,
        cidr: IpNet,
    ) -> Result<Option<StoredBlock>, Error> {
        let Some(pending) = self.pend(owner, cidr).await? else { return Ok(None) };
        let block = Block::new(cidr, owner, self.now());
        let (name, spec) = (names::block(cidr), block.to_spec());
        let stored = match self.records.create(&name, spec).await {
            Ok(record) => StoredBlock::new(record)?,
            Err(datastore::Error::AlreadyExists(_)) => match self.records.block(cidr).await? {
                // Made by ourselves earlier, or by another task of this node.
                Some(stored) if stored.belongs_to(owner) => {
                    match accept_race(self.records.update_block(&stored).await)? {
                        Some(stored) => stored,
                        None => return Ok(None),
                    }
                }
                _ => {
                    accept_race(self.records.delete(&pending).await)?;
                    return Ok(None);
                }
            },
            Err(error) => return Err(error.into()),
        };
        let confirmed = self.set_state(pending, CONFIRMED).await?;
        Ok(confirmed.map(|_| stored))
    }

    /// Writes a pending affinity, or makes the one that is there pending. Nothing if another
    /// writer comes between.
    async fn pend(&self, owner: &Owner, cidr: IpNet) -> Result<Option<StoredAffinity>, Error> {
        let name = names::affinity(owner, cidr);
        let spec = BlockAffinitySpec {
            state: PENDING.to_owned(),
            node: owner.name().to_owned(),
            kind: owner.kind().to_owned(),
            cidr: cidr.to_string(),
            // A text, as older readers expect.
            deleted: Value::from("false"),
        };
        match self.records.create(&name, spec).await {
            Ok(affinity) => Ok(Some(affinity)),
            Err(datastore::Error::AlreadyExists(_)) => match self.records.get(&name).await? {
                Some(affinity) => self.set_state(affinity, PENDING).await,
                None => Ok(None),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Nothing if somebody else changed it first.
    async fn set_state(
        &self,
        mut affinity: StoredAffinity,
        state: &str,
    ) -> Result<Option<StoredAffinity>, Error> {
        affinity.spec.state = state.to_owned();
        accept_race(self.records.update(affinity).await)
    }

    /// A block of the pools that is nobody's, claimed. Nothing if there is none left.
    pub(crate) async fn claim_any(
        &self,
        owner: &Owner,
        pools: &[Pool],
        reserved: &[IpNet],
    ) -> Result<Option<StoredBlock>, Error> {
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let existing = self.records.block_networks().await?;
            let mut candidates =
                pools.iter().filter_map(|pool| free_block(pool, owner, &existing, reserved));
            let Some(cidr) = candidates.next() else { return Ok(None) };
            if let Some(stored) = self.claim(owner, cidr).await? {
                return Ok(Some(stored));
            }
        }
        Err(Error::Contended(format!("the free blocks for {owner}")))
    }

    /// Takes a block away from its owner: removed if it is empty, else left without owner.
    ///
    /// # Errors
    /// `NotEmpty` if it has to be empty and is not.
    pub async fn release_affinity(
        &self,
        owner: &Owner,
        cidr: IpNet,
        must_be_empty: bool,
    ) -> Result<(), Error> {
        for attempt in 0..RETRIES {
            pause(attempt).await;
            if self.try_release_affinity(owner, cidr, must_be_empty).await?.is_some() {
                return Ok(());
            }
        }
        Err(Error::Contended(format!("the affinity of {cidr} to {owner}")))
    }

    /// Nothing if somebody else came between.
    async fn try_release_affinity(
        &self,
        owner: &Owner,
        cidr: IpNet,
        must_be_empty: bool,
    ) -> Result<Option<()>, Error> {
        let affinity = self.records.get(&names::affinity(owner, cidr)).await?;
        let stored = self.records.block(cidr).await?.filter(|stored| stored.belongs_to(owner));
        if must_be_empty && stored.as_ref().is_some_and(|stored| !stored.block.is_empty()) {
            return Err(Error::NotEmpty(cidr));
        }
        let affinity = match affinity {
            Some(affinity) => match self.set_state(affinity, PENDING_DELETION).await? {
                Some(affinity) => Some(affinity),
                None => return Ok(None),
            },
            None => None,
        };
        if let Some(mut stored) = stored {
            let written = if stored.block.is_empty() {
                self.records.delete_block(&stored).await
            } else {
                stored.block.set_owner(None, self.now());
                self.records.update_block(&stored).await.map(drop)
            };
            if accept_race(written)?.is_none() {
                return Ok(None);
            }
        }
        match affinity {
            Some(affinity) => accept_race(self.records.delete(&affinity).await),
            None => Ok(Some(())),
        }
    }
}

pub(crate) fn owner_of(affinity: &BlockAffinitySpec) -> Owner {
    Owner::of_parts(&affinity.kind, &affinity.node)
}

/// The first free block of a pool, beginning at a place that follows from the owner's name, so
/// that nodes that start together do not all want the same one.
fn free_block(pool: &Pool, owner: &Owner, existing: &[IpNet], reserved: &[IpNet]) -> Option<IpNet> {
    let count = 1_u128 << u32::from(pool.block_length - pool.cidr.prefix_len()).min(127);
    let begin = u128::from(hash(&owner.to_string())) % count;
    let length = u32::from(pool.cidr.max_prefix_len() - pool.block_length);
    let is_free = |cidr: &IpNet| {
        // A block of another size may overlap: the pool may have been made anew.
        let overlaps = |other: &IpNet| other.contains(cidr) || cidr.contains(other);
        !existing.iter().any(overlaps) && !reserved.iter().any(|net| net.contains(cidr))
    };
    let block_at = |number: u128| {
        let offset = number.checked_shl(length).unwrap_or(0);
        names::net_of(names::address_at(pool.cidr, offset), pool.block_length)
    };
    // A huge pool of which a large part is reserved is not searched for ever.
    const MOST: u128 = 1 << 20;
    (0..count.min(MOST)).filter_map(|step| block_at((begin + step) % count)).find(is_free)
}

/// FNV-1a with 32 bits: the same on every node and in every version.
pub(crate) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Turns "somebody else was first" into nothing.
pub(crate) fn accept_race<T>(result: Result<T, datastore::Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_race() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str, size: i64) -> Pool {
        let spec = serde_json::json!({"cidr": cidr, "blockSize": size});
        Pool::new("p", serde_json::from_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn every_block_of_a_pool_is_found_once_and_then_none() {
        let (pool, owner) = (pool("10.0.0.0/24", 26), Owner::host("n"));
        let mut existing = Vec::new();
        while let Some(cidr) = free_block(&pool, &owner, &existing, &[]) {
            assert!(!existing.contains(&cidr) && pool.cidr.contains(&cidr));
            existing.push(cidr);
        }
        assert_eq!(existing.len(), 4);
    }

    #[test]
    fn overlapping_and_reserved_blocks_are_not_free() {
        let owner = Owner::host("n");
        let larger = ["10.0.0.0/25".parse().unwrap()];
        let reserved = ["10.0.0.128/26".parse().unwrap()];
        let free = free_block(&pool("10.0.0.0/24", 26), &owner, &larger, &reserved);
        assert_eq!(free, Some("10.0.0.192/26".parse().unwrap()));
    }

    #[test]
    fn huge_pools_of_ipv6_have_blocks_too() {
        let pool = pool("fd00::/16", 122);
        let cidr = free_block(&pool, &Owner::host("n"), &[], &[]).unwrap();
        assert!(pool.cidr.contains(&cidr) && cidr.prefix_len() == 122);
    }
}
