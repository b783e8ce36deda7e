//! Last good versions on disk: while a document is bad, a process that starts finds here what was in
//! force.
//!
//! One file an object below `state/.last-good/`, a folder that no walk enters:
//! `{"object": DOCUMENT, "unreadable": {FILE: DIGEST}}`. The second part names the files that are too
//! broken to tell that they are about the object. All processes that watch the datastore write the
//! same; what one removed by mistake, the next look of another puts back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::load::content_revision;
use super::state;
use crate::error::Error;
use crate::object::{Key, Object};

/// Name of the folder below `state/`.
const FOLDER: &str = ".last-good";

/// The last good version of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) object: Arc<Object>,
    /// Files that held the object and are too broken to name it, each with a digest of its text.
    pub(super) unreadable: BTreeMap<String, String>,
}

/// The records that are on disk.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    records: HashMap<Key, Record>,
    closed: bool,
}

/// Which objects the unreadable files of an earlier process stood for.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    by_path: HashMap<String, HashSet<Key>>,
    by_digest: HashMap<String, HashSet<Key>>,
}

// === impl Kept ===

impl Kept {
    /// Reads the records below the state's root. Damaged ones are reported and left out.
    pub(super) fn read(state_root: &Path) -> Self {
        let folder = state_root.join(FOLDER);
        let mut records = HashMap::new();
        for kind in entries(&folder) {
            state::sweep(&kind);
            let files = entries(&kind).into_iter();
            for path in files.filter(|path| path.extension() == Some(OsStr::new("json"))) {
                match read(&path) {
                    Some(record) => drop(records.insert(record.object.key.clone(), record)),
                    None => tracing::warn!(file = %path.display(), "is no last good version"),
                }
            }
        }
        Self { folder, records, closed: false }
    }

    /// The versions that were kept.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.records.values().map(|record| &record.object)
    }

    /// What unreadable files stood for.
    pub(super) fn unreadable(&self) -> Unreadable {
        let mut found = Unreadable::default();
        for (key, record) in &self.records {
            for (path, digest) in &record.unreadable {
                found.by_path.entry(path.clone()).or_default().insert(key.clone());
                if !digest.is_empty() {
                    found.by_digest.entry(digest.clone()).or_default().insert(key.clone());
                }
            }
        }
        found
    }

    /// Leaves the disk as it is from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Makes the disk hold the `wanted` records and no others. What cannot be written is reported,
    /// and tried again at the next call.
    pub(super) fn update(&mut self, wanted: HashMap<Key, Record>) {
        if self.closed {
            return;
        }
        let folder = &self.folder;
        self.records.retain(|key, _| {
            let path = folder.join(state::path_of(key));
            if !wanted.contains_key(key) {
                // Another process may have been faster; what stays is looked at at the next start.
                let _ = fs::remove_file(&path);
                return false;
            }
            path.exists()
        });
        for (key, record) in wanted {
            if self.records.get(&key) == Some(&record) {
                continue;
            }
            match write(&self.folder.join(state::path_of(&key)), &record) {
                Ok(()) => drop(self.records.insert(key, record)),
                Err(error) => {
                    tracing::warn!(object = %key, %error, "its last good version is in memory only");
                }
            }
        }
    }
}

// === impl Unreadable ===

impl Unreadable {
    /// What a file stood for: by its path or, if it was renamed, by what is in it.
    pub(super) fn stood_for(&self, path: &OsStr, digest: &str) -> Option<&HashSet<Key>> {
        let by_path = self.by_path.get(path.to_string_lossy().as_ref());
        by_path.or_else(|| self.by_digest.get(digest))
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn read(path: &Path) -> Option<Record> {
    let mut said: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let value = said.get_mut("object")?.take();
    let key = Key::of(&value).ok()?;
    let object = Arc::new(Object { key, revision: content_revision(&value), value });
    let files = said.get("unreadable").and_then(Value::as_object).into_iter().flatten();
    let text =
        |(path, digest): (&String, &Value)| Some((path.clone(), digest.as_str()?.to_owned()));
    Some(Record { object, unreadable: files.filter_map(text).collect() })
}

fn write(path: &Path, record: &Record) -> Result<(), Error> {
    let said = json!({"object": record.object.value, "unreadable": record.unreadable});
    let text = serde_json::to_vec_pretty(&said).map_err(io::Error::from);
    let text = text.map_err(Error::io("write", path))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    state::write_atomically(path, &text)
}
