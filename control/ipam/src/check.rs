//! Whether the records agree with each other and with who uses addresses: `margayctl ipam check`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use margay_resources::v3::{BlockAffinitySpec, IpamBlockSpec, IpamHandleSpec};
use serde::Serialize;

use crate::Ipam;
use crate::affinity::owner_of;
use crate::block::Allocation;
use crate::error::Error;
use crate::names::Owner;
use crate::records::{CONFIRMED, StoredBlock};

/// Somebody who uses an address, as the other objects say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The address.
    pub ip: IpAddr,
    /// Who, e.g. `WorkloadEndpoint default/web`.
    pub name: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many blocks there are.
    pub blocks: usize,
    /// How many handles there are.
    pub handles: usize,
    /// How many addresses are in use by the blocks' word.
    pub allocated: usize,
    /// What does not agree; nothing if all is well.
    pub findings: Vec<Finding>,
}

/// Something that does not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "finding")]
pub enum Finding {
    /// Assigned, but nobody uses it.
    #[error("{} is assigned under {:?} but nobody uses it", .allocation.ip, .allocation.handle)]
    Leaked {
        /// The address.
        allocation: Allocation,
    },
    /// In use, but not assigned: another may get it.
    #[error("{} is used by {} but not assigned", .user.ip, .user.name)]
    NotAllocated {
        /// Who uses it.
        user: User,
    },
    /// One address, several users.
    #[error("{ip} is used by {}", .users.join(" and by "))]
    Shared {
        /// The address.
        ip: IpAddr,
        /// Who uses it.
        users: Vec<String>,
    },
    /// Assigned out of a block around which there is no pool any more.
    #[error("{} is assigned, but lies in no pool", .allocation.ip)]
    OutsidePools {
        /// The address.
        allocation: Allocation,
    },
    /// The handle is missing, or does not name the block.
    #[error("{} is assigned under {:?}, which does not name its block", .allocation.ip, .allocation.handle)]
    HandleMissing {
        /// The address.
        allocation: Allocation,
    },
    /// The handle counts more addresses than there are.
    #[error("the handle {handle} counts {noted} addresses in {block}, there are {found}")]
    HandleCount {
        /// The handle.
        handle: String,
        /// The block.
        block: String,
        /// What it says.
        noted: i64,
        /// What there is.
        found: i64,
    },
    /// The block names an owner who has no confirmed affinity to it.
    #[error("the block {block} belongs to {owner}, who has no confirmed affinity to it")]
    AffinityMissing {
        /// The block.
        block: IpNet,
        /// The owner.
        owner: Owner,
    },
    /// An affinity without a block of that owner.
    #[error("{owner} has an affinity to {block}, which is not its block")]
    AffinityStale {
        /// What the affinity names.
        block: String,
        /// Whose affinity it is.
        owner: Owner,
    },
    /// Two blocks share addresses.
    #[error("the blocks {0} and {1} overlap", .blocks.0, .blocks.1)]
    Overlap {
        /// The two.
        blocks: (IpNet, IpNet),
    },
    /// A record that cannot be used.
    #[error("{reason}")]
    Damaged {
        /// Which, and why.
        reason: String,
    },
}

// === impl Ipam ===

impl Ipam {
    /// Compares all records with each other, and with the users of addresses if these are known.
    ///
    /// Read while addresses come and go it may find what is only under way: what is found twice
    /// is so.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn check(&self, users: Option<&[User]>) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut blocks = Vec::new();
        for record in self.records.list::<IpamBlockSpec>().await? {
            match StoredBlock::new(record) {
                Ok(stored) => blocks.push(stored),
                Err(error) => report.note(Finding::Damaged { reason: error.to_string() }),
            }
        }
        blocks.sort_by_key(|stored| stored.block.cidr());
        let allocations: Vec<Allocation> =
            blocks.iter().flat_map(|stored| stored.block.allocations()).collect();
        (report.blocks, report.allocated) = (blocks.len(), allocations.len());
        check_overlaps(&blocks, &mut report);
        self.check_affinities(&blocks, &mut report).await?;
        self.check_handles(&allocations, &mut report).await?;
        self.check_pools(&allocations, &mut report).await?;
        if let Some(users) = users {
            check_users(&allocations, users, &mut report);
        }
        Ok(report)
    }

    async fn check_affinities(
        &self,
        blocks: &[StoredBlock],
        report: &mut Report,
    ) -> Result<(), Error> {
        let affinities = self.records.list::<BlockAffinitySpec>().await?;
        let is_of = |spec: &BlockAffinitySpec, block: IpNet, owner: &Owner| {
            spec.cidr.parse() == Ok(block) && owner_of(spec) == *owner
        };
        for stored in blocks {
            let block = stored.block.cidr();
            let Some(owner) = stored.block.owner() else { continue };
            let is_confirmed = |spec: &BlockAffinitySpec| spec.state == CONFIRMED;
            let mut of_block = affinities.iter().filter(|a| is_of(&a.spec, block, &owner));
            if !of_block.any(|affinity| is_confirmed(&affinity.spec)) {
                report.note(Finding::AffinityMissing { block, owner });
            }
        }
        for affinity in &affinities {
            let owner = owner_of(&affinity.spec);
            let mut its = blocks.iter().filter(|stored| stored.belongs_to(&owner));
            if !its.any(|stored| is_of(&affinity.spec, stored.block.cidr(), &owner)) {
                let block = affinity.spec.cidr.clone();
                report.note(Finding::AffinityStale { block, owner });
            }
        }
        Ok(())
    }

    async fn check_handles(
        &self,
        allocations: &[Allocation],
        report: &mut Report,
    ) -> Result<(), Error> {
        let handles = self.records.list::<IpamHandleSpec>().await?;
        report.handles = handles.len();
        let mut found: HashMap<(&str, String), i64> = HashMap::new();
        for allocation in allocations {
            let Some(handle) = allocation.handle.as_deref() else { continue };
            *found.entry((handle, allocation.block.to_string())).or_default() += 1;
        }
        let mut named = HashMap::new();
        for record in &handles {
            let handle = &record.spec.handle_id;
            for (block, noted) in &record.spec.block {
                let key = (handle.as_str(), block.clone());
                let there = found.get(&key).copied().unwrap_or_default();
                if there != *noted {
                    let (handle, block) = (handle.clone(), block.clone());
                    report.note(Finding::HandleCount {
                        handle,
                        block,
                        noted: *noted,
                        found: there,
                    });
                }
                named.insert(key, ());
            }
        }
        for allocation in allocations {
            let Some(handle) = allocation.handle.as_deref() else { continue };
            if !named.contains_key(&(handle, allocation.block.to_string())) {
                report.note(Finding::HandleMissing { allocation: allocation.clone() });
            }
        }
        Ok(())
    }

    async fn check_pools(
        &self,
        allocations: &[Allocation],
        report: &mut Report,
    ) -> Result<(), Error> {
        let pools = self.records.pools().await?;
        for allocation in allocations {
            if !pools.iter().any(|pool| pool.cidr.contains(&allocation.ip)) {
                report.note(Finding::OutsidePools { allocation: allocation.clone() });
            }
        }
        Ok(())
    }
}

// === impl Report ===

impl Report {
    fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

fn check_overlaps(blocks: &[StoredBlock], report: &mut Report) {
    // In the order of their addresses, a network stands right before what it contains.
    for pair in blocks.windows(2) {
        if let [first, second] = pair
            && first.block.cidr().contains(&second.block.cidr())
        {
            let blocks = (first.block.cidr(), second.block.cidr());
            report.note(Finding::Overlap { blocks });
        }
    }
}

fn check_users(allocations: &[Allocation], users: &[User], report: &mut Report) {
    let mut by_ip: BTreeMap<IpAddr, Vec<&User>> = BTreeMap::new();
    for user in users {
        by_ip.entry(user.ip).or_default().push(user);
    }
    for allocation in allocations.iter().filter(|a| !by_ip.contains_key(&a.ip)) {
        report.note(Finding::Leaked { allocation: allocation.clone() });
    }
    let assigned: HashMap<IpAddr, ()> = allocations.iter().map(|a| (a.ip, ())).collect();
    for (ip, users) in by_ip {
        for user in users.iter().filter(|_| !assigned.contains_key(&ip)) {
            report.note(Finding::NotAllocated { user: (*user).clone() });
        }
        if users.len() > 1 {
            let users = users.iter().map(|user| user.name.clone()).collect();
            report.note(Finding::Shared { ip, users });
        }
    }
}
