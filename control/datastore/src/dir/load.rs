//! From files to objects: reads what has changed, keeps what was good, reports what is bad.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, str};

use sha1::{Digest, Sha1};

use super::index::{Held, Origin, Source};
use super::parse::read_all;
use super::scan::{self, Stamp, Tree};
use super::split::{Chunk, split};
use crate::documents::{Format, Parsed, Reader};
use crate::object::{Key, Object, Revision, take_resource_version};

/// Larger files are refused: no list of documents is that long, and memory is finite.
const LARGEST_FILE: u64 = 256 << 20;

/// Reads the files of one origin below one root.
pub(super) struct Loader {
    origin: Origin,
    root: PathBuf,
    /// Folder directly below the root that is not of this origin.
    skip: Option<&'static OsStr>,
    reader: Arc<dyn Reader>,
    files: HashMap<OsString, File>,
    hasher: RandomState,
    /// Unreadable directories that were reported.
    unreadable: HashSet<PathBuf>,
}

/// What is known about a file.
#[derive(Default)]
struct File {
    stamp: Option<Stamp>,
    /// The stamp was taken so soon after a write that another write may hide behind it.
    unsettled: bool,
    /// Hash of the whole content.
    content: u64,
    /// What each document of the file says, by the hash of its text: one changed document among
    /// thousands costs one reading.
    chunks: HashMap<u64, Arc<Vec<Item>>>,
    /// The last good versions.
    good: Vec<Held>,
    /// Why it could not be read, as it was reported.
    failure: Option<String>,
}

/// One object of a document.
struct Item {
    /// Line on which it begins, from 1 at the beginning of the document.
    line: usize,
    key: Option<Key>,
    /// Nothing if it is bad.
    object: Option<Arc<Object>>,
}

/// New contents of files, for [`super::index::Index::apply`].
pub(super) type Changes = Vec<(Source, Vec<Held>)>;

// === impl Loader ===

impl Loader {
    pub(super) fn new(
        origin: Origin,
        root: PathBuf,
        skip: Option<&'static OsStr>,
        reader: Arc<dyn Reader>,
    ) -> Self {
        let (files, hasher, unreadable) = Default::default();
        Self { origin, root, skip, reader, files, hasher, unreadable }
    }

    /// Walks the folder `below` the root (the empty path: all) and reads what has changed. Also
    /// returns the directories found.
    ///
    /// # Errors
    /// When the folder cannot be read. Nothing is forgotten then.
    pub(super) fn rescan(&mut self, below: &Path) -> io::Result<(Changes, Vec<PathBuf>)> {
        let tree = scan::walk(&self.root, below, self.skip)?;
        self.report_unreadable(&tree);
        let known = self.files.keys().filter(|path| Path::new(path).starts_with(below));
        let mut gone: HashSet<OsString> = known.cloned().collect();
        let mut changes = Vec::new();
        for (path, stamp) in tree.files {
            gone.remove(&path);
            let known = self.files.get(&path);
            if known.is_none_or(|f| f.unsettled || f.stamp != Some(stamp)) {
                changes.extend(self.read(path));
            }
        }
        for path in gone {
            let hidden = |(d, _): &(PathBuf, _)| Path::new(&path).starts_with(d);
            if !tree.unreadable.iter().any(hidden) {
                self.files.remove(&path);
                changes.push((self.source(path), Vec::new()));
            }
        }
        Ok((changes, tree.directories))
    }

    /// Reads one file again, whatever its stamp says. Nothing if it says what it said before.
    pub(super) fn read(&mut self, path: OsString) -> Option<(Source, Vec<Held>)> {
        let format = scan::format_of(Path::new(&path).file_name()?)?;
        let mut file = self.files.remove(&path).unwrap_or_default();
        match read_text(&self.root.join(&path)) {
            Ok((stamp, text)) => {
                file.failure = None;
                file.stamp = Some(stamp);
                file.unsettled = !stamp.is_settled(SystemTime::now());
                let content = self.hasher.hash_one(&text);
                let is_new = file.good.is_empty() && file.chunks.is_empty();
                if content == file.content && !is_new {
                    self.files.insert(path, file);
                    return None;
                }
                file.content = content;
                self.take_over(&path, &mut file, &text, format);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some((self.source(path), Vec::new()));
            }
            Err(error) => {
                // What it held last stays in force.
                let failure = Some(error.to_string());
                if file.failure != failure {
                    let name = path.to_string_lossy();
                    tracing::error!(file = %name, line = 1, field = "", "cannot be read: {error}");
                }
                file.failure = failure;
                (file.stamp, file.unsettled) = (None, true);
                self.files.insert(path, file);
                return None;
            }
        }
        let held = file.good.clone();
        self.files.insert(path.clone(), file);
        Some((self.source(path), held))
    }

    /// Makes `file` hold what `text` says, and the last good version of what is bad in it.
    fn take_over(&self, path: &OsStr, file: &mut File, text: &str, format: Format) {
        let whole = || vec![Chunk { text, lines_before: 0 }];
        let chunks = if format == Format::Yaml { split(text) } else { whole() };
        let before = std::mem::take(&mut file.chunks);
        let hashed: Vec<_> = chunks.iter().map(|c| (self.hasher.hash_one(c.text), c)).collect();
        let mut fresh = self.read_fresh(&hashed, &before, format);
        let mut found = Found::default();
        for (hash, chunk) in hashed {
            let known = before.get(&hash).or_else(|| file.chunks.get(&hash)).cloned();
            let is_new = known.is_none();
            let items = known.unwrap_or_else(|| {
                let parsed = fresh.remove(&hash).unwrap_or_default();
                parsed.iter().for_each(|item| report(path, chunk.lines_before, item));
                Arc::new(parsed.into_iter().map(|item| Item::of(item, self.origin)).collect())
            });
            for item in items.iter() {
                found.add(path, chunk.lines_before, item, is_new);
            }
            file.chunks.insert(hash, items);
        }
        file.good = found.with_last_good(std::mem::take(&mut file.good));
    }

    /// Reads the documents that are not among those known `before`, each text once.
    fn read_fresh(
        &self,
        hashed: &[(u64, &Chunk<'_>)],
        before: &HashMap<u64, Arc<Vec<Item>>>,
        format: Format,
    ) -> HashMap<u64, Vec<Parsed>> {
        let mut seen = HashSet::new();
        let fresh = hashed.iter().filter(|(hash, _)| !before.contains_key(hash));
        let fresh = fresh.filter(|(hash, _)| seen.insert(*hash));
        let (hashes, texts): (Vec<u64>, Vec<&str>) = fresh.map(|(hash, c)| (*hash, c.text)).unzip();
        hashes.into_iter().zip(read_all(&*self.reader, &texts, format)).collect()
    }

    fn source(&self, path: OsString) -> Source {
        Source { origin: self.origin, path }
    }

    fn report_unreadable(&mut self, tree: &Tree) {
        for (directory, error) in &tree.unreadable {
            if self.unreadable.insert(directory.clone()) {
                let name = directory.display();
                tracing::error!(file = %name, line = 1, field = "", "cannot be read: {error}");
            }
        }
        self.unreadable.retain(|d| tree.unreadable.iter().any(|(now, _)| now == d));
    }
}

/// The objects of one file while it is being read.
#[derive(Default)]
struct Found {
    held: Vec<Held>,
    good: HashSet<Key>,
    bad: HashSet<Key>,
    /// A document that is so broken that it cannot be told what it is about.
    unknown: bool,
}

// === impl Found ===

impl Found {
    fn add(&mut self, path: &OsStr, lines_before: usize, item: &Item, is_new: bool) {
        let line = lines_before + item.line;
        match (&item.object, &item.key) {
            (_, None) => self.unknown = true,
            (None, Some(key)) => {
                self.bad.insert(key.clone());
            }
            (Some(object), Some(key)) if self.good.insert(key.clone()) => {
                self.held.push(Held { object: object.clone(), line });
            }
            (Some(_), Some(key)) if is_new => {
                let name = path.to_string_lossy();
                tracing::error!(file = %name, line, field = "metadata.name",
                    "{key} is in this file twice, the first one holds");
            }
            _ => {}
        }
    }

    /// A bad document leaves its object's last good version in force. When it cannot be told which
    /// object it is about, everything stays that is not in the file's other documents.
    fn with_last_good(mut self, before: Vec<Held>) -> Vec<Held> {
        for held in before {
            let key = &held.object.key;
            if !self.good.contains(key) && (self.unknown || self.bad.contains(key)) {
                self.held.push(held);
            }
        }
        self.held
    }
}

// === impl Item ===

impl Item {
    fn of(parsed: Parsed, origin: Origin) -> Self {
        let Parsed { line, key, object } = parsed;
        let object = key.clone().zip(object.ok()).map(|(key, mut value)| {
            let written = take_resource_version(&mut value);
            // A revision in a person's document is a left-over of some export.
            let revision = written.filter(|_| origin == Origin::Machine);
            let revision = revision.unwrap_or_else(|| content_revision(&value));
            Arc::new(Object { key, revision, value })
        });
        Self { line, key, object }
    }
}

/// One ERROR line a problem.
fn report(path: &OsStr, lines_before: usize, item: &Parsed) {
    let Err(problems) = &item.object else { return };
    let name = path.to_string_lossy();
    let object = item.key.as_ref().map(ToString::to_string).unwrap_or_default();
    for problem in problems {
        let line = lines_before + if problem.line == 0 { item.line } else { problem.line };
        tracing::error!(file = %name, line, field = %problem.field, %object, "{}", problem.message);
    }
}

/// Reads a file and the stamp of what was read.
fn read_text(path: &Path) -> io::Result<(Stamp, String)> {
    let mut file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 256 MiB"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })?;
    Ok((Stamp::of(&metadata), text.to_owned()))
}

/// The revision of what a person wrote: a digest of what it says, the same in every process.
pub(super) fn content_revision(value: &serde_json::Value) -> Revision {
    let digest = Sha1::digest(value.to_string());
    let mut text = String::with_capacity(16);
    for byte in digest.iter().take(8) {
        text.push_str(&format!("{byte:02x}"));
    }
    Revision(text.into())
}
