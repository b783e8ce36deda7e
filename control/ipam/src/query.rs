//! What `margayctl ipam show` shows.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::Ipam;
use crate::block::Allocation;
use crate::error::Error;
use crate::names::{self, Owner};
use crate::records::StoredBlock;

/// How full the pools are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The pools, by name.
    pub pools: Vec<PoolUsage>,
    /// Blocks that lie in no pool.
    pub orphans: Vec<BlockUsage>,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolUsage {
    /// Name.
    pub name: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// How many there are.
    pub size: u128,
    /// How many are in use.
    pub used: u128,
    /// How many are free.
    pub free: u128,
    /// Its blocks, in the order of their addresses.
    pub blocks: Vec<BlockUsage>,
}

/// How full a block is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockUsage {
    /// Its addresses.
    pub cidr: IpNet,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// How many addresses there are.
    pub size: usize,
    /// How many are in use.
    pub used: usize,
    /// How many are free.
    pub free: usize,
}

/// What is known about an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum AddressState {
    /// It lies in no pool and no block.
    Outside,
    /// It is free.
    Free {
        /// Nobody gets it unless asked for: an IPReservation covers it.
        reserved: bool,
    },
    /// It is in use.
    InUse(Allocation),
}

// === impl Ipam ===

impl Ipam {
    /// How full the pools and their blocks are.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let mut pools: Vec<PoolUsage> = Vec::new();
        for pool in self.records.pools().await? {
            let size = names::size(pool.cidr);
            let blocks = Vec::new();
            pools.push(PoolUsage {
                name: pool.name,
                cidr: pool.cidr,
                size,
                used: 0,
                free: size,
                blocks,
            });
        }
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        let mut orphans = Vec::new();
        for stored in self.records.blocks().await? {
            let usage = BlockUsage::of(&stored);
            match pools.iter_mut().find(|pool| pool.cidr.contains(&usage.cidr)) {
                Some(pool) => {
                    pool.used += usage.used as u128;
                    pool.free = pool.size.saturating_sub(pool.used);
                    pool.blocks.push(usage);
                }
                None => orphans.push(usage),
            }
        }
        Ok(Usage { pools, orphans })
    }

    /// What is known about one address.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn address(&self, ip: IpAddr) -> Result<AddressState, Error> {
        let block = self.block_holding(ip).await?;
        if let Some(allocation) = block.as_ref().and_then(|stored| stored.block.allocation(ip)) {
            return Ok(AddressState::InUse(allocation));
        }
        let in_pool = self.records.pools().await?.iter().any(|pool| pool.cidr.contains(&ip));
        if block.is_none() && !in_pool {
            return Ok(AddressState::Outside);
        }
        let reserved = self.records.reservations().await?.iter().any(|net| net.contains(&ip));
        Ok(AddressState::Free { reserved })
    }

    /// Addresses that a node uses out of a block that is not its own.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn borrowed(&self) -> Result<Vec<Allocation>, Error> {
        let mut allocations = self.allocations().await?;
        allocations.retain(|allocation| {
            let user = allocation.attributes.get("node");
            user.is_some_and(|node| allocation.owner != Some(Owner::host(node)))
        });
        Ok(allocations)
    }
}

// === impl BlockUsage ===

impl BlockUsage {
    fn of(stored: &StoredBlock) -> Self {
        let block = &stored.block;
        let (size, free) = (block.size(), block.free());
        Self { cidr: block.cidr(), owner: block.owner(), size, used: size - free, free }
    }
}
