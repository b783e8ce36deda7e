//! Transmission: frames into the tx ring, and the system call that makes the kernel look.

use libxdp_sys::xdp_desc;
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

use crate::{Frame, Socket, rx::XDP_PKT_CONTD};

/// What became of a [`Socket::kick_tx`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// The kernel has taken everything, or needs no call.
    Done,
    /// Frames are left in the tx ring: the device or the socket's buffer is full. Kick again, after
    /// completions were read.
    Pending,
}

/// Why the kernel does not send for this socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KickError {
    /// The interface is down. Frames in the tx ring stay there.
    #[error("the interface is down")]
    Down,
    /// The interface is gone, and with it the socket's binding: drop the socket.
    #[error("the interface is gone")]
    Gone,
    /// Anything else.
    #[error("cannot send: {0}")]
    Other(Errno),
}

impl Socket {
    /// Takes frames from the iterator while the tx ring has room, and returns how many it took;
    /// what is left in the iterator is the caller's. Makes no system call: [`Socket::kick_tx`] does,
    /// once a batch.
    #[inline]
    pub fn tx(&mut self, frames: &mut impl ExactSizeIterator<Item = Frame>) -> usize {
        let offered = frames.len();
        let wanted = u32::try_from(offered).unwrap_or(u32::MAX).saturating_mul(self.most_chunks);
        let mut room = self.tx.free(wanted.min(self.tx.size()));
        let before = self.counters.tx;
        // Room for the longest packet, since the next one's length is not known before it is taken.
        while room >= self.most_chunks
            && let Some(frame) = frames.next()
        {
            if !self.can_send(&frame) {
                self.counters.unsendable += 1;
                continue;
            }
            room -= self.push(frame);
            self.counters.tx += 1;
        }
        self.counters.tx_ring_full += u64::from(frames.len() > 0);
        if self.counters.tx != before {
            self.tx.commit();
        }
        offered - frames.len()
    }

    /// Whether the kernel sends it: an empty descriptor is skipped without a completion, another
    /// region's bytes would be others, and too many chunks are refused.
    #[inline]
    #[must_use]
    pub fn can_send(&self, frame: &Frame) -> bool {
        !frame.is_empty()
            && std::ptr::eq(frame.region(), self.region)
            && (!frame.goes_on() || self.can_send_parts(frame))
    }

    #[cold]
    fn can_send_parts(&self, frame: &Frame) -> bool {
        frame.chunks() <= self.most_chunks as usize && frame.parts().all(|part| !part.is_empty())
    }

    /// Puts a packet's descriptors into the ring, which has room for them, and returns how many.
    #[inline]
    fn push(&mut self, mut frame: Frame) -> u32 {
        let mut pushed = 0;
        loop {
            let rest = frame.split_rest();
            let options = if rest.is_some() { XDP_PKT_CONTD } else { 0 };
            let descriptor = xdp_desc { addr: frame.address(), len: frame.len() as u32, options };
            self.lent.insert(frame.into_chunk());
            self.tx.push(descriptor);
            pushed += 1;
            match rest {
                Some(rest) => frame = rest,
                None => return pushed,
            }
        }
    }

    /// Makes the kernel send what is in the tx ring, if it needs to be told.
    ///
    /// In copy mode one call sends a limited number and stops at every packet that the device
    /// drops, so it is repeated as long as that helps.
    ///
    /// # Errors
    /// [`KickError`].
    #[inline]
    pub fn kick_tx(&mut self) -> Result<Kick, KickError> {
        let mut pending = self.tx.pending();
        if pending == 0 || !self.tx.needs_wakeup() {
            return Ok(Kick::Done);
        }
        loop {
            match send(&*self, &[], SendFlags::DONTWAIT) {
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::NETDOWN) => return Err(KickError::Down),
                Err(Errno::NXIO | Errno::NODEV) => return Err(KickError::Gone),
                Err(errno) => return Err(KickError::Other(errno)),
            }
            match std::mem::replace(&mut pending, self.tx.pending()) {
                _ if pending == 0 => return Ok(Kick::Done),
                before if before == pending => return Ok(Kick::Pending),
                _ => {}
            }
        }
    }

    /// Frames in the tx ring that the kernel has not taken.
    pub fn tx_pending(&mut self) -> usize {
        self.tx.pending() as usize
    }
}
