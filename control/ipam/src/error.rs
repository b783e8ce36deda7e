//! How address management fails.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_resources::v3::AllowedUse;

use crate::pool::Family;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] margay_datastore::Error),
    /// A record is not as it should be.
    #[error("{kind} {name} is damaged: {reason}")]
    Damaged {
        /// Kind of the record.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No pool may be used.
    #[error(
        "no enabled IPPool of {family} serves {owner}: check cidr, disabled, nodeSelector, \
         namespaceSelector, allowedUses and assignmentMode of the pools"
    )]
    NoPool {
        /// The family asked for.
        family: Family,
        /// Who asked.
        owner: String,
    },
    /// A pool that was asked for by name.
    #[error("the IPPool {0:?} does not exist, is disabled or is of the other family")]
    PoolUnusable(String),
    /// Not as many addresses as were asked for.
    #[error("no more free addresses of {family} for {owner}: {shortage}")]
    Exhausted {
        /// The family asked for.
        family: Family,
        /// Who asked.
        owner: String,
        /// Why.
        shortage: Shortage,
    },
    /// The address is outside of all pools.
    #[error("the address {0} is in no enabled IPPool")]
    NotInPool(IpAddr),
    /// The pool of the address is for something else.
    #[error("the IPPool {pool} of {ip} does not allow {wanted:?}, see its allowedUses")]
    UseNotAllowed {
        /// The address.
        ip: IpAddr,
        /// Its pool.
        pool: String,
        /// What it was wanted for.
        wanted: AllowedUse,
    },
    /// Somebody has the address.
    #[error("the address {0} is in use already")]
    Taken(IpAddr),
    /// The address belongs to the block of another node, and affinity is strict.
    #[error("the address {ip} lies in a block of {owner}, and strictAffinity is on")]
    ForeignBlock {
        /// The address.
        ip: IpAddr,
        /// Whose block it is.
        owner: String,
    },
    /// The address has another owner than the one who gave it back.
    #[error("the address {ip} belongs to the handle {found:?}, not to {expected:?}")]
    WrongHandle {
        /// The address.
        ip: IpAddr,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The address was given back and assigned again in between.
    #[error("the address {0} has been assigned anew in the meantime")]
    WrongSequence(IpAddr),
    /// Others were always faster.
    #[error("gave up on {0} after {RETRIES} attempts: others kept changing it")]
    Contended(String),
    /// A block or an affinity still has addresses in use.
    #[error("the block {0} still has addresses in use")]
    NotEmpty(IpNet),
    /// A change of the settings that contradicts itself.
    #[error("IPAMConfiguration: {0}")]
    Configuration(&'static str),
    /// A pool cannot be split so.
    #[error("the IPPool {pool} cannot be split: {reason}")]
    Split {
        /// The pool.
        pool: String,
        /// Why, and what would do.
        reason: &'static str,
    },
}

/// Why there are too few addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The pools have no address left.
    #[error("all addresses of the pools are in use")]
    Full,
    /// Only own blocks may be used and no new one may be claimed.
    #[error("the node's own blocks are full, and strictAffinity forbids those of others")]
    Strict,
    /// The node has as many blocks as it may have.
    #[error("the node has all the blocks it may have, see maxBlocksPerHost")]
    BlockLimit,
}

/// How often a compare-and-swap is tried.
pub(crate) const RETRIES: u32 = 100;

/// Waits a little before the next attempt, longer the more often it failed, so that writers who
/// meet do not meet again.
pub(crate) async fn pause(attempt: u32) {
    let longest = 200 * u64::from(attempt.min(50));
    let micros = fastrand::u64(0..=longest);
    if attempt > 0 {
        tokio::time::sleep(std::time::Duration::from_micros(micros)).await;
    }
}
