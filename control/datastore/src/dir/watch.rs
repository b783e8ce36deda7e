//! Takes notice of changed files: inotify for speed, a walk from time to time for what inotify
//! loses (overflow, other nodes on a network file system, file systems without it).

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::index::Origin;
use super::scan;

/// A burst is over when nothing has come for this long …
const QUIET: Duration = Duration::from_millis(4);
/// … or is cut after this long: a change has to be in force within 200 ms. Behind a look at the files
/// that is longer ago, a whole change begins no burst: it is told at once.
const LONGEST_BURST: Duration = Duration::from_millis(30);
/// Time between walks where inotify tells of every change.
const WALK_LOCAL: Duration = Duration::from_secs(5);
/// Time between walks where changes may come that inotify does not tell of.
const WALK_REMOTE: Duration = Duration::from_millis(120);
/// Room for a few hundred events a read.
const BUFFER: usize = 64 * 1024;

/// What is to be read again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Everything that has changed by its stamp.
    pub(super) all: bool,
    /// These files, whatever their stamp says.
    pub(super) files: HashSet<(Origin, OsString)>,
}

/// Ends its tasks when it is dropped.
#[derive(Debug)]
pub(super) struct Watching([AbortHandle; 2]);

/// A watched folder: whose it is, its path below the root of its origin, and in full.
#[derive(Debug, PartialEq, Eq)]
struct Folder {
    origin: Origin,
    path: PathBuf,
    full: PathBuf,
}

struct Watcher {
    events: Option<EventStream<Vec<u8>>>,
    watches: Option<Watches>,
    folders: HashMap<WatchDescriptor, Folder>,
    walk_every: Duration,
}

// === impl Watching ===

impl Watching {
    /// Starts the tasks; they end by themselves when `inner` is gone.
    pub(super) fn start(inner: &Arc<Inner>) -> Self {
        let looked = Arc::new(Notify::new());
        let watcher = Watcher::new(&inner.root);
        let watching = tokio::spawn(run(Arc::downgrade(inner), watcher, looked.clone()));
        let keeping = tokio::spawn(keep(Arc::downgrade(inner), looked));
        Self([watching.abort_handle(), keeping.abort_handle()])
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn run(inner: Weak<Inner>, mut watcher: Watcher, looked: Arc<Notify>) {
    let mut dirty = Dirty { all: true, ..Dirty::default() };
    while let Some(inner) = inner.upgrade() {
        let worker = inner.clone();
        let refreshed = tokio::task::spawn_blocking(move || worker.refresh(&dirty)).await;
        looked.notify_one();
        let folders = refreshed.unwrap_or_default();
        // What came into a folder before it was watched shows in another walk only.
        let all = watcher.watch_folders(&inner, folders);
        drop(inner);
        dirty = if all { Dirty { all, ..Dirty::default() } } else { watcher.wait().await };
    }
}

/// Keeps last good versions after each look at the files. Many may have become bad at once, and
/// writing them down holds up no change.
async fn keep(inner: Weak<Inner>, looked: Arc<Notify>) {
    loop {
        looked.notified().await;
        let Some(inner) = inner.upgrade() else { return };
        // Whatever fails is tried again after the next look.
        let _ = tokio::task::spawn_blocking(move || inner.keep()).await;
    }
}

// === impl Watcher ===

impl Watcher {
    fn new(root: &Path) -> Self {
        let made = Inotify::init().and_then(|inotify| {
            let watches = inotify.watches();
            Ok((inotify.into_event_stream(vec![0; BUFFER])?, watches))
        });
        let (events, watches) = match made {
            Ok((events, watches)) => (Some(events), Some(watches)),
            Err(error) => {
                tracing::warn!(%error, "no inotify, the datastore is walked every {WALK_REMOTE:?}");
                (None, None)
            }
        };
        let is_quick = events.is_some() && is_local(root);
        let walk_every = if is_quick { WALK_LOCAL } else { WALK_REMOTE };
        Self { events, watches, folders: HashMap::new(), walk_every }
    }

    /// Watches these folders. Returns whether one of them was not watched before.
    fn watch_folders(&mut self, inner: &Inner, folders: Vec<(Origin, PathBuf)>) -> bool {
        let Some(watches) = &mut self.watches else { return false };
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut is_any_new = false;
        for (origin, path) in folders {
            let full = inner.root_of(origin).join(&path);
            match watches.add(&full, mask) {
                Ok(descriptor) => {
                    let before = self.folders.get(&descriptor);
                    is_any_new |= before.is_none_or(|before| before.full != full);
                    self.folders.insert(descriptor, Folder { origin, path, full });
                }
                Err(error) => {
                    if self.walk_every == WALK_LOCAL {
                        tracing::warn!(%error, folder = %full.display(), "cannot be watched, \
                            the datastore is walked every {WALK_REMOTE:?}");
                    }
                    self.walk_every = WALK_REMOTE;
                }
            }
        }
        is_any_new
    }

    /// Waits for a change, the end of a burst of them, or for the next walk to be due.
    async fn wait(&mut self) -> Dirty {
        let mut dirty = Dirty::default();
        let begun = Instant::now();
        let mut deadline = begun + self.walk_every;
        let (mut burst_end, mut is_whole) = (None, true);
        while let Some(events) = &mut self.events {
            match timeout_at(deadline, events.next()).await {
                Ok(Some(Ok(event))) => is_whole &= self.note(event, &mut dirty),
                Ok(_) => {
                    // The descriptor is unusable: from now on by walking.
                    (self.events, self.watches, self.walk_every) = (None, None, WALK_REMOTE);
                    dirty.all = true;
                    return dirty;
                }
                Err(_elapsed) if burst_end.is_some() => return dirty,
                Err(_elapsed) => break,
            }
            if dirty.all || !dirty.files.is_empty() {
                let now = Instant::now();
                let end = *burst_end.get_or_insert(now + LONGEST_BURST);
                let is_alone = is_whole && now - begun > LONGEST_BURST;
                deadline = if is_alone { now } else { end.min(now + QUIET) };
            }
        }
        if self.events.is_none() {
            tokio::time::sleep_until(deadline).await;
        }
        dirty.all = true;
        dirty
    }

    /// Notes what is to be read again. Returns whether the change is whole, as that of one file which
    /// was written or came by a rename; what goes may come again by another name.
    fn note(&mut self, event: EventOwned, dirty: &mut Dirty) -> bool {
        if event.mask.contains(EventMask::IGNORED) {
            self.folders.remove(&event.wd);
        }
        let about_folder = EventMask::ISDIR
            | EventMask::Q_OVERFLOW
            | EventMask::DELETE_SELF
            | EventMask::MOVE_SELF
            | EventMask::UNMOUNT;
        if event.mask.intersects(about_folder) {
            dirty.all = true;
            return false;
        }
        let (Some(folder), Some(name)) = (self.folders.get(&event.wd), event.name) else {
            return true;
        };
        if is_swapped_link(&name) {
            dirty.all = true;
        } else if scan::format_of(&name).is_some() {
            // A new file is read when its writer closes it; a new link is never closed.
            let is_new = event.mask.contains(EventMask::CREATE);
            if !(is_new && is_being_written(&folder.full.join(&name))) {
                dirty.files.insert((folder.origin, folder.path.join(&name).into_os_string()));
            }
            return !event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM);
        }
        true
    }
}

/// Whether it is a file that was just made, not a link to one that was there before.
fn is_being_written(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
}

/// The kubelet updates a mounted ConfigMap by renaming the link `..data`.
fn is_swapped_link(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"..")
}

/// Whether all changes of the file system pass this kernel.
fn is_local(root: &Path) -> bool {
    // linux/magic.h, and fs/smb, fs/ceph, fs/fuse for those that it leaves out.
    const REMOTE: [u32; 6] =
        [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x6573_5546, 0x00c3_6400];
    let found = rustix::fs::statfs(root);
    found.is_ok_and(|fs| u32::try_from(fs.f_type).is_ok_and(|kind| !REMOTE.contains(&kind)))
}
