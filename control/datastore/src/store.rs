//! The trait that every backend fulfils.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::error::Error;
use crate::object::{Cursor, Key, Kind, Object, Revision};

/// All objects of one kind, and the place in the stream of changes at which they were so.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The objects, in the order of their keys.
    pub objects: Vec<Arc<Object>>,
    /// Where a watch has to begin to miss nothing.
    pub at: Cursor,
}

/// What happened to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, new or different.
    Upsert(Arc<Object>),
    /// It is gone; this was its last version.
    Delete(Arc<Object>),
}

/// One element of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Everything up to this place has been told once this event was taken.
    pub at: Cursor,
    /// What happened, or nothing: then only the place has moved on.
    pub change: Option<Change>,
}

/// A running watch. After an error nothing follows; `TooOld` means: list again.
pub type EventStream = BoxStream<'static, Result<Event, Error>>;

/// A place where objects are kept.
///
/// Contract, held by the suite in `testing`:
/// 1. `watch(kind, listing.at)` tells every change after `list(kind)`, in order, none twice.
///    Changes that follow each other quickly may be told as one.
/// 2. A successful write is seen by the writer's next `get` and `list`, and is told by watches.
/// 3. Of several writers that expect the same revision exactly one succeeds.
/// 4. A revision that was seen once never returns for a different content of the same key.
#[async_trait]
pub trait Datastore: Send + Sync {
    /// All objects of a kind.
    async fn list(&self, kind: &Kind) -> Result<Listing, Error>;

    /// The changes of a kind after `from`, without end.
    ///
    /// # Errors
    /// `TooOld`, here or as the stream's last element, when the changes since `from` are lost.
    async fn watch(&self, kind: &Kind, from: Cursor) -> Result<EventStream, Error>;

    /// One object.
    ///
    /// # Errors
    /// `NotFound`; `Refused` where its document is there and bad, and was never good.
    async fn get(&self, key: &Key) -> Result<Arc<Object>, Error>;

    /// Stores a new object.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `Unnamed`.
    async fn create(&self, value: Value) -> Result<Arc<Object>, Error>;

    /// Stores an object that the operator left out, so that a document of the operator, also a
    /// later one, takes precedence over it.
    ///
    /// # Errors
    /// As [`Datastore::create`].
    async fn create_default(&self, value: Value) -> Result<Arc<Object>, Error> {
        self.create(value).await
    }

    /// Replaces an object if it still has the `expected` revision, or in any case without one.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`, `Unnamed`.
    async fn update(&self, value: Value, expected: Option<&Revision>)
    -> Result<Arc<Object>, Error>;

    /// Removes an object if it still has the `expected` revision, or in any case without one, and
    /// returns what was removed.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`.
    async fn delete(&self, key: &Key, expected: Option<&Revision>) -> Result<Arc<Object>, Error>;

    /// Takes notice of everything that was in place when the call was made. A watch that has
    /// passed the returned place (one for each of `kinds`) has told it.
    async fn sync(&self, kinds: &[Kind]) -> Result<Vec<Cursor>, Error>;
}

// === impl Change ===

impl Change {
    /// The object, as it is or as it was last.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Upsert(object) | Self::Delete(object) => object,
        }
    }
}
