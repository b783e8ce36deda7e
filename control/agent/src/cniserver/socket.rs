//! The socket file: made with mode 0600, in place of a stale predecessor, removed at the end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why the agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another process answers there.
    #[error("{}: another margay-agent listens here; stop it, or choose another --socket", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has the name.
    #[error("{}: exists and is no socket; remove it, or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// A file operation failed.
    #[error("{operation} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// A listening socket, whose file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

// === impl Socket ===

impl Socket {
    /// Listens at `path`; must be called within a tokio runtime.
    ///
    /// The socket is bound beside its final name and moved there after its mode is set, so that
    /// nobody but root can connect at any time, and a plugin sees the old or the new one.
    ///
    /// # Errors
    /// Another process answers there, something else has the name, or a file operation failed.
    pub(crate) fn listen(path: &Path) -> Result<Self, SocketError> {
        refuse_what_is_in_use(path)?;
        let fail = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| SocketError::Io { operation, path, source }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(fail("create folder", folder))?;
        }
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("remove", &new)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(fail("bind", &new))?;
        fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(fail("chmod", &new))?;
        fs::rename(&new, path).map_err(fail("rename to", path))?;
        Ok(Self { listener, path: path.to_path_buf() })
    }

    /// The listener.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    /// Removes the file; one that is gone already is no loss.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A name that is free, or held by a socket to which nobody listens, passes.
fn refuse_what_is_in_use(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(SocketError::NotASocket(path.to_path_buf()))
        }
        Ok(_) if BlockingStream::connect(path).is_ok() => {
            Err(SocketError::InUse(path.to_path_buf()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_by_one_of_mode_0600() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("run/agent.sock");
        fs::create_dir(dir.path().join("run")).expect("a folder");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket left behind"));
        let socket = Socket::listen(&path).expect("the stale one is replaced");
        let mode = fs::metadata(&path).expect("the socket's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        BlockingStream::connect(&path).expect("somebody listens");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_agent_on_one_socket_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.sock");
        let _first = Socket::listen(&path).expect("a free name");
        assert!(matches!(Socket::listen(&path), Err(SocketError::InUse(_))));
    }

    #[tokio::test]
    async fn a_plain_file_is_never_removed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(Socket::listen(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }
}
