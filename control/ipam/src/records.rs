//! The records in the datastore, typed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use margay_datastore::{self as datastore, Datastore, Key, Kind, Object, Revision};
use margay_resources::v3;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::block::Block;
use crate::error::Error;
use crate::names::{self, Owner};
use crate::pool::{Labels, Pool};

/// API version of the records.
const API_VERSION: &str = "projectcalico.org/v3";

/// Typed access to a datastore.
pub(crate) struct Records {
    pub(crate) store: Arc<dyn Datastore>,
}

/// A record and the revision it was read at.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    pub(crate) name: String,
    pub(crate) spec: T,
    pub(crate) revision: Revision,
}

/// A specification that knows what kind of record it makes.
pub(crate) trait Record: Serialize + DeserializeOwned + Default {
    const KIND: &'static str;
}

impl Record for v3::IpamBlockSpec {
    const KIND: &'static str = "IPAMBlock";
}

impl Record for v3::BlockAffinitySpec {
    const KIND: &'static str = "BlockAffinity";
}

impl Record for v3::IpamHandleSpec {
    const KIND: &'static str = "IPAMHandle";
}

impl Record for v3::IpPoolSpec {
    const KIND: &'static str = "IPPool";
}

impl Record for v3::IpReservationSpec {
    const KIND: &'static str = "IPReservation";
}

impl Record for v3::IpamConfigurationSpec {
    const KIND: &'static str = "IPAMConfiguration";
}

/// State of an affinity. What is pending must not be used.
pub(crate) const PENDING: &str = "pending";
pub(crate) const CONFIRMED: &str = "confirmed";
pub(crate) const PENDING_DELETION: &str = "pendingDeletion";

/// Settings of address management.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) strict_affinity: bool,
    pub(crate) max_blocks: usize,
    pub(crate) auto_allocate: bool,
    pub(crate) cooldown: Duration,
}

/// Blocks of a node at most where nothing is configured.
const DEFAULT_MAX_BLOCKS: usize = 20;

// === impl Records: any kind ===

impl Records {
    /// One record, nothing if it is missing.
    pub(crate) async fn get<T: Record>(&self, name: &str) -> Result<Option<Stored<T>>, Error> {
        match self.store.get(&key::<T>(name)).await {
            Ok(object) => typed(&object).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All sound records of a kind, by name. Damaged ones are reported and left out.
    pub(crate) async fn list<T: Record>(&self) -> Result<Vec<Stored<T>>, Error> {
        let listing = self.store.list(&Kind::calico(T::KIND)).await?;
        let mut found = Vec::with_capacity(listing.objects.len());
        for object in listing.objects {
            match typed(&object) {
                Ok(record) => found.push(record),
                Err(error) => tracing::error!(object = %object.key, "{error}"),
            }
        }
        Ok(found)
    }

    /// Stores a new record.
    pub(crate) async fn create<T: Record>(
        &self,
        name: &str,
        spec: T,
    ) -> Result<Stored<T>, datastore::Error> {
        let object = self.store.create(document(name, &spec)).await?;
        Ok(Stored { name: name.to_owned(), spec, revision: object.revision.clone() })
    }

    /// Replaces a record if nobody has changed it since it was read.
    pub(crate) async fn update<T: Record>(
        &self,
        mut record: Stored<T>,
    ) -> Result<Stored<T>, datastore::Error> {
        let document = document(&record.name, &record.spec);
        let object = self.store.update(document, Some(&record.revision)).await?;
        record.revision = object.revision.clone();
        Ok(record)
    }

    /// Removes a record if nobody has changed it since it was read.
    pub(crate) async fn delete<T: Record>(
        &self,
        record: &Stored<T>,
    ) -> Result<(), datastore::Error> {
        self.store.delete(&key::<T>(&record.name), Some(&record.revision)).await.map(drop)
    }
}

// === impl Records: what it knows of the kinds ===

impl Records {
    pub(crate) async fn block(&self, cidr: IpNet) -> Result<Option<StoredBlock>, Error> {
        let Some(record) = self.get::<v3::IpamBlockSpec>(&names::block(cidr)).await? else {
            return Ok(None);
        };
        StoredBlock::new(record).map(Some)
    }

    /// All sound blocks, in the order of their addresses.
    pub(crate) async fn blocks(&self) -> Result<Vec<StoredBlock>, Error> {
        let mut blocks = Vec::new();
        for record in self.list::<v3::IpamBlockSpec>().await? {
            match StoredBlock::new(record) {
                Ok(block) => blocks.push(block),
                Err(error) => tracing::error!("{error}"),
            }
        }
        blocks.sort_by_key(|stored| stored.block.cidr());
        Ok(blocks)
    }

    /// All networks that there is a record of a block for, also a damaged one.
    pub(crate) async fn block_networks(&self) -> Result<Vec<IpNet>, Error> {
        let records = self.list::<v3::IpamBlockSpec>().await?;
        Ok(records.iter().filter_map(|r| r.spec.cidr.parse().ok()).collect())
    }

    pub(crate) async fn update_block(
        &self,
        stored: &StoredBlock,
    ) -> Result<StoredBlock, datastore::Error> {
        let spec = stored.block.to_spec();
        let (name, revision) = (stored.name.clone(), stored.revision.clone());
        let record = self.update(Stored { name, spec, revision }).await?;
        Ok(StoredBlock { revision: record.revision, ..stored.clone() })
    }

    pub(crate) async fn delete_block(&self, stored: &StoredBlock) -> Result<(), datastore::Error> {
        let key = key::<v3::IpamBlockSpec>(&stored.name);
        self.store.delete(&key, Some(&stored.revision)).await.map(drop)
    }

    pub(crate) async fn pools(&self) -> Result<Vec<Pool>, Error> {
        let records = self.list::<v3::IpPoolSpec>().await?;
        Ok(records.into_iter().filter_map(|r| Pool::new(&r.name, r.spec)).collect())
    }

    pub(crate) async fn reservations(&self) -> Result<Vec<IpNet>, Error> {
        let records = self.list::<v3::IpReservationSpec>().await?;
        let nets = records.iter().flat_map(|r| &r.spec.reserved_cidrs);
        Ok(nets.map(|net| net.net()).collect())
    }

    pub(crate) async fn settings(&self) -> Result<Settings, Error> {
        let spec = self.get::<v3::IpamConfigurationSpec>("default").await?;
        let spec = spec.map(|record| record.spec).unwrap_or_default();
        let configured = usize::try_from(spec.max_blocks_per_host).unwrap_or_default();
        let cooldown = spec.ip_cooldown_seconds.and_then(|s| u64::try_from(s).ok());
        Ok(Settings {
            strict_affinity: spec.strict_affinity,
            max_blocks: if configured == 0 { DEFAULT_MAX_BLOCKS } else { configured },
            auto_allocate: spec.auto_allocate_blocks.unwrap_or(true),
            cooldown: Duration::from_secs(cooldown.unwrap_or_default()),
        })
    }

    /// Labels of a node, those of Calico's Node over those of Kubernetes' Node.
    pub(crate) async fn node_labels(&self, name: &str) -> Result<Labels, Error> {
        let mut labels = self.labels(Kind::new("", "Node"), name).await?;
        labels.extend(self.labels(Kind::calico("Node"), name).await?);
        Ok(labels)
    }

    /// Labels of a namespace; its name is one of them, also where there is no document.
    pub(crate) async fn namespace_labels(&self, name: &str) -> Result<Labels, Error> {
        let mut labels = self.labels(Kind::new("", "Namespace"), name).await?;
        for key in ["kubernetes.io/metadata.name", "projectcalico.org/name"] {
            labels.entry(key.to_owned()).or_insert_with(|| name.to_owned());
        }
        Ok(labels)
    }

    async fn labels(&self, kind: Kind, name: &str) -> Result<Labels, Error> {
        let object = match self.store.get(&Key::new(kind, "", name)).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let labels = object.value.pointer("/metadata/labels").and_then(Value::as_object);
        let text =
            |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        Ok(labels.into_iter().flatten().filter_map(text).collect())
    }
}

/// A sound block and the revision it was read at.
#[derive(Clone, Debug)]
pub(crate) struct StoredBlock {
    pub(crate) name: String,
    pub(crate) block: Block,
    pub(crate) revision: Revision,
}

// === impl StoredBlock ===

impl StoredBlock {
    pub(crate) fn new(record: Stored<v3::IpamBlockSpec>) -> Result<Self, Error> {
        let Stored { name, spec, revision } = record;
        Ok(Self { name, block: Block::from_spec(spec)?, revision })
    }

    pub(crate) fn belongs_to(&self, owner: &Owner) -> bool {
        self.block.owner().as_ref() == Some(owner)
    }
}

// === impl Settings ===

impl Settings {
    /// Time to note at an address that is given back, where addresses have to rest.
    pub(crate) fn cooling(&self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        (!self.cooldown.is_zero()).then_some(now)
    }
}

fn key<T: Record>(name: &str) -> Key {
    Key::new(Kind::calico(T::KIND), "", name)
}

fn document<T: Record>(name: &str, spec: &T) -> Value {
    // None of the types has keys that are no text, so this cannot fail.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    serde_json::json!({
        "apiVersion": API_VERSION,
        "kind": T::KIND,
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn typed<T: Record>(object: &Object) -> Result<Stored<T>, Error> {
    let name = object.key.name.clone();
    let spec = object.value.get("spec").cloned().unwrap_or_else(|| serde_json::json!({}));
    match serde_json::from_value(spec) {
        Ok(spec) => Ok(Stored { name, spec, revision: object.revision.clone() }),
        Err(error) => Err(Error::Damaged { kind: T::KIND, name, reason: error.to_string() }),
    }
}
