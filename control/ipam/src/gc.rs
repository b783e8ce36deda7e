//! What nobody gave back.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use ipnet::IpNet;
use margay_resources::v3::IpamHandleSpec;

use crate::Ipam;
use crate::affinity::accept_race;
use crate::block::Allocation;
use crate::error::Error;
use crate::names::Owner;
use crate::pool::Family;
use crate::records::Stored;
use crate::release::Release;

/// A block is not taken from its owner so soon after it was claimed: an assignment may be under way.
const SETTLING: Duration = Duration::from_secs(60);

// === impl Ipam ===

impl Ipam {
    /// Every address in use, in order.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn allocations(&self) -> Result<Vec<Allocation>, Error> {
        let blocks = self.records.blocks().await?;
        Ok(blocks.iter().flat_map(|stored| stored.block.allocations()).collect())
    }

    /// Gives back the addresses of a node's containers in a network, but for those under handles
    /// to be kept. Tunnel addresses and other networks stay. Goes on after an error.
    ///
    /// # Errors
    /// The first error; the other addresses are given back all the same.
    pub async fn release_handles_except(
        &self,
        node: &str,
        network: &str,
        keep: &HashSet<String>,
    ) -> Result<Vec<Allocation>, Error> {
        let prefix = format!("{network}.");
        self.release_if(|allocation| {
            let handle = allocation.handle.as_deref().unwrap_or_default();
            let of_node = allocation.attributes.get("node").is_some_and(|of| of == node);
            of_node && handle.starts_with(&prefix) && !keep.contains(handle)
        })
        .await
    }

    /// Gives back every address that `is_garbage`, unless it was assigned anew in the meantime.
    ///
    /// # Errors
    /// As [`Ipam::release_handles_except`].
    pub async fn release_if(
        &self,
        is_garbage: impl Fn(&Allocation) -> bool,
    ) -> Result<Vec<Allocation>, Error> {
        let (mut released, mut failure) = (Vec::new(), Ok(()));
        for allocation in self.allocations().await?.iter().filter(|a| is_garbage(a)) {
            let Allocation { ip, handle, sequence, .. } = allocation;
            let release = Release { ip: *ip, handle: handle.as_deref(), sequence: Some(*sequence) };
            match self.release_ips(&[release]).await {
                Ok(done) => released.extend(done.released),
                // Given back and assigned anew: no garbage any more.
                Err(Error::WrongHandle { .. } | Error::WrongSequence(_)) => {}
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        failure.map(|()| released)
    }

    /// Gives back everything of a node that is gone: its addresses, also those it had borrowed, and
    /// its blocks. Addresses that others borrowed from it stay.
    ///
    /// # Errors
    /// Those of the datastore; calling it again goes on where it ended.
    pub async fn release_node(&self, node: &str) -> Result<Vec<Allocation>, Error> {
        let is_of_node = |a: &Allocation| a.attributes.get("node").is_some_and(|of| of == node);
        let released = self.release_if(is_of_node).await?;
        let owner = Owner::host(node);
        for (cidr, _) in self.affinities(&owner, None).await? {
            self.release_affinity(&owner, cidr, false).await?;
        }
        Ok(released)
    }

    /// Gives up the owner's empty blocks: all that lie in no enabled pool, and of the others all
    /// but one of each family. Those claimed within the last minute stay.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn release_empty_blocks(&self, owner: &Owner) -> Result<Vec<IpNet>, Error> {
        let pools = self.records.pools().await?;
        let in_pool =
            |cidr: &IpNet| pools.iter().any(|pool| !pool.spec.disabled && pool.cidr.contains(cidr));
        let mut empty = Vec::new();
        let mut left: BTreeMap<Family, usize> = BTreeMap::new();
        for stored in self.records.blocks().await?.iter().filter(|s| s.belongs_to(owner)) {
            let cidr = stored.block.cidr();
            let claimed = stored.block.claimed_at();
            let is_settled =
                claimed.is_none_or(|at| self.now().duration_since(at).unsigned_abs() > SETTLING);
            if stored.block.is_empty() && is_settled {
                empty.push(cidr);
            }
            *left.entry(Family::of(cidr)).or_default() += usize::from(in_pool(&cidr));
        }
        let mut released = Vec::new();
        for cidr in empty {
            let left = left.entry(Family::of(cidr)).or_default();
            if in_pool(&cidr) && *left == 1 {
                continue;
            }
            match self.release_affinity(owner, cidr, true).await {
                Ok(()) => {
                    *left -= usize::from(in_pool(&cidr));
                    released.push(cidr);
                }
                // Taken into use in the meantime.
                Err(Error::NotEmpty(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(released)
    }

    /// Removes handles that name blocks in which they have nothing: left by a process that died
    /// between counting and assigning.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn sweep_handles(&self) -> Result<usize, Error> {
        let used: HashSet<String> =
            self.allocations().await?.into_iter().filter_map(|a| a.handle).collect();
        let mut swept = 0;
        for record in self.records.list::<IpamHandleSpec>().await? {
            if !used.contains(&record.spec.handle_id) {
                swept += usize::from(self.sweep_handle(record).await?);
            }
        }
        Ok(swept)
    }

    /// As in [`Ipam::release_by_handle`] the blocks are written first, so that an assignment that is
    /// under way finds out and counts again.
    async fn sweep_handle(&self, record: Stored<IpamHandleSpec>) -> Result<bool, Error> {
        for cidr in record.spec.block.keys().filter_map(|cidr| cidr.parse().ok()) {
            let Some(stored) = self.records.block(cidr).await? else { continue };
            let handle = Some(record.spec.handle_id.as_str());
            let is_used = stored.block.allocations().any(|a| a.handle.as_deref() == handle);
            if is_used || accept_race(self.records.update_block(&stored).await)?.is_none() {
                return Ok(false);
            }
        }
        Ok(accept_race(self.records.delete(&record).await)?.is_some())
    }
}
