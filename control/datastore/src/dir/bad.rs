//! Objects whose documents are bad, and the last good versions that stay in force for them.
//!
//! A version belongs to the object, not to a file: the document may be renamed while it is bad, or
//! a good document of the same object may come and go beside it. It is forgotten with the object's
//! last bad document.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::index::{Origin, Source};
use super::kept::Record;
use crate::documents::Problem;
use crate::error::Error;
use crate::object::{Key, Object};

/// Why a file says nothing good of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Its document was refused.
    Refused(Arc<[Problem]>),
    /// The file held it, and part of it is so broken that it cannot be told what that is about. A
    /// digest of the file's text; empty when not even that can be read.
    Unreadable(Arc<str>),
}

/// One object's bad documents of one origin.
#[derive(Debug, Default)]
struct Standing {
    /// By the path of the file; empty only within a batch.
    complaints: BTreeMap<OsString, Complaint>,
    last: Option<Arc<Object>>,
}

/// All bad documents, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Bad {
    objects: HashMap<(Key, Origin), Standing>,
    /// What an earlier process has kept of people's documents, until they were read.
    recalled: HashMap<Key, Arc<Object>>,
}

// === impl Bad ===

impl Bad {
    /// Says what an earlier process has kept. It is good for documents that are there now: call it
    /// with nothing once they are read.
    pub(super) fn recall<'a>(&mut self, kept: impl Iterator<Item = &'a Arc<Object>>) {
        self.recalled = kept.map(|object| (object.key.clone(), object.clone())).collect();
    }

    /// Notes that a file's document of an object is bad.
    pub(super) fn add(&mut self, key: &Key, source: &Source, complaint: Complaint) {
        let standing = self.objects.entry((key.clone(), source.origin)).or_insert_with(|| {
            let of_people = source.origin == Origin::Operator;
            let last = self.recalled.get(key).filter(|_| of_people).cloned();
            Standing { last, ..Standing::default() }
        });
        standing.complaints.insert(source.path.clone(), complaint);
    }

    /// Notes that a file's document of an object is good or gone. The last good version stays
    /// until [`Bad::settle`]: the document may have moved to another file.
    pub(super) fn remove(&mut self, key: &Key, source: &Source) {
        if let Some(standing) = self.objects.get_mut(&(key.clone(), source.origin)) {
            standing.complaints.remove(&source.path);
        }
    }

    /// Notes the version that good documents of one origin say, or said last, if any.
    pub(super) fn settle(&mut self, key: &Key, origin: Origin, good: Option<Arc<Object>>) {
        let place = (key.clone(), origin);
        match self.objects.get_mut(&place) {
            Some(standing) if standing.complaints.is_empty() => drop(self.objects.remove(&place)),
            Some(standing) => standing.last = good.or(standing.last.take()),
            None => {}
        }
    }

    /// The version that stays in force where no good document of this origin says anything.
    pub(super) fn last(&self, key: &Key, origin: Origin) -> Option<&Arc<Object>> {
        self.objects.get(&(key.clone(), origin))?.last.as_ref()
    }

    /// The first file with a bad document of an object.
    pub(super) fn source_of(&self, key: &Key, origin: Origin) -> Option<Source> {
        let path = self.objects.get(&(key.clone(), origin))?.complaints.keys().next()?.clone();
        Some(Source { origin, path })
    }

    /// Why there is no version of an object, if a person's document is to blame.
    pub(super) fn why(&self, key: &Key) -> Option<Error> {
        let standing = self.objects.get(&(key.clone(), Origin::Operator))?;
        let (path, complaint) = standing.complaints.first_key_value()?;
        let problems = match complaint {
            Complaint::Refused(problems) => problems.to_vec(),
            Complaint::Unreadable(_) => vec![Problem {
                line: 1,
                field: String::new(),
                message: "cannot be read".to_owned(),
            }],
        };
        Some(Error::Refused { key: Box::new(key.clone()), file: PathBuf::from(path), problems })
    }

    /// What is to be kept for the next process: the machine's own files are left out, nobody edits
    /// them.
    pub(super) fn records(&self) -> HashMap<Key, Record> {
        let of_people = self.objects.iter().filter(|((_, origin), _)| *origin == Origin::Operator);
        of_people
            .filter_map(|((key, _), standing)| Some((key.clone(), standing.record()?)))
            .collect()
    }
}

// === impl Standing ===

impl Standing {
    fn record(&self) -> Option<Record> {
        let object = self.last.clone()?;
        let unreadable = self.complaints.iter().filter_map(|(path, complaint)| match complaint {
            Complaint::Refused(_) => None,
            Complaint::Unreadable(digest) => {
                Some((path.to_string_lossy().into_owned(), digest.to_string()))
            }
        });
        Some(Record { object, unreadable: unreadable.collect() })
    }
}
