//! Several processes on one directory, some of which die.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use margay_datastore::testing::open_dir;
use margay_datastore::{Datastore, Error, Key, Kind};
use serde_json::{Value, json};
use tempfile::tempdir;

const HANDLE: Kind = Kind::calico("IPAMHandle");
const ROOT: &str = "MARGAY_TEST_ROOT";
const ADDS: &str = "MARGAY_TEST_ADDS";

fn counter(count: u64) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPAMHandle",
        "metadata": {"name": "counter"},
        "spec": {"count": count},
    })
}

async fn count(store: &impl Datastore) -> u64 {
    let object = store.get(&Key::new(HANDLE, "", "counter")).await.unwrap();
    object.value.pointer("/spec/count").and_then(Value::as_u64).unwrap()
}

/// Runs by itself only when the tests below call for it, in a process of its own.
#[tokio::test]
#[ignore = "the other tests of this file start it"]
async fn child() {
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let adds: u64 = std::env::var(ADDS).unwrap().parse().unwrap();
    let store = open_dir(&root).await;
    let key = Key::new(HANDLE, "", "counter");
    let mut added = 0;
    while added < adds {
        let old = store.get(&key).await.unwrap();
        let new = old.value.pointer("/spec/count").and_then(Value::as_u64).unwrap() + 1;
        match store.update(counter(new), Some(&old.revision)).await {
            Ok(_) => added += 1,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn spawn(root: &std::path::Path, adds: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored"])
        .env(ROOT, root)
        .env(ADDS, adds.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn no_update_is_lost_between_processes() {
    let root = tempdir().unwrap();
    let store = open_dir(root.path()).await;
    store.create(counter(0)).await.unwrap();
    let children: Vec<Child> = (0..4).map(|_| spawn(root.path(), 50)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(count(&*store).await, 200);
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_leaves_whole_objects_and_no_lock() {
    let root = tempdir().unwrap();
    let store = open_dir(root.path()).await;
    store.create(counter(0)).await.unwrap();
    for _ in 0..5 {
        let mut child = spawn(root.path(), u64::MAX);
        tokio::time::sleep(Duration::from_millis(150)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let before = count(&*store).await;
        let update = store.update(counter(before + 1), None);
        tokio::time::timeout(Duration::from_secs(2), update).await.unwrap().unwrap();
    }
    assert!(count(&*store).await > 5, "the children did something");
}
