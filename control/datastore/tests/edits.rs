//! What `margayctl` writes into the files of people.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{SET, count_of, names, put, text};
use margay_datastore::testing::{eventually, open_dir};
use margay_datastore::{Datastore, Error, Key};
use serde_json::{Value, json};
use tempfile::tempdir;

fn value(name: &str, count: u64) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": name},
        "spec": {"count": count},
    })
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

#[tokio::test]
async fn an_update_rewrites_its_document_and_leaves_the_others_byte_for_byte() {
    let root = tempdir().unwrap();
    let (first, last) = ("# mine\n".to_owned() + &text("a", 1), text("c", 1) + "# end\n");
    put(root.path(), "x/all.yaml", &format!("{first}---\n# why\n{}---\n{last}", text("b", 1)));
    let store = open_dir(root.path()).await;
    store.update(value("b", 2), None).await.unwrap();
    let expected = format!("{first}---\n# why\n{}---\n{last}", text("b", 2));
    assert_eq!(read(root.path(), "x/all.yaml"), expected);
    store.delete(&Key::new(SET, "", "b"), None).await.unwrap();
    assert_eq!(read(root.path(), "x/all.yaml"), format!("{first}---\n{last}"));
    for name in ["a", "c"] {
        store.delete(&Key::new(SET, "", name), None).await.unwrap();
    }
    assert!(!root.path().join("x/all.yaml").exists());
}

#[tokio::test]
async fn items_of_a_list_are_rewritten_in_place() {
    let root = tempdir().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [value("a", 1), value("b", 1)]});
    put(root.path(), "list.json", &list.to_string());
    let store = open_dir(root.path()).await;
    store.update(value("a", 2), None).await.unwrap();
    assert_eq!(count_of(&*store, "a").await, Some(2));
    assert_eq!(count_of(&*store, "b").await, Some(1));
    for name in ["a", "b"] {
        store.delete(&Key::new(SET, "", name), None).await.unwrap();
    }
    assert!(!root.path().join("list.json").exists());
}

#[tokio::test]
async fn a_new_object_gets_a_file_of_its_own_that_replaces_none() {
    let root = tempdir().unwrap();
    put(root.path(), "globalnetworkset-a.yaml", &text("other", 1));
    let store = open_dir(root.path()).await;
    store.create(value("a", 1)).await.unwrap();
    store.create(value("b", 1)).await.unwrap();
    assert_eq!(names(&*store).await, ["a", "b", "other"]);
    assert_eq!(read(root.path(), "globalnetworkset-b.yaml"), text("b", 1));
    let invalid = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "c"},
        "spec": {"bad": 1},
    });
    assert!(matches!(store.create(invalid).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_default_of_the_machine_gives_way_to_a_later_document() {
    let root = tempdir().unwrap();
    let store = open_dir(root.path()).await;
    store.create_default(value("a", 1)).await.unwrap();
    assert!(matches!(store.create_default(value("a", 1)).await, Err(Error::AlreadyExists(_))));
    assert_eq!(count_of(&*store, "a").await, Some(1));
    assert!(root.path().join("state/GlobalNetworkSet/a.json").exists());
    put(root.path(), "zz.yaml", &text("a", 2));
    store.sync(&[SET]).await.unwrap();
    assert_eq!(count_of(&*store, "a").await, Some(2));
    fs::remove_file(root.path().join("zz.yaml")).unwrap();
    let found = eventually(Duration::from_secs(1), async || {
        store.sync(&[SET]).await.unwrap();
        count_of(&*store, "a").await.filter(|count| *count == 1)
    });
    assert_eq!(found.await, Some(1));
}
