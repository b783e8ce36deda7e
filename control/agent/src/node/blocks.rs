//! How many addresses this node has, for metrics.

use std::collections::HashMap;
use std::sync::Arc;

use margay_datastore::{Change, Datastore, Mirror, Object};
use margay_resources::{Kind, Resource};
use tokio::sync::watch;

/// Addresses of this node's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Blocks that are this node's.
    pub(crate) blocks: u64,
    /// Addresses in them.
    pub(crate) total: u64,
    /// Of them those in use, by whichever node.
    pub(crate) used: u64,
}

/// Counts at every change of a block, until the future is dropped.
pub(crate) async fn count_addresses(
    store: Arc<dyn Datastore>,
    node: Arc<str>,
    tell: watch::Sender<Addresses>,
) {
    let mut mirror = Mirror::start(store, &[Kind::IpamBlock.stored()]);
    let affinity = format!("host:{node}");
    let mut own = HashMap::new();
    loop {
        for change in mirror.next().await.changes {
            let count = match &change {
                Change::Upsert(object) => count(object, &affinity),
                Change::Delete(_) => None,
            };
            let key = change.object().key.clone();
            match count {
                Some(count) => own.insert(key, count),
                None => own.remove(&key),
            };
        }
        tell.send_replace(own.values().copied().fold(Addresses::default(), add));
    }
}

/// The addresses of a block, if it is this node's.
fn count(object: &Object, affinity: &str) -> Option<Addresses> {
    let Ok(Resource::IpamBlock(block)) = Resource::from_value(&object.value) else { return None };
    let is_own = block.spec.affinity.as_deref() == Some(affinity) && !block.spec.deleted;
    let used = block.spec.allocations.iter().flatten().count() as u64;
    let total = block.spec.allocations.len() as u64;
    is_own.then_some(Addresses { blocks: 1, total, used })
}

fn add(a: Addresses, b: Addresses) -> Addresses {
    Addresses { blocks: a.blocks + b.blocks, total: a.total + b.total, used: a.used + b.used }
}
