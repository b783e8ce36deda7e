//! A directory of documents, without any server.
//!
//! What people write is every `*.yaml`, `*.yml` and `*.json` below the root; what the machine
//! writes lies below `state/` in it. Several nodes may share the directory.
//!
//! ```text
//! files ──scan──→ stamps ──load (split, Reader)──→ objects of a file ──index──→ what holds ──→ log
//!   ↑ write, state                                            bad ←┘ └→ kept      watches ←┘
//! ```
//!
//! Locks, always taken in this order: the lock files (between processes), what is kept, one loader,
//! the index. A loader is held from reading a file until the index has it, so that an older content never
//! replaces a newer one.

mod split;

mod scan;

mod parse;

mod load;

mod index;

mod bad;

mod kept;

mod state;
mod write;

mod watch;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use self::index::{Index, Origin};
use self::kept::{Kept, Unreadable};
use self::load::Loader;
use self::watch::{Dirty, Watching};
use crate::documents::Reader;
use crate::error::Error;
use crate::object::{Cursor, Key, Kind, Object, Revision, take_resource_version};
use crate::store::{Datastore, Event, EventStream, Listing};

/// The datastore `dir:PATH`.
pub struct Dir {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    state_root: PathBuf,
    reader: Arc<dyn Reader>,
    operator: Mutex<Loader>,
    machine: Mutex<Loader>,
    index: Mutex<Index>,
    kept: Mutex<Kept>,
    /// Place after the last change, for those who wait for one.
    head: tokio::sync::watch::Sender<Cursor>,
    /// Walks begun by [`Inner::sync`] so far, and which of them was the last that succeeded.
    walks: AtomicU64,
    walked: Mutex<u64>,
    watching: OnceLock<Watching>,
}

// === impl Dir ===

impl Dir {
    /// Opens a directory and reads everything in it.
    ///
    /// # Errors
    /// `Io` when the directory is missing or cannot be read. Bad documents are no error: they are
    /// reported and left out.
    pub async fn open(root: &Path, reader: Arc<dyn Reader>) -> Result<Self, Error> {
        let root = root.to_owned();
        blocking(move || {
            let inner = Arc::new(Inner::new(root, reader));
            inner.recall();
            for origin in [Origin::Machine, Origin::Operator] {
                for folder in inner.walk(origin, Path::new(""))? {
                    state::sweep(&inner.root_of(origin).join(folder));
                }
            }
            inner.lock_loader(Origin::Operator).recall(Unreadable::default());
            inner.lock_index().begin();
            Ok(Self { inner })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        blocking(move || work(&inner)).await
    }
}

impl Drop for Dir {
    /// From here on the kept versions may be another's: a look that is still under way keeps none.
    fn drop(&mut self) {
        lock(&self.inner.kept).close();
    }
}

#[async_trait]
impl Datastore for Dir {
    async fn list(&self, kind: &Kind) -> Result<Listing, Error> {
        let kind = kind.clone();
        self.run(move |inner| {
            inner.freshen(&kind)?;
            Ok(inner.lock_index().list(&kind))
        })
        .await
    }

    async fn watch(&self, kind: &Kind, from: Cursor) -> Result<EventStream, Error> {
        let inner = self.inner.clone();
        inner.watching.get_or_init(|| Watching::start(&inner));
        let first = inner.lock_index().since(kind, from)?;
        let head = inner.head.subscribe();
        let tail = Tail { inner, head, kind: kind.clone(), told: from, ready: first };
        Ok(stream::try_unfold(tail, Tail::next).into_stream().boxed())
    }

    async fn get(&self, key: &Key) -> Result<Arc<Object>, Error> {
        let key = key.clone();
        self.run(move |inner| inner.get(&key)).await
    }

    async fn create(&self, mut value: Value) -> Result<Arc<Object>, Error> {
        take_resource_version(&mut value);
        self.run(move |inner| {
            let key = Key::of(&value)?;
            match index::is_machine_kind(&key.kind) {
                true => inner.create_state(&key, value),
                false => inner.create_document(&value),
            }
        })
        .await
    }

    async fn create_default(&self, mut value: Value) -> Result<Arc<Object>, Error> {
        take_resource_version(&mut value);
        self.run(move |inner| {
            let key = Key::of(&value)?;
            match inner.get(&key) {
                Err(error) if error.is_not_found() => inner.create_state(&key, value),
                Err(error) => Err(error),
                Ok(_) => Err(Error::AlreadyExists(key)),
            }
        })
        .await
    }

    async fn update(
        &self,
        mut value: Value,
        expected: Option<&Revision>,
    ) -> Result<Arc<Object>, Error> {
        take_resource_version(&mut value);
        let expected = expected.cloned();
        self.run(move |inner| {
            let key = Key::of(&value)?;
            match index::is_machine_kind(&key.kind) {
                true => inner.change_state(&key, Some(value), expected.as_ref()),
                false => inner.change_document(&key, Some(value), expected.as_ref()),
            }
        })
        .await
    }

    async fn delete(&self, key: &Key, expected: Option<&Revision>) -> Result<Arc<Object>, Error> {
        let (key, expected) = (key.clone(), expected.cloned());
        self.run(move |inner| match index::is_machine_kind(&key.kind) {
            true => inner.change_state(&key, None, expected.as_ref()),
            false => inner.change_document(&key, None, expected.as_ref()),
        })
        .await
    }

    async fn sync(&self, kinds: &[Kind]) -> Result<Vec<Cursor>, Error> {
        let count = kinds.len();
        self.run(move |inner| inner.sync().map(|at| vec![at; count])).await
    }
}

/// A running watch.
struct Tail {
    inner: Arc<Inner>,
    head: tokio::sync::watch::Receiver<Cursor>,
    kind: Kind,
    told: Cursor,
    ready: VecDeque<Event>,
}

// === impl Tail ===

impl Tail {
    async fn next(mut self) -> Result<Option<(Event, Self)>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.told = event.at;
                return Ok(Some((event, self)));
            }
            self.head.borrow_and_update();
            self.ready = self.inner.lock_index().since(&self.kind, self.told)?;
            if self.ready.is_empty() && self.head.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

// === impl Inner: reading ===

impl Inner {
    fn new(root: PathBuf, reader: Arc<dyn Reader>) -> Self {
        let state_root = root.join(state::FOLDER);
        let skip = Some(OsStr::new(state::FOLDER));
        let operator = Loader::new(Origin::Operator, root.clone(), skip, reader.clone());
        let json = Arc::new(state::StateReader);
        let kept = Mutex::new(Kept::read(&state_root));
        let machine = Loader::new(Origin::Machine, state_root.clone(), None, json);
        Self {
            root,
            state_root,
            reader,
            operator: Mutex::new(operator),
            machine: Mutex::new(machine),
            index: Mutex::default(),
            kept,
            head: tokio::sync::watch::Sender::default(),
            walks: AtomicU64::new(0),
            walked: Mutex::new(0),
            watching: OnceLock::new(),
        }
    }

    fn root_of(&self, origin: Origin) -> &Path {
        match origin {
            Origin::Operator => &self.root,
            Origin::Machine => &self.state_root,
        }
    }

    fn lock_index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn lock_loader(&self, origin: Origin) -> MutexGuard<'_, Loader> {
        lock(match origin {
            Origin::Operator => &self.operator,
            Origin::Machine => &self.machine,
        })
    }

    /// Takes in the last good versions that an earlier process has kept.
    fn recall(&self) {
        let kept = lock(&self.kept);
        self.lock_loader(Origin::Operator).recall(kept.unreadable());
        self.lock_index().recall(kept.objects());
    }

    /// Keeps the last good versions for the next process.
    fn keep(&self) {
        let mut kept = lock(&self.kept);
        let wanted = self.lock_index().records();
        kept.update(wanted);
    }

    /// Gives new contents of files to the index, under the loader's lock.
    fn publish(&self, _loader: &MutexGuard<'_, Loader>, changes: load::Changes) {
        if changes.is_empty() {
            return;
        }
        let mut index = self.lock_index();
        index.apply(changes);
        let head = index.head();
        drop(index);
        // Two loaders may come here in either order: the place only moves on.
        self.head.send_if_modified(|at| {
            let is_later = *at < head;
            *at = head.max(*at);
            is_later
        });
    }

    /// Walks a folder of one origin and takes in what has changed; returns the folders found.
    fn walk(&self, origin: Origin, below: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut loader = self.lock_loader(origin);
        match loader.rescan(below) {
            Ok((changes, folders)) => {
                self.publish(&loader, changes);
                Ok(folders)
            }
            // The state's folders appear with the first object.
            Err(error) if origin == Origin::Machine && error.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(Error::io("read", &self.root_of(origin).join(below))(error)),
        }
    }

    /// Takes in everything that is in place now.
    ///
    /// Callers that wait for one walk share the next: whoever finds that a walk has succeeded which
    /// began after its own arrival needs none.
    fn sync(&self) -> Result<Cursor, Error> {
        let arrival = self.walks.load(Ordering::SeqCst);
        let mut walked = lock(&self.walked);
        if *walked <= arrival {
            let this = self.walks.fetch_add(1, Ordering::SeqCst) + 1;
            self.walk(Origin::Machine, Path::new(""))?;
            self.walk(Origin::Operator, Path::new(""))?;
            *walked = this;
        }
        Ok(self.lock_index().head())
    }

    /// What the watching task does: reads what is dirty, returns folders to be watched.
    fn refresh(&self, dirty: &Dirty) -> Vec<(Origin, PathBuf)> {
        let mut folders = Vec::new();
        for origin in [Origin::Machine, Origin::Operator] {
            let mut loader = self.lock_loader(origin);
            let paths = dirty.files.iter().filter(|(of, _)| *of == origin);
            let changes = loader.read_all(paths.map(|(_, path)| path.clone()));
            self.publish(&loader, changes);
            drop(loader);
            if dirty.all {
                match self.walk(origin, Path::new("")) {
                    Ok(found) => folders.extend(found.into_iter().map(|path| (origin, path))),
                    Err(error) => tracing::error!(%error, "the datastore cannot be walked"),
                }
            }
        }
        folders
    }

    /// Makes the index current for one kind, as far as nobody watches the files.
    fn freshen(&self, kind: &Kind) -> Result<(), Error> {
        if index::is_machine_kind(kind) {
            self.walk(Origin::Machine, &state::folder_of(kind))?;
        } else if self.watching.get().is_none() {
            self.walk(Origin::Machine, &state::folder_of(kind))?;
            self.walk(Origin::Operator, Path::new(""))?;
        }
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Arc<Object>, Error> {
        if index::is_machine_kind(&key.kind) {
            match state::get(&self.state_root, key) {
                Err(Error::NotFound(_)) => {}
                found => return found.map(Arc::new),
            }
        }
        self.freshen(&key.kind)?;
        let index = self.lock_index();
        index.get(key).ok_or_else(|| index.why_missing(key))
    }
}

// === impl Inner: writing ===

impl Inner {
    fn create_state(&self, key: &Key, value: Value) -> Result<Arc<Object>, Error> {
        let made = state::transact(&self.state_root, key, |current| match current {
            Some(_) => Err(Error::AlreadyExists(key.clone())),
            None => Ok(Some(value)),
        })?;
        self.took_state(key);
        made.ok_or_else(|| Error::NotFound(key.clone()))
    }

    /// Replaces or (without a value) removes an object below `state/`.
    fn change_state(
        &self,
        key: &Key,
        value: Option<Value>,
        expected: Option<&Revision>,
    ) -> Result<Arc<Object>, Error> {
        let mut removed = None;
        let made = state::transact(&self.state_root, key, |current| {
            let current = current.ok_or_else(|| Error::NotFound(key.clone()))?;
            check_revision(&current, expected)?;
            removed = Some(Arc::new(current));
            Ok(value)
        });
        self.took_state(key);
        made?.or(removed).ok_or_else(|| Error::NotFound(key.clone()))
    }

    /// Takes in the object's file after it was written.
    fn took_state(&self, key: &Key) {
        let mut loader = self.lock_loader(Origin::Machine);
        let changes = loader.read(state::path_of(key).into_os_string());
        self.publish(&loader, changes.into_iter().collect());
    }

    /// Keeps other processes from editing documents, and takes in what they have edited.
    fn begin_edit(&self) -> Result<state::Lock, Error> {
        fs::create_dir_all(&self.state_root).map_err(Error::io("create", &self.state_root))?;
        let lock = state::Lock::acquire(&self.state_root.join(".lock-documents"))?;
        self.walk(Origin::Operator, Path::new(""))?;
        Ok(lock)
    }

    fn create_document(&self, value: &Value) -> Result<Arc<Object>, Error> {
        let _lock = self.begin_edit()?;
        let key = write::check(self.reader.as_ref(), value)?;
        if self.lock_index().get(&key).is_some() {
            return Err(Error::AlreadyExists(key));
        }
        let names = (0..).map(|attempt| write::file_name(&key, attempt));
        let free = names.map(|name| self.root.join(name)).find(|path| !path.exists());
        let path = free.unwrap_or_else(|| self.root.join(write::file_name(&key, 0)));
        state::write_atomically(&path, write::render(value).as_bytes())?;
        self.took_document(&path);
        self.lock_index().get(&key).ok_or(Error::NotFound(key))
    }

    /// Replaces or (without a value) removes an object where it is kept.
    fn change_document(
        &self,
        key: &Key,
        value: Option<Value>,
        expected: Option<&Revision>,
    ) -> Result<Arc<Object>, Error> {
        let lock = self.begin_edit()?;
        let key = match &value {
            Some(value) => &write::check(self.reader.as_ref(), value)?,
            None => key,
        };
        let (current, source) = {
            let index = self.lock_index();
            (index.get(key), index.source_of(key))
        };
        let missing = || Error::NotFound(key.clone());
        let (current, source) = current.zip(source).ok_or_else(missing)?;
        if source.origin == Origin::Machine {
            drop(lock);
            return self.change_state(key, value, expected);
        }
        check_revision(&current, expected)?;
        let path = self.root.join(&source.path);
        match write::edit(self.reader.as_ref(), &path, key, value.as_ref())? {
            Some(text) => state::write_atomically(&path, text.as_bytes())?,
            None => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
        }
        self.took_document(&path);
        let after = self.lock_index().get(key);
        if value.is_some() { after.ok_or_else(missing) } else { Ok(current) }
    }

    /// Takes in a document's file after it was written.
    fn took_document(&self, path: &Path) {
        let mut loader = self.lock_loader(Origin::Operator);
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let changes = loader.read(relative.as_os_str().to_owned());
        self.publish(&loader, changes.into_iter().collect());
    }
}

fn check_revision(current: &Object, expected: Option<&Revision>) -> Result<(), Error> {
    match expected {
        Some(expected) if *expected != current.revision => Err(Error::Conflict {
            key: Box::new(current.key.clone()),
            expected: expected.clone(),
            found: current.revision.clone(),
        }),
        _ => Ok(()),
    }
}

/// A panic under one of these locks leaves values that are whole: each is changed by moves only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only when the runtime shuts down.
        Err(_cancelled) => Err(Error::Unavailable { reason: "the runtime is shutting down" }),
    }
}
