//! Follows many kinds at once: list, watch, and list again when the watch was lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Error;
use crate::object::{Cursor, Key, Kind, Object};
use crate::store::{Change, Datastore};

/// Messages under way from the followers to the consumer; more make the followers wait.
const QUEUE: usize = 256;
/// Most changes in a batch, so that a consumer comes to breathe.
const LARGEST_BATCH: usize = 8192;
/// How long a batch waits for kinds that have not come as far as the others. A backend that does
/// not tell every kind how far its changes have gone, or a lost watch, makes each batch so late.
const TOGETHER: Duration = Duration::from_millis(20);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The changes of several kinds as one stream of batches.
///
/// The order is kept within a kind, not between kinds, but what one edit says of several kinds
/// comes in one batch. A lost watch shows only as the difference between what was known and what
/// the new list says.
pub struct Mirror {
    messages: mpsc::Receiver<Message>,
    requests: mpsc::UnboundedReceiver<Request>,
    handle: MirrorHandle,
    /// For each kind: up to where the consumer has taken and finished, nothing before the first list.
    finished: Vec<Option<Cursor>>,
    /// For each kind: up to where the batch that is out, or `begun`, reaches.
    out: Vec<Option<Cursor>>,
    /// The batch that is being collected; a call that was cancelled leaves it to the next.
    begun: Vec<Change>,
    waiting: Vec<Request>,
    was_synced: bool,
    _followers: JoinSet<()>,
}

/// What has changed since the batch before.
#[derive(Debug, Default)]
pub struct Batch {
    /// The changes, never empty but in the batch that is the first `synced` one.
    pub changes: Vec<Change>,
    /// Whether every kind has been listed at least once with this batch.
    pub synced: bool,
}

/// Waits for a [`Mirror`]'s consumer from other tasks.
#[derive(Clone)]
pub struct MirrorHandle {
    store: Arc<dyn Datastore>,
    kinds: Arc<[Kind]>,
    requests: mpsc::UnboundedSender<Request>,
}

struct Message {
    kind: usize,
    changes: Vec<Change>,
    at: Cursor,
}

struct Request {
    places: Vec<Cursor>,
    done: oneshot::Sender<()>,
}

// === impl Mirror ===

impl Mirror {
    /// Begins to follow these kinds. Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn Datastore>, kinds: &[Kind]) -> Self {
        let (sender, messages) = mpsc::channel(QUEUE);
        let (ask, requests) = mpsc::unbounded_channel();
        let mut followers = JoinSet::new();
        for (index, kind) in kinds.iter().enumerate() {
            let (store, kind, sender) = (store.clone(), kind.clone(), sender.clone());
            let known = HashMap::new();
            followers.spawn(Follower { store, kind, index, sender, known }.run());
        }
        Self {
            messages,
            requests,
            handle: MirrorHandle { store, kinds: kinds.into(), requests: ask },
            finished: vec![None; kinds.len()],
            out: vec![None; kinds.len()],
            begun: Vec::new(),
            waiting: Vec::new(),
            was_synced: false,
            _followers: followers,
        }
    }

    /// For other tasks, to wait until the consumer has caught up.
    pub fn handle(&self) -> MirrorHandle {
        self.handle.clone()
    }

    /// Waits for changes and hands out all there are. Calling it says that the batch before is
    /// finished, which is what [`MirrorHandle::barrier`] waits for. May be cancelled.
    pub async fn next(&mut self) -> Batch {
        if self.begun.is_empty() {
            self.finished.clone_from(&self.out);
        }
        loop {
            self.answer();
            if self.begun.is_empty() {
                tokio::select! {
                    Some(message) = self.messages.recv() => self.take(message),
                    Some(request) = self.requests.recv() => {
                        self.waiting.push(request);
                        continue;
                    }
                };
            }
            self.collect().await;
            let synced = self.out.iter().all(Option::is_some);
            let batch = Batch { changes: std::mem::take(&mut self.begun), synced };
            let is_first_synced = batch.synced && !self.was_synced;
            self.was_synced |= batch.synced;
            if !batch.changes.is_empty() || is_first_synced {
                return batch;
            }
            self.finished.clone_from(&self.out);
        }
    }

    /// Takes all messages that are ready, and waits for those that tell of the same edit.
    async fn collect(&mut self) {
        let deadline = Instant::now() + TOGETHER;
        while self.begun.len() < LARGEST_BATCH {
            if let Ok(message) = self.messages.try_recv() {
                self.take(message);
            } else if self.begun.is_empty() || self.is_level() {
                return;
            } else {
                let Ok(Some(message)) = timeout_at(deadline, self.messages.recv()).await else {
                    return;
                };
                self.take(message);
            }
        }
    }

    fn take(&mut self, message: Message) {
        self.begun.extend(message.changes);
        if let Some(place) = self.out.get_mut(message.kind) {
            *place = Some(message.at);
        }
    }

    /// Whether no kind is behind another. Before all are listed, none is waited for.
    fn is_level(&self) -> bool {
        let (first, last) = (self.out.iter().min(), self.out.iter().max());
        first == last || first == Some(&None)
    }

    fn answer(&mut self) {
        let finished = &self.finished;
        let is_done = |request: &Request| {
            request.places.iter().zip(finished).all(|(place, at)| *at >= Some(*place))
        };
        for request in std::mem::take(&mut self.waiting) {
            if is_done(&request) {
                // Whoever asked may have gone away.
                let _ = request.done.send(());
            } else {
                self.waiting.push(request);
            }
        }
    }
}

// === impl MirrorHandle ===

impl MirrorHandle {
    /// Returns once the consumer has finished with everything that was in place in the datastore
    /// when the call was made.
    ///
    /// # Errors
    /// Those of [`Datastore::sync`]; `Unavailable` when the mirror is gone.
    pub async fn barrier(&self) -> Result<(), Error> {
        let places = self.store.sync(&self.kinds).await?;
        let (done, is_done) = oneshot::channel();
        let gone = Error::Unavailable { reason: "nobody follows the datastore any more" };
        if self.requests.send(Request { places, done }).is_err() {
            return Err(gone);
        }
        is_done.await.map_err(|_| gone)
    }
}

/// Follows one kind.
struct Follower {
    store: Arc<dyn Datastore>,
    kind: Kind,
    index: usize,
    sender: mpsc::Sender<Message>,
    known: HashMap<Key, Arc<Object>>,
}

// === impl Follower ===

impl Follower {
    async fn run(mut self) {
        let mut pause = PAUSE.0;
        while !self.sender.is_closed() {
            match self.list_and_watch(&mut pause).await {
                Ok(()) => {}
                Err(Error::TooOld { .. }) => {
                    tracing::debug!(kind = %self.kind, "the watch fell behind, listing again");
                }
                Err(error) => {
                    tracing::warn!(kind = %self.kind, %error, "watch lost, listing again");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Ends when the watch ends or fails. A watch that worked resets the pause.
    async fn list_and_watch(&mut self, pause: &mut Duration) -> Result<(), Error> {
        let listing = self.store.list(&self.kind).await?;
        let changes = self.difference(listing.objects);
        self.send(changes, listing.at).await;
        let mut events = self.store.watch(&self.kind, listing.at).await?;
        while let Some(first) = events.next().await {
            *pause = PAUSE.0;
            let (mut changes, mut at, mut end) = (Vec::new(), listing.at, Ok(()));
            // What is ready goes out together, also when an error comes behind it.
            let mut next = Some(Some(first));
            while let Some(Some(event)) = next {
                match event {
                    Ok(event) => {
                        changes.extend(event.change);
                        at = event.at;
                        next = events.next().now_or_never();
                    }
                    Err(error) => (end, next) = (Err(error), None),
                }
            }
            changes.iter().for_each(|change| self.note(change));
            if end.is_ok() || !changes.is_empty() {
                self.send(changes, at).await;
            }
            end?;
        }
        Ok(())
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Upsert(object) => self.known.insert(object.key.clone(), object.clone()),
            Change::Delete(object) => self.known.remove(&object.key),
        };
    }

    /// What a new list says that was not known.
    fn difference(&mut self, objects: Vec<Arc<Object>>) -> Vec<Change> {
        let mut before = std::mem::take(&mut self.known);
        let mut changes = Vec::new();
        for object in objects {
            let old = before.remove(&object.key);
            if old.is_none_or(|old| old.revision != object.revision) {
                changes.push(Change::Upsert(object.clone()));
            }
            self.known.insert(object.key.clone(), object);
        }
        changes.extend(before.into_values().map(Change::Delete));
        changes
    }

    async fn send(&self, changes: Vec<Change>, at: Cursor) {
        // The consumer is gone: `run` sees it.
        let _ = self.sender.send(Message { kind: self.index, changes, at }).await;
    }
}
