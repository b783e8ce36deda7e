//! What `margayctl ipam configure` and `split` change.

use ipnet::IpNet;
use margay_datastore::{self as datastore, Key, Kind};
use margay_resources::v3::{IpPoolSpec, IpamConfigurationSpec};
use serde_json::{Value, json};

use crate::Ipam;
use crate::error::{Error, RETRIES, pause};
use crate::pool::Pool;

/// What is to change; the rest stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Nodes use addresses of their own blocks only.
    pub strict_affinity: Option<bool>,
    /// Blocks of a node at most; 0: as by default.
    pub max_blocks_per_host: Option<u32>,
    /// Nodes claim blocks when they need them.
    pub auto_allocate_blocks: Option<bool>,
}

const CONFIGURATION: Kind = Kind::calico("IPAMConfiguration");
const POOL: Kind = Kind::calico("IPPool");

// === impl Ipam ===

impl Ipam {
    /// Changes the settings, and returns them as they are now.
    ///
    /// # Errors
    /// `Configuration` where the settings would contradict each other; nothing is changed then.
    pub async fn configure(&self, change: Configuration) -> Result<IpamConfigurationSpec, Error> {
        let key = Key::new(CONFIGURATION, "", "default");
        for attempt in 0..RETRIES {
            pause(attempt).await;
            let found = match self.records.store.get(&key).await {
                Ok(object) => Some(object),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            let mut document = found.as_ref().map_or_else(
                || {
                    json!({
                        "apiVersion": "projectcalico.org/v3",
                        "kind": "IPAMConfiguration",
                        "metadata": {"name": "default"},
                    })
                },
                |object| object.value.clone(),
            );
            let spec = changed(document.get("spec").unwrap_or(&json!({})), change)?;
            set_spec(&mut document, &spec);
            let written = match &found {
                Some(object) => self.records.store.update(document, Some(&object.revision)).await,
                None => self.records.store.create(document).await,
            };
            match written {
                Ok(_) => return Ok(spec),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended(key.to_string()))
    }

    /// Cuts a pool into `parts` of one size, named `split-POOL-N`. The new pools are made before
    /// the old one goes, so that no address is ever without one; blocks and addresses stay.
    ///
    /// # Errors
    /// `Split`; what was done stays, and doing it again goes on.
    pub async fn split_pool(&self, name: &str, parts: u32) -> Result<Vec<(String, IpNet)>, Error> {
        let refuse = |reason| Error::Split { pool: name.to_owned(), reason };
        let key = Key::new(POOL, "", name);
        let old = self.records.store.get(&key).await?;
        let spec = old.value.get("spec").cloned().unwrap_or_default();
        let spec: IpPoolSpec =
            serde_json::from_value(spec).map_err(|_| refuse("its spec cannot be read"))?;
        let pool = Pool::new(name, spec).ok_or_else(|| refuse("its cidr or blockSize is wrong"))?;
        if parts < 2 || !parts.is_power_of_two() {
            return Err(refuse("the number of parts must be a power of two, 2 or more"));
        }
        let bits = u8::try_from(parts.ilog2()).unwrap_or(u8::MAX);
        let length = pool.cidr.prefix_len().saturating_add(bits);
        if length > pool.block_length {
            return Err(refuse("the parts would be smaller than its blocks; ask for fewer"));
        }
        let subnets = pool.cidr.subnets(length).map_err(|_| refuse("its cidr is wrong"))?;
        let mut made = Vec::new();
        for (number, cidr) in subnets.enumerate() {
            let name = format!("split-{name}-{number}");
            let mut spec = old.value.get("spec").cloned().unwrap_or_default();
            if let Some(spec) = spec.as_object_mut() {
                spec.insert("cidr".to_owned(), cidr.to_string().into());
            }
            let document = json!({
                "apiVersion": "projectcalico.org/v3",
                "kind": "IPPool",
                "metadata": {"name": name},
                "spec": spec,
            });
            match self.records.store.create(document).await {
                // Left by an earlier attempt.
                Ok(_) | Err(datastore::Error::AlreadyExists(_)) => made.push((name, cidr)),
                Err(error) => return Err(error.into()),
            }
        }
        self.records.store.delete(&key, Some(&old.revision)).await?;
        Ok(made)
    }
}

fn changed(spec: &Value, change: Configuration) -> Result<IpamConfigurationSpec, Error> {
    let mut spec: IpamConfigurationSpec =
        serde_json::from_value(spec.clone()).map_err(|error| Error::Damaged {
            kind: "IPAMConfiguration",
            name: "default".to_owned(),
            reason: error.to_string(),
        })?;
    spec.strict_affinity = change.strict_affinity.unwrap_or(spec.strict_affinity);
    spec.max_blocks_per_host =
        change.max_blocks_per_host.map_or(spec.max_blocks_per_host, i64::from);
    spec.auto_allocate_blocks = change.auto_allocate_blocks.or(spec.auto_allocate_blocks);
    if !spec.strict_affinity && spec.auto_allocate_blocks == Some(false) {
        let reason = "autoAllocateBlocks can only be off where strictAffinity is on";
        return Err(Error::Configuration(reason));
    }
    if !spec.strict_affinity && spec.max_blocks_per_host > 0 {
        let reason = "maxBlocksPerHost above 0 needs strictAffinity";
        return Err(Error::Configuration(reason));
    }
    Ok(spec)
}

fn set_spec(document: &mut Value, spec: &IpamConfigurationSpec) {
    if let Some(map) = document.as_object_mut() {
        // The type has no keys that are no text, so this cannot fail.
        map.insert("spec".to_owned(), serde_json::to_value(spec).unwrap_or_default());
    }
}
