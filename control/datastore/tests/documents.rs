//! What people write: what is read of it, and what becomes of what is bad.

mod common;

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

use common::{SET, count_of, names, put, text};
use margay_datastore::testing::open_dir;
use margay_datastore::{Datastore, Error, Key};
use serde_json::json;
use tempfile::tempdir;

// === the log ===

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of the whole test process; the files of a test have names of their own.
fn log() -> &'static Lines {
    static LOG: OnceLock<Lines> = OnceLock::new();
    LOG.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        log.init();
        lines
    })
}

fn errors_about(file: &str) -> Vec<String> {
    let log = String::from_utf8(log().0.lock().unwrap().clone()).unwrap();
    let needle = format!("file={file} ");
    log.lines().filter(|l| l.contains("ERROR") && l.contains(&needle)).map(str::to_owned).collect()
}

// === what is read ===

#[tokio::test]
async fn all_forms_of_documents_are_read_and_nothing_else() {
    let root = tempdir().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet", "metadata": {"name": "d"}},
        {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet", "metadata": {"name": "e"}},
    ]});
    put(root.path(), "a.yaml", &format!("{}---\n{}", text("a", 1), text("b", 1)));
    put(root.path(), "x/y/c.yml", &text("c", 1));
    put(root.path(), "d.json", &list.to_string());
    put(root.path(), ".hidden.yaml", &text("no", 1));
    put(root.path(), ".git/h.yaml", &text("no", 1));
    put(root.path(), "notes.txt", &text("no", 1));
    put(root.path(), "empty.yaml", "# nothing\n---\n---\n");
    let store = open_dir(root.path()).await;
    assert_eq!(names(&*store).await, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_missing_directory_is_an_error_that_names_it() {
    let root = tempdir().unwrap();
    let missing = root.path().join("nothing");
    let reader = Arc::new(margay_datastore::testing::PlainReader);
    let error = margay_datastore::dir::Dir::open(&missing, reader).await.err().unwrap();
    assert!(error.to_string().contains("nothing"), "{error}");
}

#[tokio::test]
async fn a_revision_in_a_document_is_ignored_and_its_own_follows_from_the_content() {
    let root = tempdir().unwrap();
    let exported = text("a", 1).replace("  name: a\n", "  name: a\n  resourceVersion: \"7\"\n");
    put(root.path(), "a.yaml", &exported);
    let first = open_dir(root.path()).await.get(&Key::new(SET, "", "a")).await.unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let second = open_dir(root.path()).await.get(&Key::new(SET, "", "a")).await.unwrap();
    assert_eq!(first, second);
    assert_ne!(first.revision.0.as_ref(), "7");
}

// === what is bad ===

#[tokio::test]
async fn a_bad_document_leaves_its_last_good_version_and_the_others_apply() {
    log();
    let root = tempdir().unwrap();
    let file = "bad-spec.yaml";
    put(root.path(), file, &format!("{}---\n{}", text("a", 1), text("b", 1)));
    let store = open_dir(root.path()).await;
    let bad = text("a", 2).replace("count", "bad");
    put(root.path(), file, &format!("{bad}---\n{}", text("b", 2)));
    put(root.path(), "other.yaml", &text("c", 1));
    for _ in 0..3 {
        store.sync(&[SET]).await.unwrap();
    }
    assert_eq!(count_of(&*store, "a").await, Some(1));
    assert_eq!(count_of(&*store, "b").await, Some(2));
    assert_eq!(count_of(&*store, "c").await, Some(1));
    let errors = errors_about(file);
    assert_eq!(errors.len(), 1, "one line for one content: {errors:#?}");
    assert!(errors[0].contains("line=6") && errors[0].contains("field=spec.bad"), "{errors:?}");

    put(root.path(), file, &format!("{}---\n{}", text("a", 3), text("b", 2)));
    store.sync(&[SET]).await.unwrap();
    assert_eq!(count_of(&*store, "a").await, Some(3));
}

#[tokio::test]
async fn a_document_that_cannot_be_parsed_takes_nothing_away() {
    log();
    let root = tempdir().unwrap();
    let file = "bad-syntax.yaml";
    put(root.path(), file, &format!("{}---\n{}", text("a", 1), text("b", 1)));
    let store = open_dir(root.path()).await;
    put(root.path(), file, &format!("{}---\nkind: [\n---\n{}", text("a", 2), text("c", 1)));
    store.sync(&[SET]).await.unwrap();
    assert_eq!(names(&*store).await, ["a", "b", "c"]);
    assert_eq!(count_of(&*store, "a").await, Some(2));
    let errors = errors_about(file);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    put(root.path(), file, &text("a", 2));
    store.sync(&[SET]).await.unwrap();
    assert_eq!(names(&*store).await, ["a"]);
}

#[tokio::test]
async fn bytes_that_are_no_text_take_nothing_away_and_are_reported_once() {
    log();
    let root = tempdir().unwrap();
    let file = "bad-bytes.yaml";
    put(root.path(), file, &text("a", 1));
    let store = open_dir(root.path()).await;
    fs::write(root.path().join(file), b"kind: \xff\xfe\n").unwrap();
    for _ in 0..3 {
        store.sync(&[SET]).await.unwrap();
    }
    assert_eq!(count_of(&*store, "a").await, Some(1));
    assert_eq!(errors_about(file).len(), 1);
}

#[tokio::test]
async fn of_two_files_with_one_object_the_first_in_byte_order_holds() {
    log();
    let root = tempdir().unwrap();
    // '-' comes before '/': the order of bytes, not of folders.
    put(root.path(), "dup-x.yaml", &text("a", 1));
    put(root.path(), "dup/x.yaml", &text("a", 2));
    let store = open_dir(root.path()).await;
    assert_eq!(count_of(&*store, "a").await, Some(1));
    put(root.path(), "dup/x.yaml", &text("a", 3));
    store.sync(&[SET]).await.unwrap();
    assert_eq!(count_of(&*store, "a").await, Some(1));
    let errors = errors_about("dup/x.yaml");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("dup-x.yaml"), "{errors:?}");
    fs::remove_file(root.path().join("dup-x.yaml")).unwrap();
    store.sync(&[SET]).await.unwrap();
    assert_eq!(count_of(&*store, "a").await, Some(3));
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_for_a_while_loses_nothing() {
    let root = tempdir().unwrap();
    put(root.path(), "a.yaml", &text("a", 1));
    let store = open_dir(root.path()).await;
    let away = root.path().with_extension("away");
    fs::rename(root.path(), &away).unwrap();
    assert!(matches!(store.sync(&[SET]).await, Err(Error::Io { .. })));
    fs::rename(&away, root.path()).unwrap();
    store.sync(&[SET]).await.unwrap();
    assert_eq!(count_of(&*store, "a").await, Some(1));
}
