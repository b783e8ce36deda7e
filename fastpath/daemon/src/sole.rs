//! One daemon a network namespace.
//!
//! Two of them would take the trunk and the uplink's program from each other, also when their state
//! directories and sockets differ. An abstract Unix socket's name is unique in its network
//! namespace and ends with its process, however that ends (unix(7)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Why this daemon may not start.
#[derive(Debug, thiserror::Error)]
pub enum SoleError {
    /// Another one runs.
    #[error("another margayd runs in this network namespace: stop that one first")]
    Another,
    /// The name cannot be taken.
    #[error("cannot take the name @{name}")]
    Name {
        /// The abstract socket's name.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Holds the name until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Sole(#[expect(dead_code, reason = "held, not used")] UnixListener);

/// Takes the name.
pub(crate) fn claim(name: &'static str) -> Result<Sole, SoleError> {
    let taken =
        SocketAddr::from_abstract_name(name).and_then(|addr| UnixListener::bind_addr(&addr));
    match taken {
        Ok(listener) => Ok(Sole(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(SoleError::Another),
        Err(source) => Err(SoleError::Name { name, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_free_again_when_its_holder_ends() {
        let first = claim("margayd-test-sole").unwrap();
        assert!(matches!(claim("margayd-test-sole"), Err(SoleError::Another)));
        drop(first);
        assert!(claim("margayd-test-sole").is_ok());
    }
}
