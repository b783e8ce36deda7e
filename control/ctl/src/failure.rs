//! How a command fails.

use std::io;
use std::path::PathBuf;

use margay_protocol::socket::{ConnectError, UnixAddressError};

use crate::options::Missing;

/// What went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An option that the command needs.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The address of a socket.
    #[error("{option}: {source}")]
    Address {
        /// Its flag.
        option: &'static str,
        /// What is wrong.
        source: UnixAddressError,
    },
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] margay_datastore::Error),
    /// Address management.
    #[error(transparent)]
    Ipam(#[from] margay_ipam::Error),
    /// Nobody answers.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The dataplane said no.
    #[error("margayd: {}", .0.message())]
    Dataplane(#[from] tonic::Status),
    /// No kind is called so.
    #[error(
        "there is no kind {0:?}; known are Calico's (networkpolicy, globalnetworkpolicy, ippool, \
         node, workloadendpoint, …) and Kubernetes' (pod, service, namespace, …)"
    )]
    UnknownKind(String),
    /// A command line that contradicts itself.
    #[error("{0}")]
    Usage(&'static str),
    /// A file.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Documents that are not as they should be; nothing was changed.
    #[error("nothing was changed, mend these documents first:\n  {}", .0.join("\n  "))]
    BadDocuments(Vec<String>),
    /// A patch.
    #[error("the patch is none: {0}")]
    Patch(String),
    /// A label.
    #[error("{0}")]
    Label(String),
    /// Some objects.
    #[error("{done} done, {} failed:\n  {}", .failed.len(), .failed.join("\n  "))]
    Partly {
        /// How many succeeded.
        done: usize,
        /// What went wrong with each of the others.
        failed: Vec<String>,
    },
    /// Standard output or a runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error with what caused it, on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
