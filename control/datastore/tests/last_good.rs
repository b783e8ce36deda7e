//! What stays in force while a document is bad: by object, over renames and over restarts.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{SET, count_of, names, put, text};
use margay_datastore::dir::Dir;
use margay_datastore::testing::{eventually, open_dir};
use margay_datastore::{Cursor, Datastore, Error, EventStream, Key};
use serde_json::json;
use tempfile::tempdir;

const PATIENCE: Duration = Duration::from_secs(5);
const BROKEN: &str = "kind: [\n";

fn bad(name: &str) -> String {
    text(name, 9).replace("count", "bad")
}

/// A store that is watched, as the agent's is, and its watch.
async fn watched(root: &Path) -> (Arc<Dir>, EventStream) {
    let store = open_dir(root).await;
    let at = store.list(&SET).await.unwrap().at;
    let watch = store.watch(&SET, at).await.unwrap();
    (store, watch)
}

/// Waits until so many last good versions are on disk.
async fn kept(root: &Path, count: usize) {
    let folder = root.join("state/.last-good/GlobalNetworkSet");
    let is_so = eventually(PATIENCE, async || {
        let files = fs::read_dir(&folder).map_or(0, |entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter(|name| name.to_string_lossy().ends_with(".json")).count()
        });
        (files == count).then_some(())
    });
    assert!(is_so.await.is_some(), "{count} last good versions are kept");
}

async fn count_after(store: &Arc<Dir>, name: &str) -> Option<u64> {
    store.sync(&[SET]).await.unwrap();
    count_of(&**store, name).await
}

// === over restarts ===

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_bad_when_the_process_starts_keeps_its_last_good_version() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let first = watched(root.path()).await;
    put(root.path(), "a.yaml", &bad("a"));
    kept(root.path(), 1).await;
    let revision = first.0.get(&Key::new(SET, "", "a")).await.unwrap().revision.clone();
    drop(first);

    for _ in 0..2 {
        let (store, _watch) = watched(root.path()).await;
        assert_eq!(count_of(&*store, "a").await, Some(1));
        assert_eq!(store.get(&Key::new(SET, "", "a")).await.unwrap().revision, revision);
    }

    fs::rename(root.path().join("a.yaml"), root.path().join("b.yaml")).unwrap();
    let (store, _watch) = watched(root.path()).await;
    assert_eq!(count_of(&*store, "a").await, Some(1), "renamed while nobody looked");
    put(root.path(), "b.yaml", &text("a", 2));
    assert_eq!(count_after(&store, "a").await, Some(2));
    kept(root.path(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_broken_to_name_its_objects_keeps_them_over_a_restart() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &format!("{}---\n{}", text("a", 1), text("b", 1)));
    put(root.path(), "c.yaml", &text("c", 1));
    let first = watched(root.path()).await;
    put(root.path(), "a.yaml", &format!("{BROKEN}---\n{}", text("b", 2)));
    fs::write(root.path().join("c.yaml"), b"\xff\xfe\n").unwrap();
    kept(root.path(), 2).await;
    drop(first);

    let (store, watch) = watched(root.path()).await;
    assert_eq!(names(&*store).await, ["a", "b", "c"]);
    assert_eq!(count_of(&*store, "b").await, Some(2));
    drop((store, watch));

    fs::rename(root.path().join("a.yaml"), root.path().join("z.yaml")).unwrap();
    let (store, _watch) = watched(root.path()).await;
    assert_eq!(names(&*store).await, ["a", "b", "c"], "renamed while nobody looked");
    fs::remove_file(root.path().join("z.yaml")).unwrap();
    fs::remove_file(root.path().join("c.yaml")).unwrap();
    store.sync(&[SET]).await.unwrap();
    assert!(names(&*store).await.is_empty());
    kept(root.path(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_document_that_goes_while_nobody_looks_takes_its_object_along() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let first = watched(root.path()).await;
    put(root.path(), "a.yaml", &bad("a"));
    kept(root.path(), 1).await;
    drop(first);
    fs::remove_file(root.path().join("a.yaml")).unwrap();

    let (store, _watch) = watched(root.path()).await;
    assert_eq!(count_of(&*store, "a").await, None);
    kept(root.path(), 0).await;
    put(root.path(), "a.yaml", &bad("a"));
    assert_eq!(count_after(&store, "a").await, None, "it is not raised from the dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_removed_by_mistake_is_put_back() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let (_store, _watch) = watched(root.path()).await;
    put(root.path(), "a.yaml", &bad("a"));
    kept(root.path(), 1).await;
    fs::remove_file(root.path().join("state/.last-good/GlobalNetworkSet/a.json")).unwrap();
    put(root.path(), "other.yaml", &text("b", 1));
    kept(root.path(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_stops_nothing() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &bad("a"));
    put(root.path(), "b.yaml", &text("b", 1));
    put(root.path(), "state/.last-good/GlobalNetworkSet/a.json", "{\"object\": 7}");
    let (store, _watch) = watched(root.path()).await;
    assert_eq!(names(&*store).await, ["b"]);
}

// === over renames ===

#[tokio::test]
async fn a_bad_document_that_is_renamed_keeps_its_last_good_version() {
    let root = tempdir().unwrap();
    for (was, becomes) in [(bad("a"), "0.yaml"), (BROKEN.to_owned(), "z.yaml")] {
        put(root.path(), "a.yaml", &text("a", 1));
        let store = open_dir(root.path()).await;
        put(root.path(), "a.yaml", &was);
        assert_eq!(count_after(&store, "a").await, Some(1));
        fs::rename(root.path().join("a.yaml"), root.path().join(becomes)).unwrap();
        assert_eq!(count_after(&store, "a").await, Some(1), "{becomes}");
        fs::remove_file(root.path().join(becomes)).unwrap();
        assert_eq!(count_after(&store, "a").await, None, "{becomes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_a_watch_tells_of_takes_nothing_away() {
    let root = tempdir().unwrap();
    put(root.path(), "m.yaml", &text("a", 1));
    let (store, _watch) = watched(root.path()).await;
    let versions = [bad("a"), BROKEN.to_owned()];
    let noticed = || tokio::time::sleep(Duration::from_millis(100));
    for (version, name) in versions.iter().cycle().zip(["z.yaml", "0.yaml", "y.yaml", "1.yaml"]) {
        put(root.path(), "m.yaml", version);
        noticed().await;
        fs::rename(root.path().join("m.yaml"), root.path().join(name)).unwrap();
        noticed().await;
        fs::rename(root.path().join(name), root.path().join("m.yaml")).unwrap();
        noticed().await;
    }
    store.sync(&[SET]).await.unwrap();
    let mut told = store.watch(&SET, Cursor(1)).await.unwrap();
    put(root.path(), "end.yaml", &text("b", 1));
    let first = futures::StreamExt::next(&mut told).await.unwrap().unwrap().change.unwrap();
    assert_eq!(first.object().key.name, "b", "nothing was told of a: {first:?}");
}

#[tokio::test]
async fn a_bad_copy_keeps_the_object_when_its_good_document_goes() {
    let root = tempdir().unwrap();
    put(root.path(), "m.yaml", &text("a", 1));
    let store = open_dir(root.path()).await;
    put(root.path(), "z.yaml", &bad("a"));
    store.sync(&[SET]).await.unwrap();
    fs::remove_file(root.path().join("m.yaml")).unwrap();
    assert_eq!(count_after(&store, "a").await, Some(1));
    fs::remove_file(root.path().join("z.yaml")).unwrap();
    assert_eq!(count_after(&store, "a").await, None);
}

// === beside good documents ===

#[tokio::test]
async fn a_good_document_goes_before_an_old_version_wherever_its_file_stands() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let store = open_dir(root.path()).await;
    put(root.path(), "a.yaml", &bad("a"));
    put(root.path(), "z.yaml", &text("a", 2));
    assert_eq!(count_after(&store, "a").await, Some(2));
    put(root.path(), "z.yaml", &text("a", 3));
    assert_eq!(count_after(&store, "a").await, Some(3));
    fs::remove_file(root.path().join("z.yaml")).unwrap();
    assert_eq!(count_after(&store, "a").await, Some(3), "the last good one of the object");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_bad_document_does_not_bring_back_the_machines_default() {
    let root = tempdir().unwrap();
    let default = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "a"},
        "spec": {"count": 7},
    });
    open_dir(root.path()).await.create_default(default).await.unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let first = watched(root.path()).await;
    put(root.path(), "a.yaml", &bad("a"));
    kept(root.path(), 1).await;
    assert_eq!(count_of(&*first.0, "a").await, Some(1));
    drop(first);
    let (store, _watch) = watched(root.path()).await;
    assert_eq!(count_of(&*store, "a").await, Some(1));
    fs::remove_file(root.path().join("a.yaml")).unwrap();
    assert_eq!(count_after(&store, "a").await, Some(7));
}

#[tokio::test]
async fn a_bad_document_that_was_good_once_can_be_replaced_in_its_file() {
    let root = tempdir().unwrap();
    put(root.path(), "mine.yaml", &text("a", 1));
    let store = open_dir(root.path()).await;
    put(root.path(), "mine.yaml", &bad("a"));
    store.sync(&[SET]).await.unwrap();
    let mended = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "a"},
        "spec": {"count": 2},
    });
    store.update(mended, None).await.unwrap();
    assert_eq!(fs::read_to_string(root.path().join("mine.yaml")).unwrap(), text("a", 2));
}

// === what was never good ===

#[tokio::test]
async fn a_document_that_was_never_good_is_refused_with_its_file_line_and_field() {
    let root = tempdir().unwrap();
    put(root.path(), "x/all.yaml", &format!("{}---\n{}", text("b", 1), bad("a")));
    let store = open_dir(root.path()).await;
    let error = store.get(&Key::new(SET, "", "a")).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "GlobalNetworkSet.projectcalico.org a is refused: x/all.yaml:13: spec.bad: is not allowed"
    );
    put(root.path(), "x/all.yaml", &text("b", 1));
    store.sync(&[SET]).await.unwrap();
    let error = store.get(&Key::new(SET, "", "a")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
}
