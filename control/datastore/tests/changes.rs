//! Files that come, change and go are told in time.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{SET, count_of, put, text};
use margay_datastore::testing::open_dir;
use margay_datastore::{Change, Mirror};
use tempfile::{TempDir, tempdir};
use tokio::sync::{Mutex, MutexGuard};

/// Patience with a loaded machine; far less than until everything is looked at again.
const IN_FORCE: Duration = Duration::from_secs(2);

/// Everything that the watch tells about `root`, until it is quiet.
struct Watched {
    _alone: MutexGuard<'static, ()>,
    root: TempDir,
    mirror: Mirror,
    store: Arc<margay_datastore::dir::Dir>,
}

impl Watched {
    async fn start() -> Self {
        // Each waits for its changes with patience: one test after the other.
        static ALONE: Mutex<()> = Mutex::const_new(());
        let _alone = ALONE.lock().await;
        let root = tempdir().unwrap();
        let store = open_dir(root.path()).await;
        let mut mirror = Mirror::start(store.clone(), &[SET]);
        assert!(mirror.next().await.synced);
        // The watches on the folders stand once a first change has come.
        put(root.path(), "first.yaml", &text("first", 1));
        mirror.next().await;
        Self { _alone, root, mirror, store }
    }

    /// Waits for changes of `names`, all of one kind, at most `limit`.
    async fn wait(&mut self, names: &BTreeSet<String>, deleted: bool, limit: Duration) {
        let begun = Instant::now();
        let mut left = names.clone();
        while !left.is_empty() {
            let rest = limit.saturating_sub(begun.elapsed());
            let batch = tokio::time::timeout(rest, self.mirror.next()).await;
            let batch = batch.unwrap_or_else(|_| panic!("{} of {} late", left.len(), names.len()));
            for change in batch.changes {
                assert_eq!(matches!(change, Change::Delete(_)), deleted, "{change:?}");
                left.remove(&change.object().key.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_documents_are_told_in_time_when_they_come_change_and_go() {
    let mut watched = Watched::start().await;
    let names: BTreeSet<String> = (0..100).map(|n| format!("n{n}")).collect();
    for count in [1, 2] {
        for name in &names {
            put(watched.root.path(), &format!("{name}.yaml"), &text(name, count));
        }
        watched.wait(&names, false, IN_FORCE).await;
    }
    for name in &names {
        fs::remove_file(watched.root.path().join(format!("{name}.yaml"))).unwrap();
    }
    watched.wait(&names, true, IN_FORCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_folder_with_files_in_it_is_told_in_time() {
    let mut watched = Watched::start().await;
    let staging = tempdir().unwrap();
    put(staging.path(), "sub/deep/a.yaml", &text("a", 1));
    put(watched.root.path(), "made/b.yaml", &text("b", 1));
    fs::rename(staging.path().join("sub"), watched.root.path().join("sub")).unwrap();
    watched.wait(&["a".to_owned(), "b".to_owned()].into(), false, IN_FORCE).await;
    put(watched.root.path(), "sub/deep/c.yaml", &text("c", 1));
    watched.wait(&["c".to_owned()].into(), false, IN_FORCE).await;
    fs::remove_dir_all(watched.root.path().join("sub")).unwrap();
    watched.wait(&["a".to_owned(), "c".to_owned()].into(), true, IN_FORCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_change_in_a_file_of_five_thousand_documents_is_told_alone() {
    let mut watched = Watched::start().await;
    let names: BTreeSet<String> = (0..5000).map(|n| format!("n{n:04}")).collect();
    let file = |changed: &str| {
        let texts = names.iter().map(|name| text(name, u64::from(name == changed)));
        texts.collect::<Vec<_>>().join("---\n")
    };
    put(watched.root.path(), "all.yaml", &file(""));
    watched.wait(&names, false, Duration::from_secs(20)).await;
    put(watched.root.path(), "all.yaml", &file("n2500"));
    let batch = tokio::time::timeout(IN_FORCE, watched.mirror.next()).await.unwrap();
    assert_eq!(batch.changes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_files_are_told_within_seconds() {
    let mut watched = Watched::start().await;
    let names: BTreeSet<String> = (0..5000).map(|n| format!("n{n}")).collect();
    let staging = tempdir().unwrap();
    for name in &names {
        fs::create_dir_all(staging.path().join("many")).unwrap();
        fs::write(staging.path().join(format!("many/{name}.yaml")), text(name, 1)).unwrap();
    }
    let many = watched.root.path().join("many");
    fs::rename(staging.path().join("many"), &many).unwrap();
    watched.wait(&names, false, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_moves_to_another_file_never_seems_gone() {
    let mut watched = Watched::start().await;
    put(watched.root.path(), "a.yaml", &text("a", 1));
    watched.wait(&["a".to_owned()].into(), false, IN_FORCE).await;
    fs::rename(watched.root.path().join("a.yaml"), watched.root.path().join("b.yaml")).unwrap();
    put(watched.root.path(), "c.yaml", &text("c", 1));
    let mut told = Vec::new();
    while told.last() != Some(&"c".to_owned()) {
        for change in watched.mirror.next().await.changes {
            assert!(!matches!(change, Change::Delete(_)), "{change:?}");
            told.push(change.object().key.name.clone());
        }
    }
    assert_eq!(told, ["c"], "the same content elsewhere is no change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_is_followed_through_its_links() {
    let mut watched = Watched::start().await;
    let root = watched.root.path().to_owned();
    let publish = |version: &str, count| {
        put(&root, &format!("map/..{version}/a.yaml"), &text("a", count));
        let link = root.join("map/..data_tmp");
        std::os::unix::fs::symlink(format!("..{version}"), &link).unwrap();
        fs::rename(link, root.join("map/..data")).unwrap();
    };
    publish("1", 1);
    std::os::unix::fs::symlink("..data/a.yaml", root.join("map/a.yaml")).unwrap();
    watched.wait(&["a".to_owned()].into(), false, IN_FORCE).await;
    publish("2", 2);
    watched.wait(&["a".to_owned()].into(), false, IN_FORCE).await;
    assert_eq!(count_of(&*watched.store, "a").await, Some(2));
}
