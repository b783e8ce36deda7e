//! One AF_XDP socket: the four rings of one (interface, queue), used by one worker at a time.

use std::{
    fmt, io,
    mem::ManuallyDrop,
    os::fd::{AsFd, BorrowedFd, RawFd},
};

use libbpf_rs::{Xdp, XdpFlags};
use libxdp_sys::{xdp_desc, xsk_socket__fd};

use crate::{
    Error, Frame, Mode, Napi, Region, SocketOptions,
    gather::Gather,
    lent::Lent,
    ring::{Consumer, Producer},
    umem::Handle,
};

/// Bytes of skbs that may be under way from one socket in copy mode: more than a full tx ring of
/// the largest frames. The default (212,992) stalls sending at about 90 packets.
const SEND_BUFFER: usize = 16 << 20;

/// `XDP_MAX_TX_SKB_BUDGET` (include/uapi/linux/if_xdp.h, Linux 6.17): descriptors that one
/// `sendto` takes in copy mode, 32 by default.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// One bound AF_XDP socket. One thread at a time drives it, with neither lock nor allocation:
/// [`complete`](Socket::complete), [`rx`](Socket::rx), [`tx`](Socket::tx),
/// [`kick_tx`](Socket::kick_tx), [`fill`](Socket::fill).
///
/// Dropping it closes the socket and gives the frames that the kernel had for it back to the
/// region. The kernel waits for a grace period meanwhile (milliseconds): a worker hands a socket it
/// no longer wants to another thread.
pub struct Socket {
    pub(crate) rx: Consumer<xdp_desc>,
    pub(crate) tx: Producer<xdp_desc>,
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) lent: Lent,
    /// A packet of which not all chunks have come.
    pub(crate) gather: Gather,
    /// Chunks that a packet to be sent may have; 1 without multi-buffer.
    pub(crate) most_chunks: u32,
    pub(crate) region: &'static Region,
    pub(crate) counters: SocketCounters,
    /// Frames to keep in the fill ring.
    pub(crate) ready: u32,
    /// The queue's NAPI, where busy polling is preferred.
    pub(crate) napi: Option<Napi>,
    /// Whether it is known, and runs in this socket's calls.
    pub(crate) polled: bool,
    fd: RawFd,
    queue: u32,
    interface: Box<str>,
    /// Taken out only by `drop`.
    handle: ManuallyDrop<Handle>,
}

/// What this side of a socket counted. Monotonic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Frames received.
    pub rx: u64,
    /// Frames put into the tx ring.
    pub tx: u64,
    /// Chunks of frames that the kernel reported as sent.
    pub completed: u64,
    /// Times that [`Socket::tx`] had more frames than the tx ring had room.
    pub tx_ring_full: u64,
    /// Times that [`Socket::fill`] found no free chunk.
    pub fill_starved: u64,
    /// Frames given to [`Socket::tx`] that cannot be sent: empty, of another region, or of more
    /// chunks than the socket takes. They went back to their region.
    pub unsendable: u64,
    /// Received packets of several chunks that were dropped: more than [`Frame::MOST_CHUNKS`], or
    /// one of them was none the kernel had from us.
    pub broken: u64,
    /// Descriptors that name no chunk the kernel had from us; ignored.
    pub foreign: u64,
}

/// What the kernel counted for a socket (`XDP_STATISTICS`, af_xdp.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Packets dropped because there was no free frame, or they were too long for one.
    pub rx_dropped: u64,
    /// Packets dropped because the rx ring was full; not in `rx_dropped`.
    pub rx_ring_full: u64,
    /// Times that the kernel found the fill ring empty. Not a number of packets.
    pub fill_ring_empty: u64,
    /// Fill ring entries that named no chunk.
    pub rx_invalid: u64,
    /// Tx descriptors that the kernel refused.
    pub tx_invalid: u64,
    /// Times that the kernel looked for something to send and found nothing.
    pub tx_ring_empty: u64,
}

// SAFETY: the rings are pointers into mappings that any one thread may use; `Socket` is not `Sync`,
// and all methods that touch the rings take `&mut self`.
unsafe impl Send for Socket {}

// === impl Socket ===

impl Socket {
    /// The socket of a handle that libxdp has just made.
    pub(crate) fn new(
        handle: Handle,
        interface: &str,
        queue: u32,
        options: SocketOptions,
    ) -> Result<Self, Error> {
        let region = handle.umem().region();
        // SAFETY: libxdp filled the rings in for this socket, rx and tx with descriptors, fill and
        // completion with addresses. They are unmapped when `handle` is dropped, after the rings
        // here. Each is wrapped once: a handle comes here once.
        let rings = unsafe {
            let rings = handle.rings();
            Producer::new(&rings.tx)
                .zip(Consumer::new(&rings.rx))
                .zip(Producer::new(&rings.fill).zip(Consumer::new(&rings.completion)))
        };
        // libxdp leaves fill and completion out if the queue is in use by this UMEM already.
        let Some(((tx, rx), (fill, completion))) = rings else {
            return Err(Error::AlreadyBound { interface: interface.to_owned(), queue });
        };
        // SAFETY: the handle holds a live socket.
        let fd = unsafe { xsk_socket__fd(handle.xsk.as_ptr()) };
        let ready = options.ready.min(fill.size());
        let mut socket = Self {
            rx,
            tx,
            fill,
            completion,
            lent: Lent::new(region.chunks()),
            gather: Gather::default(),
            most_chunks: 1,
            region,
            counters: SocketCounters::default(),
            ready,
            napi: None,
            polled: false,
            fd,
            queue,
            interface: interface.into(),
            handle: ManuallyDrop::new(handle),
        };
        socket.tune(options);
        if socket.handle.umem().multi_buffer() {
            socket.most_chunks = socket.most_chunks_of_device().min(socket.tx.size());
        }
        Ok(socket)
    }

    /// Name of the interface when the socket was bound.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The interface's queue.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The mode the socket runs in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.handle.umem().mode()
    }

    /// What this side counted.
    #[must_use]
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// What the kernel counted.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub fn kernel_counters(&self) -> Result<KernelCounters, Error> {
        let stats = rustix::net::sockopt::xdp_statistics(self)
            .map_err(|errno| Error::Query { what: "the statistics", source: errno.into() })?;
        Ok(KernelCounters {
            rx_dropped: stats.rx_dropped,
            rx_ring_full: stats.rx_ring_full.unwrap_or(0),
            fill_ring_empty: stats.rx_fill_ring_empty_descs.unwrap_or(0),
            rx_invalid: stats.rx_invalid_descs,
            tx_invalid: stats.tx_invalid_descs,
            tx_ring_empty: stats.tx_ring_empty_descs.unwrap_or(0),
        })
    }

    /// Frames in the kernel's hands for this socket: ready for reception, received and not yet read,
    /// to be sent, or sent and not yet completed. Counts 1 KiB of bits for 8,192 chunks.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent.len()
    }

    /// How many chunks a packet to be sent may have: in zero-copy mode what the driver can
    /// (`xdp_zc_max_segs`, af_xdp.rst).
    fn most_chunks_of_device(&self) -> u32 {
        let most = Frame::MOST_CHUNKS as u32;
        if self.mode() == Mode::Copy {
            return most;
        }
        let index = rustix::net::netdevice::name_to_index(self, &self.interface).ok();
        let asked = index.map(|index| Xdp::new(self.as_fd()).query(index as i32, XdpFlags::NONE));
        asked.and_then(Result::ok).map_or(1, |device| device.xdp_zc_max_segs.clamp(1, most))
    }

    /// Settings without which the socket works too, only slower.
    fn tune(&self, options: SocketOptions) {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(self, SEND_BUFFER);
        let _ = self.set_option(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, options.tx);
    }

    /// Sets an option whose value is a number.
    pub(crate) fn set_option(
        &self,
        level: libc::c_int,
        name: libc::c_int,
        value: u32,
    ) -> io::Result<()> {
        // SAFETY: a live descriptor, and a pointer to a value of the length given.
        let code = unsafe {
            libc::setsockopt(
                self.fd,
                level,
                name,
                (&raw const value).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open until `handle` is dropped, which `self` outlives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: taken here and nowhere else, and not used afterwards.
        let handle = unsafe { ManuallyDrop::take(&mut self.handle) };
        handle.close(self.lent.take_all());
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("interface", &self.interface)
            .field("queue", &self.queue)
            .field("mode", &self.mode())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
