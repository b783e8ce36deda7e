//! Giving addresses back.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_resources::v3::IpamHandleSpec;

use crate::Ipam;
use crate::affinity::accept_race;
use crate::block::{Allocation, Expected};
use crate::error::{Error, RETRIES, pause};
use crate::names;
use crate::records::{Stored, StoredBlock};

/// An address to be given back, with what is believed about it.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The address.
    pub ip: IpAddr,
    /// The handle it should be under; it stays if it is under another.
    pub handle: Option<&'a str>,
    /// The sequence number it should have; it stays if it has another.
    pub sequence: Option<u64>,
}

/// What became of addresses that were given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// They were in use and are free now.
    pub released: Vec<Allocation>,
    /// They were free already.
    pub were_free: Vec<IpAddr>,
}

// === impl Ipam: single addresses ===

impl Ipam {
    /// Gives addresses back. What is free already is no error.
    ///
    /// # Errors
    /// `WrongHandle` or `WrongSequence` if an address belongs to somebody else by now; those before
    /// it in the list are released then.
    pub async fn release_ips(&self, ips: &[Release<'_>]) -> Result<Released, Error> {
        let mut all = Released::default();
        for release in ips {
            match self.release_one(*release).await? {
                Some(allocation) => all.released.push(allocation),
                None => all.were_free.push(release.ip),
            }
        }
        Ok(all)
    }

    async fn release_one(&self, release: Release<'_>) -> Result<Option<Allocation>, Error> {
        let Release { ip, handle, sequence } = release;
        let cooling = self.records.settings().await?.cooling(self.now());
        let expected = Expected { handle, sequence };
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let Some(mut stored) = self.block_holding(ip).await? else { return Ok(None) };
            let Some(allocation) = stored.block.release(ip, expected, cooling)? else {
                return Ok(None);
            };
            if self.write_released(&stored).await?.is_none() {
                continue;
            }
            if let Some(handle) = &allocation.handle {
                self.count_down(handle, stored.block.cidr(), 1).await?;
            }
            return Ok(Some(allocation));
        }
        Err(Error::Contended(format!("the block of {ip}")))
    }

    /// The block that an address lies in, whether or not there is still a pool around it.
    pub(crate) async fn block_holding(&self, ip: IpAddr) -> Result<Option<StoredBlock>, Error> {
        let pools = self.records.pools().await?;
        let of_pool = pools.iter().find(|pool| pool.cidr.contains(&ip));
        let likely = of_pool.and_then(|pool| names::net_of(ip, pool.block_length));
        if let Some(cidr) = likely
            && let Some(stored) = self.records.block(cidr).await?
        {
            return Ok(Some(stored));
        }
        let blocks = self.records.blocks().await?;
        Ok(blocks.into_iter().find(|stored| stored.block.cidr().contains(&ip)))
    }

    /// Writes a block after something was given back; an empty one that is nobody's is removed.
    /// Nothing if somebody else has changed it first.
    async fn write_released(&self, stored: &StoredBlock) -> Result<Option<()>, Error> {
        let is_left_over = stored.block.is_empty() && stored.block.owner().is_none();
        accept_race(if is_left_over {
            self.records.delete_block(stored).await
        } else {
            self.records.update_block(stored).await.map(drop)
        })
    }
}

// === impl Ipam: handles ===

impl Ipam {
    /// Gives back everything under a handle, and returns it. A handle that does not exist has
    /// nothing; that is no error.
    ///
    /// Safe against an assignment under the same handle at the same time: the handle goes last, by
    /// compare-and-swap, and every block that it names is written even if nothing was found in it.
    /// So the other one has either counted up (then this one repeats) or finds the block changed
    /// (then it counts up again).
    ///
    /// # Errors
    /// Those of the datastore; calling it again goes on where it ended.
    pub async fn release_by_handle(&self, handle: &str) -> Result<Vec<Allocation>, Error> {
        let cooling = self.records.settings().await?.cooling(self.now());
        let mut released = Vec::new();
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let Some(mut record) = self.handle_record(handle).await? else { return Ok(released) };
            for cidr in blocks_of(&record.spec) {
                released.extend(self.release_in_block(handle, cidr, cooling).await?);
            }
            record.spec.block.clear();
            if self.store_handle(record).await?.is_some() {
                return Ok(released);
            }
        }
        Err(Error::Contended(format!("the handle {handle}")))
    }

    async fn release_in_block(
        &self,
        handle: &str,
        cidr: IpNet,
        cooling: Option<jiff::Timestamp>,
    ) -> Result<Vec<Allocation>, Error> {
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let Some(mut stored) = self.records.block(cidr).await? else { return Ok(Vec::new()) };
            let found = stored.block.release_handle(handle, cooling);
            if self.write_released(&stored).await?.is_some() {
                return Ok(found);
            }
        }
        Err(Error::Contended(format!("the block {cidr}")))
    }

    /// The addresses under a handle.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn ips_by_handle(&self, handle: &str) -> Result<Vec<Allocation>, Error> {
        let Some(record) = self.handle_record(handle).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for cidr in blocks_of(&record.spec) {
            if let Some(stored) = self.records.block(cidr).await? {
                let is_its = |a: &Allocation| a.handle.as_deref() == Some(handle);
                found.extend(stored.block.allocations().filter(is_its));
            }
        }
        Ok(found)
    }

    async fn handle_record(&self, handle: &str) -> Result<Option<Stored<IpamHandleSpec>>, Error> {
        self.records.get(&names::handle(handle)).await
    }
}

fn blocks_of(handle: &IpamHandleSpec) -> Vec<IpNet> {
    handle.block.keys().filter_map(|cidr| cidr.parse().ok()).collect()
}
