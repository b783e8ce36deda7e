//! Addresses for a workload.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_resources::v3::AllowedUse;

use crate::Ipam;
use crate::affinity::{accept_race, hash};
use crate::block::Attributes;
use crate::error::{Error, RETRIES, Shortage, pause};
use crate::names::{self, Owner};
use crate::pool::{Demand, Family, Labels, Pool, select};
use crate::records::{Settings, StoredBlock};
use crate::release::Release;

/// A request for any addresses.
#[derive(Clone, Debug)]
pub struct AutoAssign {
    /// Who asks: the node, whose blocks are used first.
    pub owner: Owner,
    /// The handle that the addresses are given back by.
    pub handle: Option<String>,
    /// What is noted about them.
    pub attributes: Attributes,
    /// How many of IPv4.
    pub v4: usize,
    /// How many of IPv6.
    pub v6: usize,
    /// Names or networks of the pools of IPv4; empty: any that fits.
    pub v4_pools: Vec<String>,
    /// Names or networks of the pools of IPv6; empty: any that fits.
    pub v6_pools: Vec<String>,
    /// What they are for.
    pub wanted: AllowedUse,
    /// The workload's namespace.
    pub namespace: Option<String>,
}

/// A request for one given address.
#[derive(Clone, Debug)]
pub struct AssignIp {
    /// The address.
    pub ip: IpAddr,
    /// Who asks.
    pub owner: Owner,
    /// The handle that it is given back by.
    pub handle: Option<String>,
    /// What is noted about it.
    pub attributes: Attributes,
    /// What it is for, if the pool is to be asked.
    pub wanted: Option<AllowedUse>,
}

/// Addresses that were assigned, with the length of their block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Of IPv4.
    pub v4: Vec<IpNet>,
    /// Of IPv6.
    pub v6: Vec<IpNet>,
}

/// Everything that does not change while one request is served.
struct Work<'a> {
    request: &'a AutoAssign,
    settings: Settings,
    reserved: Vec<IpNet>,
    pools: Vec<Pool>,
    family: Family,
    wanted: usize,
}

// === impl AutoAssign ===

impl AutoAssign {
    /// A workload on a node.
    pub fn workload(node: &str, handle: &str, attributes: Attributes) -> Self {
        Self {
            owner: Owner::host(node),
            handle: Some(handle.to_owned()),
            attributes,
            v4: 0,
            v6: 0,
            v4_pools: Vec::new(),
            v6_pools: Vec::new(),
            wanted: AllowedUse::Workload,
            namespace: None,
        }
    }

    fn count(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    fn pools(&self, family: Family) -> &[String] {
        match family {
            Family::V4 => &self.v4_pools,
            Family::V6 => &self.v6_pools,
        }
    }
}

// === impl Ipam: any addresses ===

impl Ipam {
    /// Assigns addresses: out of the owner's blocks, then out of blocks that it claims, then (unless
    /// affinity is strict) out of the blocks of others. All that was asked for, or nothing.
    ///
    /// # Errors
    /// `NoPool`, `PoolUnusable`, `Exhausted`, and those of the datastore. What was taken already is
    /// given back; where the datastore does not allow even that, it stays under the handle.
    pub async fn auto_assign(&self, request: &AutoAssign) -> Result<Assigned, Error> {
        let _turn = self.turn.lock().await;
        let mut taken = Vec::new();
        let result = match self.assign_family(request, Family::V4, &mut taken).await {
            Ok(()) => self.assign_family(request, Family::V6, &mut taken).await,
            error => error,
        };
        if let Err(error) = result {
            let handle = request.handle.as_deref();
            for ip in &taken {
                let release = Release { ip: ip.addr(), handle, sequence: None };
                if let Err(error) = self.release_ips(&[release]).await {
                    tracing::warn!(%ip, %error, "an address of a failed request was not given back");
                }
            }
            return Err(error);
        }
        let (v4, v6) = taken.into_iter().partition(|net| Family::of(*net) == Family::V4);
        Ok(Assigned { v4, v6 })
    }

    /// Takes what is asked for of one family; `taken` grows as it goes.
    async fn assign_family(
        &self,
        request: &AutoAssign,
        family: Family,
        taken: &mut Vec<IpNet>,
    ) -> Result<(), Error> {
        let wanted = request.count(family);
        if wanted == 0 {
            return Ok(());
        }
        let pools = self.pools_for(request, family).await?;
        let settings = self.records.settings().await?;
        let reserved = self.records.reservations().await?;
        let work = Work { request, settings, reserved, pools, family, wanted };
        let before = taken.len();
        let shortage = self.assign_from_pools(&work, taken).await?;
        match shortage.filter(|_| taken.len() - before < wanted) {
            None => Ok(()),
            Some(shortage) => {
                Err(Error::Exhausted { family, owner: request.owner.to_string(), shortage })
            }
        }
    }

    async fn pools_for(&self, request: &AutoAssign, family: Family) -> Result<Vec<Pool>, Error> {
        let node = self.labels_of(&request.owner).await?;
        let namespace = match &request.namespace {
            Some(name) => Some(self.records.namespace_labels(name).await?),
            None => None,
        };
        let demand = Demand {
            family,
            pools: request.pools(family),
            wanted: request.wanted,
            node: node.as_ref(),
            namespace: namespace.as_ref(),
        };
        let pools = select(&self.records.pools().await?, &demand)?;
        if pools.is_empty() {
            return Err(Error::NoPool { family, owner: request.owner.to_string() });
        }
        Ok(pools)
    }

    pub(crate) async fn labels_of(&self, owner: &Owner) -> Result<Option<Labels>, Error> {
        match owner {
            Owner::Host(name) => self.records.node_labels(name).await.map(Some),
            Owner::Virtual(_) => Ok(None),
        }
    }

    /// The three sources in their order; says why there may be too few.
    async fn assign_from_pools(
        &self,
        work: &Work<'_>,
        taken: &mut Vec<IpNet>,
    ) -> Result<Option<Shortage>, Error> {
        let enough = taken.len() + work.wanted;
        let mut blocks = self.take_from_own(work, taken, enough).await?;
        while taken.len() < enough && work.settings.auto_allocate {
            if blocks >= work.settings.max_blocks {
                return Ok(Some(Shortage::BlockLimit));
            }
            let owner = &work.request.owner;
            let claimed = self.claim_any(owner, &work.pools, &work.reserved).await?;
            let Some(stored) = claimed else { break };
            blocks += 1;
            self.take_from(work, stored.block.cidr(), true, taken, enough).await?;
        }
        if taken.len() < enough && work.settings.strict_affinity {
            return Ok(Some(Shortage::Strict));
        }
        if taken.len() < enough {
            self.borrow(work, taken, enough).await?;
        }
        Ok((taken.len() < enough).then_some(Shortage::Full))
    }

    /// Takes from the owner's blocks, as far as they lie in the pools. Returns how many blocks the
    /// owner has.
    async fn take_from_own(
        &self,
        work: &Work<'_>,
        taken: &mut Vec<IpNet>,
        enough: usize,
    ) -> Result<usize, Error> {
        let owner = &work.request.owner;
        let affinities = self.affinities(owner, Some(work.family)).await?;
        let count = affinities.len();
        for (cidr, affinity) in affinities {
            if taken.len() >= enough {
                break;
            }
            if !work.pools.iter().any(|pool| pool.cidr.contains(&cidr)) {
                continue;
            }
            if self.block_of_affinity(owner, cidr, affinity).await?.is_some() {
                self.take_from(work, cidr, true, taken, enough).await?;
            }
        }
        Ok(count)
    }

    /// Takes from blocks of others and of nobody, beginning at a place that follows from the
    /// owner's name.
    async fn borrow(
        &self,
        work: &Work<'_>,
        taken: &mut Vec<IpNet>,
        enough: usize,
    ) -> Result<(), Error> {
        let is_fit = |stored: &StoredBlock| {
            let cidr = stored.block.cidr();
            let in_pool = work.pools.iter().any(|pool| pool.cidr.contains(&cidr));
            in_pool && stored.block.free() > 0 && !stored.belongs_to(&work.request.owner)
        };
        let blocks = self.records.blocks().await?;
        let mut blocks: Vec<IpNet> =
            blocks.iter().filter(|b| is_fit(b)).map(|b| b.block.cidr()).collect();
        let begin = hash(&work.request.owner.to_string()) as usize % blocks.len().max(1);
        blocks.rotate_left(begin);
        for cidr in blocks {
            if taken.len() >= enough {
                break;
            }
            self.take_from(work, cidr, false, taken, enough).await?;
        }
        Ok(())
    }

    /// Takes what one block has, until there is enough.
    async fn take_from(
        &self,
        work: &Work<'_>,
        cidr: IpNet,
        must_be_own: bool,
        taken: &mut Vec<IpNet>,
        enough: usize,
    ) -> Result<(), Error> {
        let request = work.request;
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let Some(mut stored) = self.records.block(cidr).await? else { return Ok(()) };
            let is_foreign = must_be_own && !stored.belongs_to(&request.owner);
            if is_foreign || stored.block.is_being_deleted() {
                return Ok(());
            }
            let is_reserved = |ip: IpAddr| work.reserved.iter().any(|net| net.contains(&ip));
            let found = stored.block.take_next(
                enough - taken.len(),
                request.handle.as_deref(),
                &request.attributes,
                is_reserved,
                (work.settings.cooldown, self.now()),
            );
            if found.is_empty() {
                return Ok(());
            }
            if self.write_taken(&stored, request.handle.as_deref(), found.len()).await? {
                let length = cidr.prefix_len();
                taken.extend(found.into_iter().filter_map(|ip| IpNet::new(ip, length).ok()));
                return Ok(());
            }
        }
        Err(Error::Contended(format!("the block {cidr}")))
    }

    /// Writes the handle, then the block. False if somebody else has changed the block first.
    ///
    /// After an error of the datastore nobody knows whether the block was written, so the handle
    /// keeps its count: who gives back by the handle finds the addresses if there are any.
    async fn write_taken(
        &self,
        stored: &StoredBlock,
        handle: Option<&str>,
        count: usize,
    ) -> Result<bool, Error> {
        let cidr = stored.block.cidr();
        if let Some(handle) = handle {
            self.count_up(handle, cidr, count).await?;
        }
        let is_written = accept_race(self.records.update_block(stored).await)?.is_some();
        if let Some(handle) = handle.filter(|_| !is_written) {
            self.count_down(handle, cidr, count).await?;
        }
        Ok(is_written)
    }
}

// === impl Ipam: a given address ===

impl Ipam {
    /// Assigns one given address; reservations and selectors do not hinder it. Its block is claimed
    /// if it is nobody's.
    ///
    /// # Errors
    /// `NotInPool`, `UseNotAllowed`, `Taken`, `ForeignBlock`, and those of the datastore.
    pub async fn assign_ip(&self, request: &AssignIp) -> Result<IpNet, Error> {
        let _turn = self.turn.lock().await;
        let ip = request.ip;
        let pools = self.records.pools().await?;
        let mut holding = pools.iter().filter(|p| !p.spec.disabled && p.cidr.contains(&ip));
        let pool = holding.next().ok_or(Error::NotInPool(ip))?;
        if let Some(wanted) = request.wanted.filter(|wanted| !pool.allows(*wanted)) {
            return Err(Error::UseNotAllowed { ip, pool: pool.name.clone(), wanted });
        }
        let strict = self.records.settings().await?.strict_affinity;
        for attempt in 0..RETRIES {
            pause(attempt).await;
            // It may have another size than the pool's blocks have now.
            let Some(mut stored) = self.block_holding(ip).await? else {
                let existing = self.records.block_networks().await?;
                let cidr = block_around(ip, pool, &existing).ok_or(Error::NotInPool(ip))?;
                self.claim(&request.owner, cidr).await?;
                continue;
            };
            if strict && !stored.belongs_to(&request.owner) {
                let owner = stored.block.owner().map(|owner| owner.to_string());
                return Err(Error::ForeignBlock { ip, owner: owner.unwrap_or("nobody".into()) });
            }
            let handle = request.handle.as_deref();
            stored.block.take(ip, handle, &request.attributes)?;
            if self.write_taken(&stored, handle, 1).await? {
                let length = stored.block.cidr().prefix_len();
                return IpNet::new(ip, length).map_err(|_| Error::NotInPool(ip));
            }
        }
        Err(Error::Contended(format!("the block of {ip}")))
    }
}

/// The block to make for an address that none holds: of the pool's size, or small enough to leave out
/// those beside it that are of an earlier one.
fn block_around(ip: IpAddr, pool: &Pool, existing: &[IpNet]) -> Option<IpNet> {
    let wanted = names::net_of(ip, pool.block_length)?;
    let within = existing.iter().filter(|block| wanted.contains(*block));
    names::net_of(ip, within.map(IpNet::prefix_len).max().unwrap_or(pool.block_length))
}
