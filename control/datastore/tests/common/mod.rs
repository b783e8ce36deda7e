//! What the tests of the directory share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::Path;

use margay_datastore::{Datastore, Key, Kind};
use serde_json::Value;

pub(crate) const SET: Kind = Kind::calico("GlobalNetworkSet");

pub(crate) fn text(name: &str, count: u64) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: {name}\nspec:\n  count: {count}\n"
    )
}

/// Puts a file in place the way the contract names: by a rename.
pub(crate) fn put(root: &Path, path: &str, content: &str) {
    let target = root.join(path);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    let temporary = root.join(format!(".{}.tmp", path.replace('/', "_")));
    fs::write(&temporary, content).unwrap();
    fs::rename(temporary, target).unwrap();
}

pub(crate) async fn count_of(store: &impl Datastore, name: &str) -> Option<u64> {
    let object = store.get(&Key::new(SET, "", name)).await.ok()?;
    object.value.pointer("/spec/count").and_then(Value::as_u64)
}

pub(crate) async fn names(store: &impl Datastore) -> Vec<String> {
    let listing = store.list(&SET).await.unwrap();
    listing.objects.iter().map(|object| object.key.name.clone()).collect()
}
