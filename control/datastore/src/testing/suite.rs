//! What every backend has to fulfil: the contract of [`Datastore`], point by point.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::error::Error;
use crate::object::{Cursor, Key, Kind, Object};
use crate::store::{Change, Datastore, EventStream};

const PATIENCE: Duration = Duration::from_secs(5);
/// One kind that the machine writes and one that people write.
const KINDS: [Kind; 2] = [Kind::calico("IPAMHandle"), Kind::calico("GlobalNetworkSet")];

/// Runs the suite on a backend. Every call of `open` gives another client of one store that was
/// empty at first.
///
/// # Panics
/// When the backend breaks the contract.
pub async fn run(open: impl AsyncFn() -> Arc<dyn Datastore>) {
    let store = open().await;
    for kind in &KINDS {
        verbs_answer_as_they_should(&store, kind).await;
        a_stale_revision_changes_nothing(&store, kind).await;
        a_revision_does_not_return(&store, kind).await;
        a_watch_tells_every_change_once(&store, kind).await;
        one_client_sees_what_another_writes(&store, &open().await, kind).await;
        no_update_is_lost(&[store.clone(), open().await, open().await], kind).await;
    }
    a_watch_of_the_past_or_future_is_too_old(&store).await;
    sync_gives_a_place_that_watches_reach(&store).await;
}

fn object(kind: &Kind, name: &str, count: u64) -> Value {
    json!({
        "apiVersion": format!("{}/v3", kind.group),
        "kind": kind.kind,
        "metadata": {"name": name},
        "spec": {"count": count},
    })
}

fn count_of(object: &Object) -> u64 {
    object.value.pointer("/spec/count").and_then(Value::as_u64).expect("a count")
}

fn key(kind: &Kind, name: &str) -> Key {
    Key::new(kind.clone(), "", name)
}

async fn verbs_answer_as_they_should(store: &Arc<dyn Datastore>, kind: &Kind) {
    let key = key(kind, "verbs");
    assert!(matches!(store.get(&key).await, Err(Error::NotFound(k)) if k == key));
    assert!(matches!(store.delete(&key, None).await, Err(Error::NotFound(_))));
    let absent = store.update(object(kind, "verbs", 0), None).await;
    assert!(matches!(absent, Err(Error::NotFound(_))), "{absent:?}");

    let made = store.create(object(kind, "verbs", 1)).await.expect("creates");
    assert_eq!(made.key, key);
    assert_eq!(made.value, object(kind, "verbs", 1));
    assert_eq!(store.get(&key).await.expect("is there"), made);
    let again = store.create(object(kind, "verbs", 2)).await;
    assert!(matches!(again, Err(Error::AlreadyExists(_))), "{again:?}");

    let listing = store.list(kind).await.expect("lists");
    assert_eq!(listing.objects, std::slice::from_ref(&made));

    let changed = store.update(object(kind, "verbs", 3), Some(&made.revision)).await;
    let changed = changed.expect("updates");
    assert_ne!(changed.revision, made.revision);
    assert_eq!(store.get(&key).await.expect("is there"), changed);
    store.update(object(kind, "verbs", 4), None).await.expect("updates in any case");

    let gone = store.delete(&key, None).await.expect("deletes");
    assert_eq!(count_of(&gone), 4);
    assert!(store.list(kind).await.expect("lists").objects.is_empty());
    assert!(matches!(store.create(json!({"kind": "x"})).await, Err(Error::Unnamed(_))));
}

async fn a_stale_revision_changes_nothing(store: &Arc<dyn Datastore>, kind: &Kind) {
    let key = key(kind, "stale");
    let old = store.create(object(kind, "stale", 1)).await.expect("creates");
    let new = store.update(object(kind, "stale", 2), Some(&old.revision)).await.expect("updates");
    let update = store.update(object(kind, "stale", 3), Some(&old.revision)).await;
    assert!(matches!(update, Err(Error::Conflict { found, .. }) if found == new.revision));
    let delete = store.delete(&key, Some(&old.revision)).await;
    assert!(matches!(delete, Err(Error::Conflict { .. })));
    assert_eq!(store.get(&key).await.expect("is there"), new);
    store.delete(&key, Some(&new.revision)).await.expect("deletes");
}

async fn a_revision_does_not_return(store: &Arc<dyn Datastore>, kind: &Kind) {
    let first = store.create(object(kind, "again", 1)).await.expect("creates");
    store.delete(&first.key, None).await.expect("deletes");
    let second = store.create(object(kind, "again", 2)).await.expect("creates");
    let late = store.update(object(kind, "again", 3), Some(&first.revision)).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    store.delete(&second.key, None).await.expect("deletes");
}

async fn next_change(events: &mut EventStream) -> Change {
    loop {
        let event = timeout(PATIENCE, events.next()).await.expect("an event in time");
        let event = event.expect("the watch goes on").expect("no error");
        if let Some(change) = event.change {
            return change;
        }
    }
}

async fn a_watch_tells_every_change_once(store: &Arc<dyn Datastore>, kind: &Kind) {
    let before = store.list(kind).await.expect("lists").at;
    let made = store.create(object(kind, "seen", 1)).await.expect("creates");
    let mut events = store.watch(kind, before).await.expect("watches");
    assert_eq!(next_change(&mut events).await, Change::Upsert(made.clone()));
    let changed = store.update(object(kind, "seen", 2), None).await.expect("updates");
    assert_eq!(next_change(&mut events).await, Change::Upsert(changed));
    let gone = store.delete(&made.key, None).await.expect("deletes");
    assert_eq!(next_change(&mut events).await, Change::Delete(gone));

    let at = store.list(kind).await.expect("lists").at;
    let mut later = store.watch(kind, at).await.expect("watches");
    let last = store.create(object(kind, "later", 1)).await.expect("creates");
    assert_eq!(next_change(&mut later).await, Change::Upsert(last.clone()));
    assert_eq!(next_change(&mut events).await, Change::Upsert(last.clone()));
    store.delete(&last.key, None).await.expect("deletes");
}

async fn one_client_sees_what_another_writes(
    writer: &Arc<dyn Datastore>,
    other: &Arc<dyn Datastore>,
    kind: &Kind,
) {
    let at = other.list(kind).await.expect("lists").at;
    let mut events = other.watch(kind, at).await.expect("watches");
    let made = writer.create(object(kind, "shared", 1)).await.expect("creates");
    assert_eq!(next_change(&mut events).await, Change::Upsert(made.clone()));
    assert_eq!(other.get(&made.key).await.expect("is there"), made);
    other.delete(&made.key, Some(&made.revision)).await.expect("deletes");
    assert!(matches!(writer.delete(&made.key, None).await, Err(Error::NotFound(_))));
}

async fn no_update_is_lost(clients: &[Arc<dyn Datastore>], kind: &Kind) {
    const EACH: u64 = 10;
    let made = clients[0].create(object(kind, "count", 0)).await.expect("creates");
    let tasks = clients.iter().flat_map(|c| [c.clone(), c.clone()]).map(|client| {
        let (kind, key) = (kind.clone(), made.key.clone());
        tokio::spawn(async move {
            let mut added = 0;
            while added < EACH {
                let old = client.get(&key).await.expect("is there");
                let new = object(&kind, "count", count_of(&old) + 1);
                match client.update(new, Some(&old.revision)).await {
                    Ok(_) => added += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let count = tasks.collect::<Vec<_>>();
    let expected = EACH * count.len() as u64;
    for task in count {
        task.await.expect("adds");
    }
    clients[0].sync(&KINDS).await.expect("syncs");
    let end = clients[0].get(&made.key).await.expect("is there");
    assert_eq!(count_of(&end), expected);
    clients[0].delete(&made.key, None).await.expect("deletes");
}

async fn a_watch_of_the_past_or_future_is_too_old(store: &Arc<dyn Datastore>) {
    let at = store.list(&KINDS[0]).await.expect("lists").at;
    let future = store.watch(&KINDS[0], Cursor(at.0 + 1_000_000)).await;
    assert!(matches!(future.map(|_| ()), Err(Error::TooOld { .. })));
}

async fn sync_gives_a_place_that_watches_reach(store: &Arc<dyn Datastore>) {
    let at = store.list(&KINDS[0]).await.expect("lists").at;
    let mut events = store.watch(&KINDS[0], at).await.expect("watches");
    // A change of another kind must not leave the watch behind.
    let other = store.create(object(&KINDS[1], "other", 1)).await.expect("creates");
    let places = store.sync(&KINDS).await.expect("syncs");
    assert_eq!(places.len(), KINDS.len());
    let mut reached = at;
    while reached < places[0] {
        let event = timeout(PATIENCE, events.next()).await.expect("an event in time");
        reached = event.expect("the watch goes on").expect("no error").at;
    }
    store.delete(&other.key, None).await.expect("deletes");
}
