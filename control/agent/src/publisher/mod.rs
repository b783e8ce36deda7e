//! Keeps the dataplane where the compiler says it should be.
//!
//! The publisher holds the state that is wanted. While a dataplane is connected it sends what
//! changed, one commit at a time: changes that come while a commit is under way travel together in
//! the next one. After a new connection, or a refusal, it sends the full state.
//!
//! - [`outbox`]: what is to be sent next, as a pure machine;
//! - [`link`]: the connection, again and again;
//! - [`view`]: what is known about the dataplane, for whoever waits for it.

mod outbox;

mod link;

pub(crate) mod view;

use std::future::Future;
use std::sync::Arc;

use margay_model::Update;
use margay_protocol::socket::UnixAddress;
use tokio::sync::{mpsc, watch};

pub(crate) use view::{NotInForce, View};

/// Counts the changes that were handed to the publisher; each is one more than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Revision(pub(crate) u64);

/// Changes that make one revision.
#[derive(Debug)]
struct Change {
    revision: Revision,
    updates: Vec<Update>,
}

/// Takes changes in the order in which they are to be in force.
#[derive(Debug)]
pub(crate) struct Publisher {
    changes: mpsc::UnboundedSender<Change>,
    revision: Revision,
    view: watch::Receiver<View>,
}

// === impl Publisher ===

impl Publisher {
    /// A publisher to the dataplane at this address, and the task that does its work, to be
    /// spawned; it ends with the publisher. Nothing is sent before the first
    /// [`Publisher::publish`], which has to be a complete state.
    pub(crate) fn new(
        dataplane: UnixAddress,
        node: Arc<str>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (changes, incoming) = mpsc::unbounded_channel();
        let (tell, view) = watch::channel(View::default());
        let task = link::run(dataplane, node, incoming, tell);
        (Self { changes, revision: Revision::default(), view }, task)
    }

    /// Hands changes over and names the revision that they make. Changes that come quickly after
    /// each other may be in force as one.
    pub(crate) fn publish(&mut self, updates: Vec<Update>) -> Revision {
        self.revision.0 += 1;
        let change = Change { revision: self.revision, updates };
        // The task outlives every publisher but at the end of the process.
        let _ = self.changes.send(change);
        self.revision
    }

    /// The last revision that was handed over.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What is known about the dataplane.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }
}
