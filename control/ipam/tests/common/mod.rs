//! What the tests of address management share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::Path;
use std::sync::Arc;

use margay_datastore::testing::open_dir;
use margay_datastore::{Datastore, Key, Kind};
use margay_ipam::block::Attributes;
use margay_ipam::{AutoAssign, Ipam};
use serde_json::{Value, json};

/// A node's own view of a shared directory.
pub(crate) async fn node(root: &Path) -> Ipam {
    Ipam::new(open_dir(root).await)
}

pub(crate) async fn store(root: &Path, kind: &str, name: &str, spec: Value) {
    let document = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    open_dir(root).await.create(document).await.unwrap();
}

pub(crate) async fn remove(root: &Path, kind: &'static str, name: &str) {
    let key = Key::new(Kind::calico(kind), "", name);
    open_dir(root).await.delete(&key, None).await.unwrap();
}

pub(crate) async fn pool(root: &Path, name: &str, cidr: &str, block_size: u8) {
    store(root, "IPPool", name, json!({"cidr": cidr, "blockSize": block_size})).await;
}

pub(crate) fn attributes(node: &str, pod: &str) -> Attributes {
    let pairs = [("node", node), ("namespace", "default"), ("pod", pod)];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// One address of IPv4 for a pod.
pub(crate) fn request(node: &str, handle: &str) -> AutoAssign {
    AutoAssign { v4: 1, ..AutoAssign::workload(node, handle, attributes(node, handle)) }
}

pub(crate) async fn names(store: &Arc<dyn Datastore>, kind: &'static str) -> Vec<String> {
    let listing = store.list(&Kind::calico(kind)).await.unwrap();
    listing.objects.iter().map(|object| object.key.name.clone()).collect()
}

pub(crate) async fn assert_sound(ipam: &Ipam) {
    let report = ipam.check(None).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
