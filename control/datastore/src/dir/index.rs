//! What all files together say: which file's version of an object holds, and what has changed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::sync::Arc;

use crate::error::Error;
use crate::object::{Cursor, Key, Kind, Object};
use crate::store::{Change, Event, Listing};

/// How many changes are kept for watches. Who falls further behind has to list again, which costs
/// less than what is kept here: every version of an object, for as long as its change is.
const LOG_CAPACITY: usize = 4096;

/// Kinds that the machine writes. What it wrote takes precedence over a document of the operator;
/// for all other kinds it is the other way round.
const MACHINE_KINDS: [Kind; 6] = [
    Kind::calico("Node"),
    Kind::calico("WorkloadEndpoint"),
    Kind::calico("IPAMBlock"),
    Kind::calico("BlockAffinity"),
    Kind::calico("IPAMHandle"),
    Kind::calico("CalicoNodeStatus"),
];

/// Who wrote a file: it lies below `state/` or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    /// A person, anywhere but below `state/`.
    Operator,
    /// Margay itself, below `state/`.
    Machine,
}

/// A file; the path is relative to the root of its origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) path: OsString,
}

/// An object in a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) object: Arc<Object>,
    /// Line of the file on which it begins.
    pub(super) line: usize,
}

/// Place in the order of precedence, first wins: rank by origin, then the path in byte order.
type Place = (u8, OsString);

/// All objects of all files.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: HashMap<Source, HashMap<Key, Held>>,
    holders: HashMap<Key, BTreeMap<Place, Held>>,
    by_kind: HashMap<Kind, BTreeMap<Key, Arc<Object>>>,
    reported: HashSet<(Key, Source)>,
    log: VecDeque<Change>,
    /// Place after the last change in `log`.
    head: u64,
}

/// Whether the machine writes objects of this kind.
pub(super) fn is_machine_kind(kind: &Kind) -> bool {
    MACHINE_KINDS.contains(kind)
}

fn place(key: &Key, source: &Source) -> Place {
    let first = if is_machine_kind(&key.kind) { Origin::Machine } else { Origin::Operator };
    (u8::from(source.origin != first), source.path.clone())
}

// === impl Index ===

impl Index {
    /// Puts what was read in the place of what the same files held before, all at once: an object
    /// that moves from one file to another never seems to be gone.
    pub(super) fn apply(&mut self, batch: Vec<(Source, Vec<Held>)>) {
        let mut touched = BTreeMap::new();
        for (source, held) in batch {
            self.replace(source, held, &mut touched);
        }
        for (key, before) in touched {
            self.settle(&key, before);
        }
    }

    /// Exchanges one file's objects; `touched` collects each object as it was before the batch. An
    /// object that is the same value as before, not only equal to it, costs next to nothing.
    fn replace(
        &mut self,
        source: Source,
        held: Vec<Held>,
        touched: &mut BTreeMap<Key, Option<Arc<Object>>>,
    ) {
        let mut old = self.files.remove(&source).unwrap_or_default();
        let mut now = HashMap::with_capacity(held.len());
        for item in held {
            let key = item.object.key.clone();
            let before = old.remove(&key);
            if before.is_none_or(|before| !Arc::ptr_eq(&before.object, &item.object)) {
                self.touch(&key, touched);
                let holders = self.holders.entry(key.clone()).or_default();
                holders.insert(place(&key, &source), item.clone());
            }
            now.insert(key, item);
        }
        for key in old.into_keys() {
            self.touch(&key, touched);
            if let Some(holders) = self.holders.get_mut(&key) {
                holders.remove(&place(&key, &source));
            }
        }
        if !now.is_empty() {
            self.files.insert(source, now);
        }
    }

    fn touch(&self, key: &Key, touched: &mut BTreeMap<Key, Option<Arc<Object>>>) {
        if !touched.contains_key(key) {
            touched.insert(key.clone(), self.get(key));
        }
    }

    /// Decides which version of an object holds now and tells the watches if that is another.
    fn settle(&mut self, key: &Key, before: Option<Arc<Object>>) {
        self.report_duplicates(key);
        let after = self.holders.get(key).and_then(|h| h.first_key_value());
        let after = after.map(|(_, held)| held.object.clone());
        let objects = self.by_kind.entry(key.kind.clone()).or_default();
        let change = match (before, after) {
            (Some(old), Some(new)) if old.revision == new.revision => return,
            (_, Some(new)) => {
                objects.insert(key.clone(), new.clone());
                Change::Upsert(new)
            }
            (Some(old), None) => {
                objects.remove(key);
                Change::Delete(old)
            }
            (None, None) => return,
        };
        self.head += 1;
        self.log.push_back(change);
        if self.log.len() > LOG_CAPACITY {
            self.log.pop_front();
        }
    }

    /// Says once which documents stand behind another of the same object, and forgets what is
    /// no longer so.
    fn report_duplicates(&mut self, key: &Key) {
        let Some(holders) = self.holders.get(key) else { return };
        if holders.is_empty() {
            self.holders.remove(key);
            self.reported.retain(|(reported, _)| reported != key);
            return;
        }
        let operators = u8::from(is_machine_kind(&key.kind));
        let mut people = holders.iter().filter(|((rank, _), _)| *rank == operators);
        let Some(((_, winner), _)) = people.next() else { return };
        let mut behind = HashSet::new();
        for ((_, path), held) in people {
            let entry = (key.clone(), Source { origin: Origin::Operator, path: path.clone() });
            if self.reported.insert(entry.clone()) {
                tracing::error!(
                    file = %path.to_string_lossy(),
                    line = held.line,
                    field = "metadata.name",
                    "{key} is also in {}, which comes first and holds", winner.to_string_lossy()
                );
            }
            behind.insert(entry);
        }
        if !self.reported.is_empty() {
            self.reported.retain(|entry| entry.0 != *key || behind.contains(entry));
        }
    }

    /// The version of an object that holds.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let (_, held) = self.holders.get(key)?.first_key_value()?;
        Some(held.object.clone())
    }

    /// The file whose version of an object holds.
    pub(super) fn source_of(&self, key: &Key) -> Option<Source> {
        let ((rank, path), _) = self.holders.get(key)?.first_key_value()?;
        let of_machine = (*rank == 0) == is_machine_kind(&key.kind);
        let origin = if of_machine { Origin::Machine } else { Origin::Operator };
        Some(Source { origin, path: path.clone() })
    }

    pub(super) fn list(&self, kind: &Kind) -> Listing {
        let objects = self.by_kind.get(kind).map(|o| o.values().cloned().collect());
        Listing { objects: objects.unwrap_or_default(), at: self.head() }
    }

    /// Place after the last change.
    pub(super) fn head(&self) -> Cursor {
        Cursor(self.head)
    }

    /// Forgets how it came to be: watches begin here.
    pub(super) fn forget_log(&mut self) {
        self.log.clear();
    }

    /// The changes of a kind after `from`; the last event carries the place after all of them.
    ///
    /// # Errors
    /// `TooOld`.
    pub(super) fn since(&self, kind: &Kind, from: Cursor) -> Result<VecDeque<Event>, Error> {
        let oldest = self.head - self.log.len() as u64;
        if from.0 < oldest || from.0 > self.head {
            return Err(Error::TooOld { from });
        }
        let skip = usize::try_from(from.0 - oldest).unwrap_or(usize::MAX);
        let changes = self.log.iter().zip(oldest + 1..).skip(skip);
        let mut events: VecDeque<Event> = changes
            .filter(|(change, _)| change.object().key.kind == *kind)
            .map(|(change, at)| Event { at: Cursor(at), change: Some(change.clone()) })
            .collect();
        let told = events.back().map_or(from, |event| event.at);
        if told < self.head() {
            events.push_back(Event { at: self.head(), change: None });
        }
        Ok(events)
    }
}
