//! Walks the tree: which files there are, and whether they have changed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::documents::Format;

/// Names that temporary files of our own begin with.
pub(super) const TEMPORARY: &str = ".margay-";

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a walk found. Paths are relative to the root.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Documents, with their format.
    pub(super) files: Vec<(OsString, Stamp)>,
    /// Directories, the root first as the empty path.
    pub(super) directories: Vec<PathBuf>,
    /// Directories and files that could not be read: nothing is known about what is in them.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
}

// === impl Stamp ===

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file has rested long enough that a later write must show in the stamp.
    ///
    /// Kernel time stamps have the grain of a timer tick (up to 10 ms), those of a network file
    /// system the server's; within it a file of the same size can change without a trace.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        const GRAIN_MS: i128 = 100;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = since_epoch.as_millis().cast_signed();
        let changed_ms = i128::from(self.changed.0) * 1000 + i128::from(self.changed.1) / 1_000_000;
        now_ms - changed_ms > GRAIN_MS
    }
}

/// The format of a file that counts as a document, by its name.
pub(super) fn format_of(name: &OsStr) -> Option<Format> {
    if is_hidden(name) {
        return None;
    }
    match Path::new(name).extension()?.as_bytes() {
        b"yaml" | b"yml" => Some(Format::Yaml),
        b"json" => Some(Format::Json),
        _ => None,
    }
}

/// Whether the name begins with a dot.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

/// Walks everything in the folder `below` of `root` (the empty path: all of it), except the folder
/// `skip` directly in the root.
///
/// # Errors
/// When the folder itself cannot be read.
pub(super) fn walk(root: &Path, below: &Path, skip: Option<&OsStr>) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut entered = HashSet::new();
    let identity = |m: &Metadata| (m.dev(), m.ino());
    let mut open = vec![(below.to_owned(), identity(&fs::metadata(root.join(below))?))];
    while let Some((directory, id)) = open.pop() {
        // A symbolic link may lead back to a directory above: each is entered once.
        if !entered.insert(id) {
            continue;
        }
        let entries = match fs::read_dir(root.join(&directory)) {
            Ok(entries) => entries,
            Err(error) if directory == below => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tree.unreadable.push((directory, error));
                continue;
            }
        };
        for entry in entries {
            let name = match entry {
                Ok(entry) => entry.file_name(),
                Err(error) => {
                    // What else is there, nobody knows.
                    tree.unreadable.push((directory.clone(), error));
                    break;
                }
            };
            if is_hidden(&name) || (directory.as_os_str().is_empty() && skip == Some(&name)) {
                continue;
            }
            let path = directory.join(&name);
            // Follows links: a mounted ConfigMap consists of them.
            let metadata = match fs::metadata(root.join(&path)) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    tree.unreadable.push((path, error));
                    continue;
                }
            };
            if metadata.is_dir() {
                open.push((path, identity(&metadata)));
            } else if metadata.is_file() && format_of(&name).is_some() {
                tree.files.push((path.into_os_string(), Stamp::of(&metadata)));
            }
        }
        tree.directories.push(directory);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_walk_finds_documents_and_leaves_out_hidden_and_foreign_files() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["a/b", ".git", "state"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in
            ["x.yaml", "a/b/y.yml", "a/z.json", "a/n.txt", ".h.yaml", ".git/g.yaml", "state/s.json"]
        {
            fs::write(root.path().join(file), "").unwrap();
        }
        symlink(root.path(), root.path().join("a/loop")).unwrap();
        let tree = walk(root.path(), Path::new(""), Some(OsStr::new("state"))).unwrap();
        let mut files: Vec<_> = tree.files.iter().filter_map(|(p, _)| p.to_str()).collect();
        files.sort_unstable();
        assert_eq!(files, ["a/b/y.yml", "a/z.json", "x.yaml"]);
        assert_eq!(tree.directories.len(), 3);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_gone() {
        let root = tempfile::tempdir().unwrap();
        symlink("round.yaml", root.path().join("round.yaml")).unwrap();
        symlink("nowhere", root.path().join("dangling.yaml")).unwrap();
        let tree = walk(root.path(), Path::new(""), None).unwrap();
        let unreadable: Vec<_> = tree.unreadable.iter().map(|(path, _)| path.as_path()).collect();
        assert_eq!(unreadable, [Path::new("round.yaml")]);
    }
}
