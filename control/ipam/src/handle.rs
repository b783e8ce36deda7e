//! Handles: in which blocks an owner has addresses, so that they are found again.
//!
//! A handle is counted up before the block is written and down after an address was given back.
//! So it may name a block too many, never one too few.

use ipnet::IpNet;
use margay_datastore as datastore;
use margay_resources::v3::IpamHandleSpec;

use crate::Ipam;
use crate::affinity::accept_race;
use crate::error::{Error, RETRIES, pause};
use crate::names;
use crate::records::Stored;

// === impl Ipam ===

impl Ipam {
    /// Notes that `count` addresses of a block are about to be taken under a handle.
    pub(crate) async fn count_up(
        &self,
        handle: &str,
        block: IpNet,
        count: usize,
    ) -> Result<(), Error> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let name = names::handle(handle);
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let written = match self.records.get::<IpamHandleSpec>(&name).await? {
                Some(mut record) => {
                    let entry = record.spec.block.entry(block.to_string()).or_default();
                    *entry = entry.saturating_add(count);
                    self.records.update(record).await
                }
                None => {
                    let block = [(block.to_string(), count)].into();
                    let handle_id = handle.to_owned();
                    let spec = IpamHandleSpec { handle_id, block, deleted: false };
                    self.records.create(&name, spec).await
                }
            };
            if accept_race(written)?.is_some() {
                return Ok(());
            }
        }
        Err(Error::Contended(format!("the handle {handle}")))
    }

    /// Notes that `count` addresses of a block are no longer under a handle. A handle without
    /// addresses is removed; what is missing already is no error.
    pub(crate) async fn count_down(
        &self,
        handle: &str,
        block: IpNet,
        count: usize,
    ) -> Result<(), Error> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let name = names::handle(handle);
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let Some(mut record) = self.records.get::<IpamHandleSpec>(&name).await? else {
                return Ok(());
            };
            let Some(entry) = record.spec.block.get_mut(&block.to_string()) else { return Ok(()) };
            *entry = entry.saturating_sub(count);
            if *entry <= 0 {
                record.spec.block.remove(&block.to_string());
            }
            if self.store_handle(record).await?.is_some() {
                return Ok(());
            }
        }
        Err(Error::Contended(format!("the handle {handle}")))
    }

    /// Writes a handle, or removes it if it has no addresses left. Nothing if somebody else
    /// changed it first.
    pub(crate) async fn store_handle(
        &self,
        record: Stored<IpamHandleSpec>,
    ) -> Result<Option<()>, Error> {
        let written: Result<(), datastore::Error> = if record.spec.block.is_empty() {
            self.records.delete(&record).await
        } else {
            self.records.update(record).await.map(drop)
        };
        accept_race(written)
    }
}
