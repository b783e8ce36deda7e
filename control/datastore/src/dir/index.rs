//! What all files together say: which file's version of an object holds, and what has changed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::sync::Arc;

use super::bad::{Bad, Complaint};
use super::kept::Record;
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

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Good objects, none twice.
    pub(super) good: Vec<Held>,
    /// Objects whose documents are bad and that are not among the good: their last good versions
    /// stay.
    pub(super) bad: HashMap<Key, Complaint>,
}

/// What the index knows of a file.
#[derive(Debug, Default)]
struct Known {
    good: HashMap<Key, Held>,
    bad: HashSet<Key>,
}

/// An object as it was before a batch.
struct Before {
    /// The version that held.
    object: Option<Arc<Object>>,
    /// The versions that good documents said.
    good: [Option<Arc<Object>>; 2],
}

/// Place in the order of precedence, first wins: rank by origin, then the path in byte order.
type Place = (u8, OsString);

/// All objects of all files.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: HashMap<Source, Known>,
    /// Good documents.
    holders: HashMap<Key, BTreeMap<Place, Held>>,
    bad: Bad,
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

/// Whose documents of an object hold, and whose stand behind them. A bad document keeps its rank.
fn ranks(key: &Key) -> [Origin; 2] {
    let operator_first = [Origin::Operator, Origin::Machine];
    let machine_first = [Origin::Machine, Origin::Operator];
    if is_machine_kind(&key.kind) { machine_first } else { operator_first }
}

fn rank(key: &Key, origin: Origin) -> u8 {
    u8::from(ranks(key)[0] != origin)
}

fn place(key: &Key, source: &Source) -> Place {
    (rank(key, source.origin), source.path.clone())
}

// === impl Contents ===

impl Contents {
    /// All objects, good and bad.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.good.iter().map(|held| &held.object.key).chain(self.bad.keys())
    }
}

// === impl Index ===

impl Index {
    /// Says which last good versions an earlier process has kept, before the files are read.
    pub(super) fn recall<'a>(&mut self, kept: impl Iterator<Item = &'a Arc<Object>>) {
        self.bad.recall(kept);
    }

    /// Puts what was read in the place of what the same files held before, all at once: an object
    /// that moves from one file to another never seems to be gone.
    pub(super) fn apply(&mut self, batch: Vec<(Source, Contents)>) {
        let mut touched = BTreeMap::new();
        for (source, contents) in batch {
            self.replace(source, contents, &mut touched);
        }
        for (key, before) in touched {
            self.settle(&key, before);
        }
    }

    /// Exchanges one file's objects; `touched` collects each object as it was before the batch. An
    /// object that is the same value as before, not only equal to it, costs next to nothing.
    fn replace(&mut self, source: Source, contents: Contents, touched: &mut BTreeMap<Key, Before>) {
        let Contents { good, bad } = contents;
        let mut old = self.files.remove(&source).unwrap_or_default();
        let mut now = Known { good: HashMap::with_capacity(good.len()), bad: HashSet::new() };
        for item in good {
            let key = item.object.key.clone();
            let before = old.good.remove(&key);
            if before.is_none_or(|before| !Arc::ptr_eq(&before.object, &item.object)) {
                self.touch(&key, touched);
                let holders = self.holders.entry(key.clone()).or_default();
                holders.insert(place(&key, &source), item.clone());
            }
            now.good.insert(key, item);
        }
        for (key, complaint) in bad {
            self.touch(&key, touched);
            self.bad.add(&key, &source, complaint);
            old.bad.remove(&key);
            now.bad.insert(key);
        }
        for key in old.bad {
            self.touch(&key, touched);
            self.bad.remove(&key, &source);
        }
        for key in old.good.into_keys() {
            self.touch(&key, touched);
            if let Some(holders) = self.holders.get_mut(&key) {
                holders.remove(&place(&key, &source));
            }
        }
        if !now.good.is_empty() || !now.bad.is_empty() {
            self.files.insert(source, now);
        }
    }

    fn touch(&self, key: &Key, touched: &mut BTreeMap<Key, Before>) {
        if !touched.contains_key(key) {
            let good = ranks(key).map(|origin| self.good(key, origin));
            touched.insert(key.clone(), Before { object: self.get(key), good });
        }
    }

    /// Decides which version of an object holds now and tells the watches if that is another.
    fn settle(&mut self, key: &Key, before: Before) {
        self.report_duplicates(key);
        for (origin, said) in ranks(key).into_iter().zip(before.good) {
            let good = self.good(key, origin).or(said);
            self.bad.settle(key, origin, good);
        }
        let after = self.get(key);
        let objects = self.by_kind.entry(key.kind.clone()).or_default();
        let change = match (before.object, after) {
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

    /// The first good document of one origin: its file and what it says.
    fn holder(&self, key: &Key, origin: Origin) -> Option<(&OsString, &Held)> {
        let rank = rank(key, origin);
        let ((found, path), held) =
            self.holders.get(key)?.range((rank, OsString::new())..).next()?;
        (*found == rank).then_some((path, held))
    }

    fn good(&self, key: &Key, origin: Origin) -> Option<Arc<Object>> {
        self.holder(key, origin).map(|(_, held)| held.object.clone())
    }

    /// The version of an object that holds: a good document goes before the last good version of a
    /// bad one, and the origin of the first rank with either before the other.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let by_origin =
            |origin| self.good(key, origin).or_else(|| self.bad.last(key, origin).cloned());
        ranks(key).into_iter().find_map(by_origin)
    }

    /// Why there is no version of an object: there is no document, or it is refused.
    pub(super) fn why_missing(&self, key: &Key) -> Error {
        self.bad.why(key).unwrap_or_else(|| Error::NotFound(key.clone()))
    }

    /// The file whose version of an object holds; if that is a last good one, the bad file.
    pub(super) fn source_of(&self, key: &Key) -> Option<Source> {
        let by_origin = |origin| match self.holder(key, origin) {
            Some((path, _)) => Some(Source { origin, path: path.clone() }),
            None => self.bad.last(key, origin).and_then(|_| self.bad.source_of(key, origin)),
        };
        ranks(key).into_iter().find_map(by_origin)
    }

    /// The last good versions of all objects that have bad documents.
    pub(super) fn records(&self) -> HashMap<Key, Record> {
        self.bad.records()
    }

    pub(super) fn list(&self, kind: &Kind) -> Listing {
        let objects = self.by_kind.get(kind).map(|o| o.values().cloned().collect());
        Listing { objects: objects.unwrap_or_default(), at: self.head() }
    }

    /// Place after the last change.
    pub(super) fn head(&self) -> Cursor {
        Cursor(self.head)
    }

    /// Forgets how it came to be: watches begin here, and what was recalled has served.
    pub(super) fn begin(&mut self) {
        self.log.clear();
        self.bad.recall(std::iter::empty());
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
