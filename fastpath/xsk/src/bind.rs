//! Binding in the best mode that an interface can do, with the reason for every step down.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{Error, Mode, Region, Socket, SocketOptions, Umem, UmemOptions};

/// Which modes to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// Zero-copy, then copy.
    #[default]
    Auto,
    /// This mode or none. Copy it must be where XDP only runs generically
    /// ([`XdpMode::Generic`](crate::program::XdpMode)).
    Only(Mode),
}

/// A socket, and why it is not in a better mode.
#[derive(Debug)]
pub struct Bound {
    /// The socket; [`Socket::mode`] tells the mode.
    pub socket: Socket,
    /// What went wrong in the mode before.
    pub fallback: Option<Fallback>,
}

/// A step down from a mode.
#[derive(Debug)]
pub struct Fallback {
    /// The mode that was not possible.
    pub from: Mode,
    /// Why.
    pub reason: Error,
}

/// Binds the sockets of all ports over one region: one UMEM a mode, made with its first socket.
///
/// That first socket owns the UMEM, which cannot be shared any further once its netdev is gone. So
/// the first socket to be bound in copy mode is the one of a netdev that is never lost (the trunk).
/// If an owner is lost nevertheless, the next bind makes a new UMEM; sockets of the old one go on.
#[derive(Debug)]
pub struct Binder {
    region: &'static Region,
    options: UmemOptions,
    zero_copy: Mutex<Option<Arc<Umem>>>,
    copy: Mutex<Option<Arc<Umem>>>,
}

// === impl Binder ===

impl Binder {
    /// Nothing is registered yet.
    #[must_use]
    pub fn new(region: &'static Region, options: UmemOptions) -> Self {
        Self { region, options, zero_copy: Mutex::default(), copy: Mutex::default() }
    }

    /// The memory behind all sockets.
    #[must_use]
    pub fn region(&self) -> &'static Region {
        self.region
    }

    /// Binds a socket to a queue of an interface. Sleeps for up to 2 s while the queue is busy.
    ///
    /// # Errors
    /// That of the last mode tried, see [`Umem::open`] and [`Umem::bind`].
    pub fn bind(
        &self,
        interface: &str,
        queue: u32,
        preference: Preference,
        options: SocketOptions,
    ) -> Result<Bound, Error> {
        let only = |mode| match self.bind_in(mode, interface, queue, options) {
            Ok(socket) => Ok(Bound { socket, fallback: None }),
            Err(error) => Err(error),
        };
        match preference {
            Preference::Only(mode) => only(mode),
            Preference::Auto => match only(Mode::ZeroCopy) {
                Err(reason) if is_about_the_mode(&reason) => {
                    let fallback = Some(Fallback { from: Mode::ZeroCopy, reason });
                    only(Mode::Copy).map(|bound| Bound { fallback, ..bound })
                }
                outcome => outcome,
            },
        }
    }

    fn bind_in(
        &self,
        mode: Mode,
        interface: &str,
        queue: u32,
        options: SocketOptions,
    ) -> Result<Socket, Error> {
        let shared = self.umem(mode).clone();
        match shared.map(|umem| umem.bind(interface, queue, options)) {
            None => {}
            Some(Err(error)) if errno(&error) == Some(libc::EBADF) => {}
            Some(outcome) => return outcome,
        }
        let opened = Umem::open(self.region, mode, self.options, interface, queue, options);
        opened.map(|(umem, socket)| {
            *self.umem(mode) = Some(umem);
            socket
        })
    }

    fn umem(&self, mode: Mode) -> MutexGuard<'_, Option<Arc<Umem>>> {
        let umem = match mode {
            Mode::ZeroCopy => &self.zero_copy,
            Mode::Copy => &self.copy,
        };
        umem.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = std::error::Error::source(&self.reason);
        write!(f, "no {}: {}", self.from, source.map_or(self.reason.to_string(), |s| s.to_string()))
    }
}

/// Whether another mode may fare better.
fn is_about_the_mode(error: &Error) -> bool {
    !matches!(errno(error), None | Some(libc::EBUSY | libc::ENODEV | libc::EPERM | libc::EACCES))
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Bind { source, .. } | Error::Register { source, .. } => source.raw_os_error(),
        _ => None,
    }
}
