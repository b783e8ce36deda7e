//! What the machine writes: one JSON file an object below `state/`, changed by compare-and-swap.
//!
//! Safe between threads, processes and nodes that share the file system, by these rules:
//! 1. Whoever changes an object holds an exclusive `flock` on the lock file of the object's bucket,
//!    from before it reads until after it has renamed. The kernel (on NFS the server) frees the
//!    lock of a process that dies. Lock files are never removed.
//! 2. A new version is written beside the old one, synced, then renamed over it: a reader without
//!    a lock sees the old version or the new one, whole.
//! 3. The revision stands in the file, in `metadata.resourceVersion`: nanoseconds since 1970, or
//!    one more than before if the clock says less. So it does not return after delete and create.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sha1::{Digest, Sha1};

use super::scan::{TEMPORARY, is_hidden};
use crate::documents::{Format, Parsed, Problem, Reader};
use crate::error::Error;
use crate::object::{Key, Kind, Object, Revision, set_resource_version, take_resource_version};

/// Name of the folder below the datastore's root.
pub(super) const FOLDER: &str = "state";

/// Locks a kind: enough that writers of different objects seldom meet.
const BUCKETS: u8 = 64;
/// No writer holds a lock for longer than a few file operations.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Temporary files older than this belong to a process that died.
const ABANDONED: Duration = Duration::from_secs(600);
/// Longest encoded key in a file name; what is longer ends in a digest. 255 bytes is the limit.
const LONGEST_STEM: usize = 200;

/// Reads the machine's own files, for the [`super::load::Loader`].
pub(super) struct StateReader;

// === impl StateReader ===

impl Reader for StateReader {
    fn read(&self, text: &str, _format: Format) -> Vec<Parsed> {
        let object = serde_json::from_str::<Value>(text).map_err(|error| Problem {
            line: error.line(),
            field: String::new(),
            message: error.to_string(),
        });
        let key = object.as_ref().ok().and_then(|value| Key::of(value).ok());
        let unnamed = || Problem { line: 1, field: "metadata".into(), message: "no name".into() };
        let object = if key.is_some() { object } else { object.and(Err(unnamed())) };
        vec![Parsed { line: 1, key, object: object.map_err(|problem| vec![problem]) }]
    }
}

/// The file of an object, relative to the state's root.
pub(super) fn path_of(key: &Key) -> PathBuf {
    let mut stem = String::new();
    if !key.namespace.is_empty() {
        encode(&key.namespace, &mut stem);
        stem.push('_');
    }
    encode(&key.name, &mut stem);
    if stem.len() > LONGEST_STEM {
        let digest = Sha1::digest(&stem);
        stem.truncate(LONGEST_STEM - 2 * digest.len());
        digest.iter().for_each(|byte| stem.push_str(&format!("{byte:02x}")));
    }
    folder_of(&key.kind).join(stem + ".json")
}

/// The folder of a kind, relative to the state's root: `Node`, or with the group behind the kind
/// for other groups than Calico's.
pub(super) fn folder_of(kind: &Kind) -> PathBuf {
    let mut name = String::new();
    encode(&kind.kind, &mut name);
    if kind.group != "projectcalico.org" {
        name.push('.');
        encode(&kind.group, &mut name);
    }
    name.into()
}

/// Letters, digits, `-` and (not in front) `.` stay, every other byte becomes `%xx`.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => into.push(byte.into()),
            b'.' if !into.is_empty() => into.push('.'),
            _ => into.push_str(&format!("%{byte:02x}")),
        }
    }
}

/// Reads an object without a lock. `root` is the state's root, here and below.
///
/// # Errors
/// `NotFound`, `Io`, and `Invalid` for a file that is damaged.
pub(super) fn get(root: &Path, key: &Key) -> Result<Object, Error> {
    let path = root.join(path_of(key));
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(key.clone()),
        _ => Error::io("read", &path)(error),
    })?;
    let mut value: Value = serde_json::from_str(&text).map_err(|error| Error::Invalid {
        key: key.clone(),
        problems: vec![Problem {
            line: error.line(),
            field: path.display().to_string(),
            message: error.to_string(),
        }],
    })?;
    let revision = take_resource_version(&mut value).unwrap_or(Revision("0".into()));
    Ok(Object { key: key.clone(), revision, value })
}

/// Changes one object under its lock: `decide` gets what is there and says what is to be there.
///
/// # Errors
/// Those of `decide`, `Locked`, `Io`.
pub(super) fn transact(
    root: &Path,
    key: &Key,
    decide: impl FnOnce(Option<Object>) -> Result<Option<Value>, Error>,
) -> Result<Option<Arc<Object>>, Error> {
    let path = root.join(path_of(key));
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let bucket = Sha1::digest(path_of(key).as_os_str().as_encoded_bytes())[0] % BUCKETS;
    let _lock = Lock::acquire(&folder.join(format!(".lock-{bucket:02}")))?;

    let current = match get(root, key) {
        Ok(object) => Some(object),
        Err(Error::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let before = current.as_ref().map(|object| object.revision.clone());
    let Some(mut value) = decide(current)? else {
        return fs::remove_file(&path).map_err(Error::io("remove", &path)).map(|()| None);
    };
    let revision = next_revision(before.as_ref());
    set_resource_version(&mut value, &revision);
    write_atomically(&path, &serde_json::to_vec_pretty(&value).unwrap_or_default())?;
    take_resource_version(&mut value);
    Ok(Some(Arc::new(Object { key: key.clone(), revision, value })))
}

fn next_revision(before: Option<&Revision>) -> Revision {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    let before = before.and_then(|r| r.0.parse::<u64>().ok()).unwrap_or(0);
    Revision(now.max(before.saturating_add(1)).to_string().into())
}

/// Puts `content` in the place of the file: readers see the old or the new content, whole.
///
/// # Errors
/// `Io`; the old content stays then.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    // The stamp tells apart processes with one number on different nodes.
    let stamp = next_revision(None);
    let name = format!("{TEMPORARY}{stamp}-{}-{serial}", std::process::id());
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // The first error is the one that tells; the file would be swept later in any case.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(error)
    })
}

/// Removes temporary files of processes that died, in one folder.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !is_hidden(&name) || !name.to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let age = entry.metadata().and_then(|m| m.modified()).map(|at| at.elapsed());
        if age.is_ok_and(|age| age.is_ok_and(|age| age > ABANDONED)) {
            // Somebody else may be sweeping too.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// An exclusive lock, held until it is dropped.
pub(super) struct Lock {
    _file: File,
}

// === impl Lock ===

impl Lock {
    /// Waits for the lock, at most [`LOCK_PATIENCE`]: a stopped process must not stop all others
    /// without a word.
    pub(super) fn acquire(path: &Path) -> Result<Self, Error> {
        let begun = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            let mut open = OpenOptions::new();
            open.read(true).write(true).create(true).truncate(false);
            let file = open.open(path).map_err(Error::io("open", path))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Ok(Self { _file: file }),
                // The lock file was replaced while we waited: this lock excludes nobody.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            }
            if begun.elapsed() > LOCK_PATIENCE {
                return Err(Error::Locked { path: path.to_owned(), after: LOCK_PATIENCE });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |m: fs::Metadata| (m.dev(), m.ino());
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    identity(ours) == identity(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_distinct_safe_and_bounded() {
        let block = Kind::calico("IPAMBlock");
        let path = |namespace: &str, name: &str| path_of(&Key::new(block.clone(), namespace, name));
        assert_eq!(path("", "10-0-0-0-26"), Path::new("IPAMBlock/10-0-0-0-26.json"));
        assert_eq!(path("a", "b.c"), Path::new("IPAMBlock/a_b.c.json"));
        assert_eq!(path("", "../x"), Path::new("IPAMBlock/%2e.%2fx.json"));
        assert_ne!(path("a", "b"), path("", "a_b"));
        let (long, longer) = ("x".repeat(300), "x".repeat(301));
        assert_ne!(path("", &long), path("", &longer));
        assert!(path("", &long).file_name().unwrap().len() < 255);
    }

    #[test]
    fn revisions_grow_even_when_the_clock_stands_back() {
        let future = Revision("18000000000000000000".into());
        assert_eq!(next_revision(Some(&future)).0.as_ref(), "18000000000000000001");
    }

    #[test]
    fn a_lock_of_a_dead_process_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let command = format!("exec 9>{0}; flock 9; kill -9 $$", path.display());
        std::process::Command::new("sh").args(["-c", &command]).status().unwrap();
        let begun = Instant::now();
        Lock::acquire(&path).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
