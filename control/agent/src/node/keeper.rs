//! Writes this node's object, whenever something that it depends on changes.

use std::sync::Arc;
use std::time::Duration;

use margay_datastore::{Datastore, Error, Mirror, Object};
use margay_ipam::Ipam;
use margay_resources::v3::Node;
use margay_resources::{Kind, Resource, ResourceError};
use tokio::time::sleep;
use tracing::{info, warn};

use super::object::{Facts, KubernetesNode, desired};
use super::tunnels::{self, Wanted};
use crate::config::NodeAddresses;

/// How often a write is repeated when others write the same object.
const ATTEMPTS: u32 = 20;
/// Between two attempts after a failure: at first, and at last.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Keeps the Node object of this node.
pub(crate) struct Keeper {
    pub(crate) store: Arc<dyn Datastore>,
    pub(crate) ipam: Arc<Ipam>,
    pub(crate) name: Arc<str>,
    pub(crate) addresses: NodeAddresses,
}

/// The object could not be written, or not all of it be found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    #[error(transparent)]
    Datastore(#[from] Error),
    #[error(transparent)]
    Read(#[from] ResourceError),
    #[error("an address in a tunnel is missing")]
    Tunnel(#[from] margay_ipam::Error),
}

// === impl Keeper ===

impl Keeper {
    /// Reconciles at every change, until the future is dropped.
    pub(crate) async fn run(self) {
        let kinds = [Kind::IpPool, Kind::Node, Kind::KubernetesNode].map(Kind::stored);
        let mut mirror = Mirror::start(self.store.clone(), &kinds);
        loop {
            let batch = mirror.next().await;
            let concerns_us = batch.changes.iter().any(|change| {
                let key = &change.object().key;
                key.kind == Kind::IpPool.stored() || key.name == *self.name
            });
            if !concerns_us {
                continue;
            }
            let [mut pause, longest] = RETRY;
            while let Err(error) = self.reconcile().await {
                warn!(node = &*self.name, %error, "the Node object is not complete, trying again");
                sleep(pause).await;
                pause = longest.min(pause * 2);
            }
        }
    }

    /// Makes the object say what it should.
    pub(crate) async fn reconcile(&self) -> Result<(), KeeperError> {
        let pools = self.store.list(&Kind::IpPool.stored()).await?.objects;
        let (tunnels, ensured) = tunnels::ensure(&self.ipam, &self.name, Wanted::by(&pools)).await;
        let facts = Facts {
            name: self.name.to_string(),
            addresses: self.addresses,
            kubernetes: self.kubernetes().await?,
            tunnels,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.write(&facts).await {
                Err(KeeperError::Datastore(error)) if error.is_race() && attempt < ATTEMPTS => {}
                done => return done.and(ensured.map_err(KeeperError::from)),
            }
        }
    }

    async fn write(&self, facts: &Facts) -> Result<(), KeeperError> {
        let before = self.read(Kind::Node).await?;
        let (node, revision) = match before {
            Some((Resource::Node(node), object)) => (Some(*node), Some(object.revision.clone())),
            _ => (None, None),
        };
        let wanted = desired(node.clone(), facts);
        if node.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let value = value_of(wanted);
        match revision {
            Some(revision) => self.store.update(value, Some(&revision)).await?,
            None => self.store.create(value).await?,
        };
        info!(node = &*self.name, "wrote the Node object");
        Ok(())
    }

    async fn kubernetes(&self) -> Result<Option<KubernetesNode>, KeeperError> {
        let Some((Resource::KubernetesNode(node), _)) = self.read(Kind::KubernetesNode).await?
        else {
            return Ok(None);
        };
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        Ok(Some(KubernetesNode {
            labels: node.metadata.labels.unwrap_or_default(),
            internal: internal.filter_map(|address| address.address.parse().ok()).collect(),
        }))
    }

    /// The object of this kind that has the node's name.
    async fn read(&self, kind: Kind) -> Result<Option<(Resource, Arc<Object>)>, KeeperError> {
        match self.store.get(&kind.key("", &self.name)).await {
            Ok(object) => Ok(Some((Resource::from_value(&object.value)?, object))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn value_of(node: Node) -> serde_json::Value {
    Resource::Node(Box::new(node)).to_value()
}
