//! Objects that are missing and that Calico's own start makes: made here with its defaults.
//!
//! They are made as defaults: a document of the operator, also a later one, goes before them.

use std::io;

use margay_datastore::{Datastore, Error, Key, Kind};
use serde_json::{Value, json};
use tracing::info;

use crate::config::NodeAddresses;

/// First choice for pods, and what is tried where it overlaps with the node's own subnet.
const POOL: &str = "192.168.0.0/16";

/// An object could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefaultsError {
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] Error),
    /// The kernel gives no random numbers.
    #[error("no random identifier for the cluster")]
    Random(#[from] io::Error),
}

/// Makes what is missing. Several nodes may do so at once.
pub(crate) async fn ensure(
    store: &dyn Datastore,
    node: &NodeAddresses,
) -> Result<(), DefaultsError> {
    for value in cluster_objects(&cluster_guid()?) {
        ensure_one(store, value).await?;
    }
    // A pool that was deleted on purpose comes back at the next start, as it does with Calico.
    if store.list(&Kind::calico("IPPool")).await?.objects.is_empty() {
        ensure_one(store, default_pool(node)).await?;
    }
    Ok(())
}

async fn ensure_one(store: &dyn Datastore, value: Value) -> Result<(), Error> {
    let key = Key::of(&value)?;
    match store.get(&key).await {
        Err(error) if error.is_not_found() => {}
        found => return found.map(drop),
    }
    match store.create_default(value).await {
        Ok(_) => {
            info!(object = %key, "made with Calico's defaults");
            Ok(())
        }
        // Another node was faster.
        Err(Error::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn cluster_objects(guid: &str) -> Vec<Value> {
    let tier = |name: &str, order: u32, action: &str| {
        object("Tier", name, json!({"order": order, "defaultAction": action}))
    };
    let cluster = json!({
        "clusterGUID": guid,
        "clusterType": "margay",
        "calicoVersion": concat!("margay-", env!("CARGO_PKG_VERSION")),
        "datastoreReady": true,
    });
    vec![
        object("ClusterInformation", "default", cluster),
        object("FelixConfiguration", "default", json!({"defaultEndpointToHostAction": "Accept"})),
        tier("kube-admin", 1_000, "Pass"),
        tier("default", 1_000_000, "Deny"),
        tier("kube-baseline", 10_000_000, "Pass"),
    ]
}

fn default_pool(node: &NodeAddresses) -> Value {
    let spec = json!({
        "cidr": free_pool(node),
        "blockSize": 26,
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": true,
        "nodeSelector": "all()",
    });
    object("IPPool", "default-ipv4-ippool", spec)
}

/// 192.168.0.0/16, or the first of 172.16.0.0/16 … 172.31.0.0/16 that the node's subnet leaves.
fn free_pool(node: &NodeAddresses) -> String {
    let Some((address, length)) = node.v4 else { return POOL.to_owned() };
    let [a, b, ..] = address.octets();
    let taken = |x: u8, y: u8| match length {
        // A subnet as large as the pools or larger takes all pools within it.
        0..16 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            (u32::from(address) ^ u32::from_be_bytes([x, y, 0, 0])) & mask == 0
        }
        _ => (a, b) == (x, y),
    };
    if !taken(192, 168) {
        return POOL.to_owned();
    }
    let second = (16..=31).find(|second| !taken(172, *second)).unwrap_or(16);
    format!("172.{second}.0.0/16")
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// 32 random hexadecimal digits.
fn cluster_guid() -> io::Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(node_ip: &str) -> String {
        free_pool(&node_ip.parse().unwrap())
    }

    #[test]
    fn the_default_pool_avoids_the_nodes_own_subnet() {
        assert_eq!(pool("10.0.0.1/24"), "192.168.0.0/16");
        assert_eq!(pool("192.168.1.5/24"), "172.16.0.0/16");
        assert_eq!(pool("192.168.1.5"), "172.16.0.0/16");
        assert_eq!(pool("192.168.1.5/15"), "172.16.0.0/16");
        assert_eq!(pool("192.0.0.1/8"), "172.16.0.0/16");
        assert_eq!(pool("172.20.0.1/12"), "192.168.0.0/16");
        assert_eq!(pool("fd00::1"), "192.168.0.0/16");
    }

    #[test]
    fn every_default_has_a_name_and_a_kind() {
        let guid = cluster_guid().unwrap();
        assert_eq!(guid.len(), 32);
        for value in cluster_objects(&guid) {
            assert!(Key::of(&value).is_ok(), "{value}");
        }
    }
}
