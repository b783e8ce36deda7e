//! The container's network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use margay_cni_api::{CniError, Code};
use rustix::fs::FlockOperation;
use rustix::thread::LinkNameSpaceType;

/// An open network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
}

// === impl Netns ===

impl Netns {
    /// Opens the namespace at `path` (CNI_NETNS), as the plugin's own mount namespace shows it.
    ///
    /// # Errors
    /// [`Code::BAD_ENVIRONMENT`], naming CNI_NETNS, when there is no namespace or it is the
    /// node's own.
    pub(crate) fn open(path: &str) -> Result<Self, CniError> {
        let bad = |what: String| {
            CniError::new(
                Code::BAD_ENVIRONMENT,
                format!("CNI_NETNS {path:?} {what}"),
                "the container runtime names the container's network namespace there; a pod of \
                 the host network needs no CNI call",
            )
        };
        let file = File::open(path).map_err(|error| bad(format!("cannot be opened: {error}")))?;
        let netns = Self { file, path: Path::new(path).to_path_buf() };
        if netns.is_our_own().map_err(|error| bad(format!("cannot be read: {error}")))? {
            return Err(bad("is the node's own network namespace".to_owned()));
        }
        netns.enter(|| ()).map_err(|error| bad(format!("cannot be entered: {error}")))?;
        Ok(netns)
    }

    /// Opens the namespace if it is still there.
    pub(crate) fn open_if_there(path: &str) -> Option<Self> {
        if path.is_empty() { None } else { Self::open(path).ok() }
    }

    /// Holds off every other call for this namespace until the value is dropped, or the process
    /// ends: two ADDs of one container must not undo each other. An nsfs inode takes flock(2) as
    /// any other, so no lock file has to be kept anywhere.
    pub(crate) fn lock(&self) -> Result<(), CniError> {
        rustix::fs::flock(&self.file, FlockOperation::LockExclusive).map_err(|error| {
            CniError::new(Code::IO, format!("locking {}: {error}", self.path.display()), "")
        })
    }

    /// Runs `work` on a thread within the namespace; the calling thread stays where it is.
    ///
    /// # Errors
    /// setns(2) failed; `work` did not run.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let enter = || {
            rustix::thread::move_into_link_name_space(
                self.file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// For a netlink message that is to reach into the namespace.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn is_our_own(&self) -> io::Result<bool> {
        let ours = std::fs::metadata("/proc/thread-self/ns/net")?;
        let theirs = self.file.metadata()?;
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }
}
