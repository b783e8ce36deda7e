//! The bell of an [`Inbox`], waited for by a task.

use std::io;
use std::os::fd::OwnedFd;

use margay_worker::Inbox;
use tokio::io::unix::AsyncFd;

/// See [`Inbox::bell`].
pub(crate) struct Bell(AsyncFd<OwnedFd>);

// === impl Bell ===

impl Bell {
    /// That of an inbox.
    pub(crate) fn new<T>(inbox: &Inbox<T>) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its successor needs unsafe; the descriptor is the bell's own"
        )]
        Ok(Self(AsyncFd::new(inbox.bell().try_clone()?)?))
    }

    /// Waits until it has rung.
    pub(crate) async fn rung(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        // Whoever was here before may have heard it already.
        let _ = rustix::io::read(self.0.get_ref(), &mut [0u8; 8]);
        Ok(())
    }
}
