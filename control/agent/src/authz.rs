//! Where proxies ask whether a request may pass: `--authz`.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;

use futures::future::{self, BoxFuture};
use margay_authz::Authorizer;
use margay_protocol::socket::{self, BindError};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;
use tracing::error;

/// Where to listen: `unix:PATH`, or `ADDRESS:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthzAddress {
    /// A socket that everybody may open who sees its folder: a proxy seldom runs as root.
    Unix(PathBuf),
    /// In plain text: an address that only this node's proxies reach.
    Tcp(SocketAddr),
}

/// The text is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: write unix:PATH with an absolute path, or ADDRESS:PORT")]
pub struct AuthzAddressError(String);

/// Proxies cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The socket cannot be opened to others than root.
    #[error("{}: cannot open it to others than root", .path.display())]
    Mode {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The address cannot be bound.
    #[error("{address}: cannot listen")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Listens, and gives what then serves for ever. Must be called within a tokio runtime.
pub(crate) fn listen(
    address: &AuthzAddress,
    authorizer: Authorizer,
) -> Result<BoxFuture<'static, ()>, ListenError> {
    Ok(match address {
        AuthzAddress::Unix(path) => {
            let (listener, file) = socket::bind(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o666))
                .map_err(|source| ListenError::Mode { path: path.clone(), source })?;
            Box::pin(async move {
                // The file goes with the server.
                let _file = file;
                report(
                    margay_authz::serve(
                        UnixListenerStream::new(listener),
                        authorizer,
                        future::pending(),
                    )
                    .await,
                );
            })
        }
        AuthzAddress::Tcp(address) => {
            let incoming = TcpIncoming::bind(*address)
                .map_err(|source| ListenError::Tcp { address: *address, source })?
                .with_nodelay(Some(true));
            Box::pin(async move {
                report(margay_authz::serve(incoming, authorizer, future::pending()).await);
            })
        }
    })
}

fn report(served: Result<(), tonic::transport::Error>) {
    if let Err(error) = served {
        error!(%error, "proxies are not answered any more");
    }
}

// === impl AuthzAddress ===

impl FromStr for AuthzAddress {
    type Err = AuthzAddressError;

    fn from_str(text: &str) -> Result<Self, AuthzAddressError> {
        let bad = || AuthzAddressError(text.to_owned());
        match text.strip_prefix("unix:") {
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                path.starts_with('/').then(|| Self::Unix(path.into())).ok_or_else(bad)
            }
            None => text.parse().map(Self::Tcp).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for AuthzAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["unix:/run/margay/authz/authz.sock", "127.0.0.1:9191", "[::1]:9191"] {
            assert_eq!(text.parse::<AuthzAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "unix:", "unix:run/x", "/run/x", "localhost:1", "127.0.0.1", "1"] {
            assert!(bad.parse::<AuthzAddress>().is_err(), "{bad}");
        }
    }
}
