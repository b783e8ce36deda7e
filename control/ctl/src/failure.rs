//! How a command fails.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use margay_datastore::{Error, Key};
use margay_protocol::socket::{ConnectError, UnixAddressError};
use margay_resources::Kind;

use crate::files::ReadError;
use crate::options::NoDatastore;
use crate::resource::name::word;

/// What went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An option that the command needs.
    #[error(transparent)]
    NoDatastore(#[from] NoDatastore),
    /// The datastore.
    #[error("{}", with_mend(.0))]
    Datastore(Error),
    /// Address management.
    #[error(transparent)]
    Ipam(#[from] margay_ipam::Error),
    /// Nobody answers.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The address of a socket.
    #[error(transparent)]
    Address(#[from] UnixAddressError),
    /// The dataplane does not answer.
    #[error("margayd does not answer within {0:?}; its log may tell why")]
    Silent(Duration),
    /// The dataplane's answer is none.
    #[error("margayd's answer holds {0}; install margayctl and margayd of one release")]
    Answer(&'static str),
    /// The dataplane said no.
    #[error("margayd: {}", .0.message())]
    Dataplane(tonic::Status),
    /// An object of the datastore that is not as it should be.
    #[error(transparent)]
    Object(#[from] margay_resources::ResourceError),
    /// What `ipam check` found.
    #[error("{0} findings; a second check tells whether they were only under way")]
    Findings(usize),
    /// A report of `ipam check`.
    #[error("{}: is no report of ipam check -o json: {source}", .path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file of packets.
    #[error("{}: {source}", .path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pcap_file::PcapError,
    },
    /// No pool has these addresses.
    #[error("no IPPool has the cidr {0}; margayctl get ippools shows them")]
    NoPool(ipnet::IpNet),
    /// No kind is called so.
    #[error(
        "there is no kind {0:?}; known are Calico's (networkpolicy, globalnetworkpolicy, ippool, \
         node, workloadendpoint, …) and Kubernetes' (pod, service, namespace, …)"
    )]
    UnknownKind(String),
    /// A command line that contradicts itself.
    #[error("{0}")]
    Usage(&'static str),
    /// A file or folder.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Documents that are not as they should be; nothing was changed.
    #[error("nothing was changed, mend these documents first:\n  {}", .0.join("\n  "))]
    BadDocuments(Vec<String>),
    /// A patch that is none, or does not fit.
    #[error("{object}: the patch does not fit: {reason}")]
    Patch {
        /// What was to be patched.
        object: Box<Key>,
        /// Why it cannot be.
        reason: String,
    },
    /// A patch that makes another object of it.
    #[error(
        "{0}: apiVersion, kind, metadata.name and metadata.namespace cannot be changed; create \
         another object and delete this one"
    )]
    Renamed(Box<Key>),
    /// A label that cannot be set or removed.
    #[error("{object}: {reason}")]
    Label {
        /// What was to be labelled.
        object: Box<Key>,
        /// Why it cannot be.
        reason: String,
    },
    /// Some objects.
    #[error("{}", partly(*.done, .failed))]
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

// === impl From ===

// Not `#[from]`, which would make them sources too: what they say is part of the sentence.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Datastore(error)
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Dataplane(status)
    }
}

fn partly(done: usize, failed: &[String]) -> String {
    match failed {
        [only] if done == 0 => only.clone(),
        _ => format!("{done} done, {} failed:\n  {}", failed.len(), failed.join("\n  ")),
    }
}

/// An error of the datastore on one line: what caused it, or what to do.
pub(crate) fn with_mend(error: &Error) -> String {
    let text = with_sources(error);
    match error {
        Error::NotFound(key) => {
            let scope = if key.namespace.is_empty() { "" } else { " --all-namespaces" };
            let kind = Kind::of_stored(&key.kind).map(word).unwrap_or_default();
            format!("{text}; margayctl get {kind}{scope} shows those that do")
        }
        Error::AlreadyExists(_) => format!("{text}; use apply or replace to change it"),
        Error::Conflict { .. } => format!("{text}; get it again and repeat the change"),
        _ => text,
    }
}

/// An error with what caused it, on one line. Some errors say themselves what caused them.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
