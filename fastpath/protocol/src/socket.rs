//! Serving on a Unix socket and connecting to it.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

use crate::{Dataplane, DataplaneClient, DataplaneServer, MAX_MESSAGE};

/// Bytes under way in one direction before the receiver has to ask for more. HTTP/2's own 64 KiB
/// would make a full state of many megabytes a long conversation.
const WINDOW: u32 = 4 << 20;

/// The address of a Unix socket: `unix:PATH`, or only the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixAddress(PathBuf);

/// The text is not the address of a Unix socket.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no socket address: write unix:PATH with an absolute path")]
pub struct UnixAddressError(String);

/// The socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process serves there.
    #[error("{path}: another process answers on this socket; stop it or choose another path")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has its name.
    #[error("{path}: is there and no socket; remove it or choose another path")]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{path}: cannot {doing}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Nobody answers on the socket.
#[derive(Debug, thiserror::Error)]
#[error("{path}: no dataplane answers on this socket; is margayd running?")]
pub struct ConnectError {
    /// The socket.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: tonic::transport::Error,
}

/// The file of a socket that is being served; dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
}

/// The path of a socket to bind, which may be written as an address.
#[must_use]
pub fn without_scheme(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix("unix:")) {
        Some(plain) => plain.into(),
        None => path,
    }
}

/// Binds a socket that only root may open. Its folder is made if needed, and a file that a dead
/// process left is replaced.
///
/// Two processes that start in the same instant may both find the dead one's file: callers that
/// can start twice hold a lock of their own before they bind.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |doing| move |source| BindError::Io { path: path.to_owned(), doing, source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("make its folder"))?;
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    let file = SocketFile { path: path.to_owned() };
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
        .map_err(failed("restrict it to root"))?;
    Ok((listener, file))
}

/// Removes the file of a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |doing| move |source| BindError::Io { path: path.to_owned(), doing, source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at it")(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove what a dead process left"))
        }
        Err(e) => Err(failed("find out who serves it")(e)),
    }
}

/// Serves the dataplane's interface until `shutdown` is ready, then waits for calls to end: the
/// service has to end its streams by itself.
pub async fn serve(
    listener: UnixListener,
    service: impl Dataplane,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .add_service(
            DataplaneServer::new(service)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
}

/// Connects to a dataplane.
pub async fn connect(address: &UnixAddress) -> Result<DataplaneClient<Channel>, ConnectError> {
    let failed = |source| ConnectError { path: address.0.clone(), source };
    let channel = Endpoint::from_shared(address.to_string())
        .map_err(failed)?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .map_err(failed)?;
    Ok(DataplaneClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

// === impl UnixAddress ===

impl UnixAddress {
    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for UnixAddress {
    type Err = UnixAddressError;

    fn from_str(text: &str) -> Result<Self, UnixAddressError> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(UnixAddressError(text.to_owned()));
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0.display())
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good; anything else the next start reports.
        let _ = std::fs::remove_file(&self.path);
    }
}
