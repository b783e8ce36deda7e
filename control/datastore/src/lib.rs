//! Where intent and machine state are kept: one trait over every backend, and the backends.
//!
//! Objects are JSON values with a [`Key`]; this crate knows no types. What a document has to look
//! like is asked of a [`Reader`] that the caller brings.
//!
//! In the order of use:
//! - [`object`]: what is stored, its name, its revision;
//! - [`store`]: the trait [`Datastore`]: list, watch, get and compare-and-swap; [`error`]: how it
//!   fails;
//! - [`documents`]: the seam to whatever reads and checks what people write;
//! - [`url`]: from `dir:PATH` to a backend;
//! - [`mirror`]: list, watch and relist for consumers that follow many kinds;
//! - [`dir`]: the backend without a server, a directory of YAML shared by several nodes; what is bad
//!   in it leaves its last good version in force, over renames and restarts;
//! - `testing` (feature `testing`): the suite that every backend passes, and a backend that
//!   injects faults.

pub mod object;

pub mod error;
pub mod store;

pub mod documents;

pub mod url;

pub mod mirror;

pub mod dir;

#[cfg(feature = "testing")]
pub mod testing;

pub use documents::{Format, Parsed, Problem, Reader};
pub use error::Error;
pub use mirror::{Batch, Mirror, MirrorHandle};
pub use object::{Cursor, Key, Kind, Object, Revision};
pub use store::{Change, Datastore, Event, EventStream, Listing};
pub use url::{Url, UrlError, open};
