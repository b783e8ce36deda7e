//! How a datastore fails.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::documents::Problem;
use crate::object::{Cursor, Key, Revision, Unnamed};

/// What went wrong. `NotFound`, `AlreadyExists`, `Conflict` and `TooOld` are part of normal work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// There is one already.
    #[error("{0} exists already")]
    AlreadyExists(Key),
    /// Somebody else changed the object first: read it again and repeat.
    #[error("{key} was changed by somebody else: expected revision {expected}, found {found}")]
    Conflict {
        /// The object.
        key: Box<Key>,
        /// The revision the caller had seen.
        expected: Revision,
        /// The revision it has.
        found: Revision,
    },
    /// The changes since then are no longer known: list again.
    #[error("the changes since {from} are no longer known, list again")]
    TooOld {
        /// Where the watch was to begin or had arrived.
        from: Cursor,
    },
    /// A document without a name.
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
    /// A document that its [`crate::Reader`] refused.
    #[error("{key}: {}", list(problems))]
    Invalid {
        /// The object.
        key: Key,
        /// What is wrong, never empty.
        problems: Vec<Problem>,
    },
    /// There is a document of the object, but it is bad, and no good version is known.
    #[error("{key} is refused: {}", places(file, problems))]
    Refused {
        /// The object.
        key: Box<Key>,
        /// The file, relative to the datastore's root.
        file: PathBuf,
        /// What is wrong with it, never empty; lines are those of the file.
        problems: Vec<Problem>,
    },
    /// The file that holds the object cannot be edited safely.
    #[error("{path}: {reason}")]
    Uneditable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process holds the lock and does not let go.
    #[error("{path} is still locked by another process after {after:?}")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The backend is not reachable now; trying again may help.
    #[error("the datastore is not available: {reason}")]
    Unavailable {
        /// What is missing.
        reason: &'static str,
    },
}

// === impl Error ===

impl Error {
    /// Whether to read again and repeat: somebody else was first.
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AlreadyExists(_) | Self::NotFound(_))
    }

    /// Whether there is no version of the object: no document, or one that is refused.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Refused { .. })
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn list(problems: &[Problem]) -> String {
    let texts: Vec<String> =
        problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
    texts.join("; ")
}

fn places(file: &Path, problems: &[Problem]) -> String {
    let place = |p: &Problem| format!("{}:{}: {p}", file.display(), p.line);
    problems.iter().map(place).collect::<Vec<_>>().join("; ")
}
