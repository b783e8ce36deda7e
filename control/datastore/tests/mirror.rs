//! The mirror on a bad day.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use margay_datastore::testing::{Faults, Faulty, open_dir};
use margay_datastore::{Change, Datastore, Error, Key, Kind, Mirror};
use serde_json::{Value, json};
use tempfile::tempdir;

const HANDLE: Kind = Kind::calico("IPAMHandle");
const BLOCK: Kind = Kind::calico("IPAMBlock");

fn object(kind: &Kind, name: &str, count: u64) -> Value {
    let api = "projectcalico.org/v3";
    json!({"apiVersion": api, "kind": kind.kind, "metadata": {"name": name}, "spec": {"count": count}})
}

fn note(seen: &mut BTreeMap<Key, u64>, changes: Vec<Change>) {
    for change in changes {
        let object = change.object();
        match &change {
            Change::Upsert(_) => {
                let count = object.value.pointer("/spec/count").and_then(Value::as_u64).unwrap();
                seen.insert(object.key.clone(), count);
            }
            Change::Delete(_) => {
                assert!(seen.remove(&object.key).is_some(), "{} was not there", object.key);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_synced_batch_holds_everything_there_was() {
    let root = tempdir().unwrap();
    let store = open_dir(root.path()).await;
    for name in ["a", "b"] {
        store.create(object(&HANDLE, name, 1)).await.unwrap();
    }
    let mut mirror = Mirror::start(store, &[HANDLE, BLOCK]);
    let mut seen = BTreeMap::new();
    loop {
        let batch = mirror.next().await;
        note(&mut seen, batch.changes);
        if batch.synced {
            break;
        }
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_waits_until_the_consumer_has_finished_with_what_was_written() {
    let root = tempdir().unwrap();
    let store = open_dir(root.path()).await;
    let mut mirror = Mirror::start(store.clone(), &[HANDLE, BLOCK]);
    let handle = mirror.handle();
    let finished = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let seen = finished.clone();
    let consumer = tokio::spawn(async move {
        loop {
            let batch = mirror.next().await;
            // A slow consumer: a barrier that only waits for the hand-out would pass too early.
            tokio::time::sleep(Duration::from_millis(20)).await;
            note(&mut seen.lock().unwrap(), batch.changes);
        }
    });
    for number in 0..10 {
        // Through another client, as another process would.
        let writer = open_dir(root.path()).await;
        let made = writer.create(object(&HANDLE, &format!("h{number}"), number)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(2), handle.barrier()).await.unwrap().unwrap();
        assert_eq!(finished.lock().unwrap().get(&made.key), Some(&number));
    }
    consumer.abort();
    let _ = consumer.await;
    assert!(matches!(handle.barrier().await, Err(Error::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mirrored_agrees_with_the_store_after_any_number_of_lost_watches() {
    let root = tempdir().unwrap();
    let inner = open_dir(root.path()).await;
    let faults = Faults {
        unavailable: 0.1,
        too_old: 0.2,
        dropped_watch: 0.2,
        delay: Duration::from_millis(2),
        ..Faults::default()
    };
    let faulty = Arc::new(Faulty::new(inner.clone(), faults, 7));
    let mut mirror = Mirror::start(faulty.clone(), &[HANDLE, BLOCK]);
    let mut seen = BTreeMap::new();
    let mut expected = BTreeMap::new();
    for step in 0..120_u64 {
        let kind = if step % 3 == 0 { BLOCK } else { HANDLE };
        let name = format!("o{}", step * 7 % 11);
        let key = Key::new(kind.clone(), "", &name);
        if expected.remove(&key).is_some() {
            inner.delete(&key, None).await.unwrap();
        } else {
            inner.create(object(&kind, &name, step)).await.unwrap();
            expected.insert(key, step);
        }
        while let Ok(batch) = tokio::time::timeout(Duration::from_millis(3), mirror.next()).await {
            note(&mut seen, batch.changes);
        }
    }
    faulty.set(Faults::default());
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while seen != expected && std::time::Instant::now() < end {
        if let Ok(batch) = tokio::time::timeout(Duration::from_secs(6), mirror.next()).await {
            note(&mut seen, batch.changes);
        }
    }
    assert_eq!(seen, expected);
    assert!(faulty.injected() >= 5, "{}", faulty.injected());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_edit_says_of_several_kinds_comes_in_one_batch() {
    const KINDS: [Kind; 4] = [HANDLE, common::SET, Kind::calico("Tier"), BLOCK];
    let root = tempdir().unwrap();
    let mut mirror = Mirror::start(open_dir(root.path()).await, &KINDS);
    while !mirror.next().await.synced {}
    for count in 1..=40 {
        let set = common::text("a", count);
        let tier = set.replace("GlobalNetworkSet", "Tier");
        common::put(root.path(), "both.yaml", &format!("{set}---\n{tier}"));
        let mut seen = BTreeMap::new();
        note(&mut seen, mirror.next().await.changes);
        assert_eq!(seen.into_values().collect::<Vec<_>>(), [count, count], "edit {count}");
    }
}
