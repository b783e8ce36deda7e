//! One daemon a network namespace.
//!
//! Two of them would take the trunk and the uplink's program from each other, also when their state
//! directories and sockets differ. An abstract Unix socket's name is unique in its network
//! namespace and ends with its process, however that ends (unix(7)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

/// How long a predecessor may take to die: a killed process keeps its files until its last thread
/// has ended, and gives up its AF_XDP sockets one after the other.
const HANDOVER: Duration = Duration::from_secs(2);

/// Why this daemon may not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoleError {
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

/// Takes the name, or waits a little for whoever has it.
pub(crate) fn claim(name: &'static str) -> Result<Sole, SoleError> {
    let bind = || UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?);
    match patiently(bind) {
        Ok(listener) => Ok(Sole(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(SoleError::Another),
        Err(source) => Err(SoleError::Name { name, source }),
    }
}

/// Tries until it succeeds or a dying predecessor would have given way.
pub(crate) fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(_) if begun.elapsed() < HANDOVER => std::thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
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
