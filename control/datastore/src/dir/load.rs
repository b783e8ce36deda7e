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

use super::bad::Complaint;
use super::index::{Contents, Held, Origin, Source};
use super::kept::Unreadable;
use super::parse::read_all;
use super::scan::{self, Stamp, Tree};
use super::split::{Chunk, split};
use crate::documents::{Format, Parsed, Problem, Reader};
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
    /// Unreadable directories and files that were reported.
    unreadable: HashSet<PathBuf>,
    /// What broken files stood for when an earlier process ended.
    recalled: Unreadable,
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
    /// The objects that it holds, or held before their documents became bad.
    keys: HashSet<Key>,
    /// Digest of a text of which a part is so broken that it cannot be told what it is about.
    broken: Option<Arc<str>>,
    /// Why it could not be read, as it was reported.
    failure: Option<String>,
}

/// One object of a document.
struct Item {
    /// Line on which it begins, from 1 at the beginning of the document.
    line: usize,
    said: Said,
}

enum Said {
    Good(Arc<Object>),
    Bad(Key, Vec<Problem>),
    /// So broken that it cannot be told what it is about.
    Unknown,
}

/// New contents of files, for [`super::index::Index::apply`].
pub(super) type Changes = Vec<(Source, Contents)>;

// === impl Loader ===

impl Loader {
    pub(super) fn new(
        origin: Origin,
        root: PathBuf,
        skip: Option<&'static OsStr>,
        reader: Arc<dyn Reader>,
    ) -> Self {
        let (files, hasher, unreadable, recalled) = Default::default();
        Self { origin, root, skip, reader, files, hasher, unreadable, recalled }
    }

    /// Says what broken files stood for when an earlier process ended. It is good for files that
    /// are there now: call it with nothing once they are read.
    pub(super) fn recall(&mut self, recalled: Unreadable) {
        self.recalled = recalled;
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
                changes.push((self.source(path), Contents::default()));
            }
        }
        Ok((changes, tree.directories))
    }

    /// Reads files again, whatever their stamps say. Those that are gone come last, so that a
    /// broken file is known again where it was renamed.
    pub(super) fn read_all(&mut self, paths: impl Iterator<Item = OsString>) -> Changes {
        let is_there = |path: &OsString| self.root.join(path).exists();
        let (there, gone): (Vec<_>, Vec<_>) = paths.partition(is_there);
        there.into_iter().chain(gone).filter_map(|path| self.read(path)).collect()
    }

    /// Reads one file again, whatever its stamp says. Nothing if it says what it said before.
    pub(super) fn read(&mut self, path: OsString) -> Option<(Source, Contents)> {
        let format = scan::format_of(Path::new(&path).file_name()?)?;
        let mut file = self.files.remove(&path).unwrap_or_default();
        let contents = match read_text(&self.root.join(&path)) {
            Ok((stamp, text)) => {
                let was_failing = file.failure.take().is_some();
                file.stamp = Some(stamp);
                file.unsettled = !stamp.is_settled(SystemTime::now());
                let content = self.hasher.hash_one(&text);
                let is_same = content == file.content && !file.chunks.is_empty() && !was_failing;
                file.content = content;
                (!is_same).then(|| self.take_over(&path, &mut file, &text, format))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some((self.source(path), Contents::default()));
            }
            Err(error) => {
                (file.stamp, file.unsettled) = (None, true);
                let failure = Some(error.to_string());
                let is_new = file.failure != failure;
                file.failure = failure;
                is_new.then(|| {
                    let name = path.to_string_lossy();
                    tracing::error!(file = %name, line = 1, field = "", "cannot be read: {error}");
                    self.stand_in(&path, &mut file, "".into(), Contents::default())
                })
            }
        };
        self.files.insert(path.clone(), file);
        contents.map(|contents| (self.source(path), contents))
    }

    /// What `text` says; `file` remembers it.
    fn take_over(&self, path: &OsStr, file: &mut File, text: &str, format: Format) -> Contents {
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
        file.broken = None;
        let (is_broken, contents) = (found.is_broken, found.contents());
        if is_broken {
            return self.stand_in(path, file, digest(text, 20).into(), contents);
        }
        file.keys = contents.keys().cloned().collect();
        contents
    }

    /// When it cannot be told which object a bad document is about, everything stays that the file
    /// held and that is not in its other documents.
    fn stand_in(
        &self,
        path: &OsStr,
        file: &mut File,
        digest: Arc<str>,
        mut contents: Contents,
    ) -> Contents {
        if file.keys.is_empty() {
            // It is new here: perhaps it had another name before.
            let renamed = || {
                let same = |known: &&File| known.broken.as_ref() == Some(&digest);
                self.files.values().find(same).map(|known| &known.keys)
            };
            let keys = self.recalled.stood_for(path, &digest).or_else(renamed);
            file.keys = keys.cloned().unwrap_or_default();
        }
        let told: HashSet<Key> = contents.keys().cloned().collect();
        for key in file.keys.difference(&told) {
            contents.bad.insert(key.clone(), Complaint::Unreadable(digest.clone()));
        }
        file.keys.extend(told);
        file.broken = Some(digest).filter(|digest| !digest.is_empty());
        contents
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
    bad: HashMap<Key, Complaint>,
    is_broken: bool,
}

// === impl Found ===

impl Found {
    fn add(&mut self, path: &OsStr, lines_before: usize, item: &Item, is_new: bool) {
        let line = lines_before + item.line;
        match &item.said {
            Said::Unknown => self.is_broken = true,
            Said::Bad(key, problems) => {
                let of_file =
                    |p: &Problem| Problem { line: item.line_of(p) + lines_before, ..p.clone() };
                let problems = problems.iter().map(of_file).collect();
                self.bad.insert(key.clone(), Complaint::Refused(problems));
            }
            Said::Good(object) if self.good.insert(object.key.clone()) => {
                self.held.push(Held { object: object.clone(), line });
            }
            Said::Good(object) if is_new => {
                let (name, key) = (path.to_string_lossy(), &object.key);
                tracing::error!(file = %name, line, field = "metadata.name",
                    "{key} is in this file twice, the first one holds");
            }
            Said::Good(_) => {}
        }
    }

    fn contents(mut self) -> Contents {
        self.bad.retain(|key, _| !self.good.contains(key));
        Contents { good: self.held, bad: self.bad }
    }
}

// === impl Item ===

impl Item {
    fn of(parsed: Parsed, origin: Origin) -> Self {
        let Parsed { line, key, object } = parsed;
        let said = match (key, object) {
            (None, _) => Said::Unknown,
            (Some(key), Err(problems)) => Said::Bad(key, problems),
            (Some(key), Ok(mut value)) => {
                let written = take_resource_version(&mut value);
                // A revision in a person's document is a left-over of some export.
                let revision = written.filter(|_| origin == Origin::Machine);
                let revision = revision.unwrap_or_else(|| content_revision(&value));
                Said::Good(Arc::new(Object { key, revision, value }))
            }
        };
        Self { line, said }
    }

    /// Line of a problem in the document; that of the object where none is known.
    fn line_of(&self, problem: &Problem) -> usize {
        if problem.line == 0 { self.line } else { problem.line }
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
    Revision(digest(&value.to_string(), 8).into())
}

/// The first bytes of a text's digest, in hex.
fn digest(text: &str, bytes: usize) -> String {
    Sha1::digest(text).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}
