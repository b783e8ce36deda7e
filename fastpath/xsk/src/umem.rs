//! The region as the kernel knows it: one registration (UMEM) for each mode, shared by its sockets.

use std::{
    ffi::CString,
    io,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard},
    thread::sleep,
    time::{Duration, Instant},
};

use libxdp_sys::{
    xsk_ring_cons, xsk_ring_prod, xsk_socket, xsk_socket__create_shared, xsk_socket__delete,
    xsk_socket_config, xsk_umem, xsk_umem__create, xsk_umem__delete, xsk_umem_config,
};
use xsk_rs::config::{
    BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig, XdpFlags,
};

use crate::{Error, Mode, Region, Socket};

/// For how long a bind that meets EBUSY is tried again: the kernel frees a queue in a work item
/// after the last socket's close, measured up to 0.6 s.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// Pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Ring sizes of a socket and how many frames it keeps ready. All but `ready` are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// Slots of the rx ring.
    pub rx: u32,
    /// Slots of the tx ring.
    pub tx: u32,
    /// Frames that [`Socket::fill`] keeps in the kernel's hands for reception; at most the fill
    /// ring's size.
    pub ready: u32,
}

/// What all sockets of a UMEM have in common. The sizes are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UmemOptions {
    /// Slots of each fill ring.
    pub fill: u32,
    /// Slots of each completion ring; at least as many as a tx ring has, or the kernel stops
    /// sending until completions are read.
    pub completion: u32,
    /// Whether packets may be longer than a chunk: a frame then has as many chunks as it needs.
    /// Such packets are received only through an XDP program that was loaded for them too.
    pub multi_buffer: bool,
}

/// A registration of the [`Region`] in one mode.
///
/// Its first socket, the owner, is made with it and decides the mode for all that follow; sharing
/// fails with EBADF once the owner's netdev is gone, so the owner sits on a netdev of our own.
#[derive(Debug)]
pub struct Umem {
    region: &'static Region,
    mode: Mode,
    multi_buffer: bool,
    inner: Mutex<Inner>,
}

/// What libxdp keeps without a lock of its own: every call into it is made under the mutex.
#[derive(Debug)]
struct Inner {
    umem: NonNull<xsk_umem>,
    /// The owner's rings, which libxdp reads again when the UMEM is deleted.
    owner_rings: NonNull<Rings>,
    /// Chunks of the owner, when that socket was dropped: its descriptor is the UMEM's own and
    /// stays open, so the kernel may still receive into them.
    owner_lent: Vec<u32>,
}

/// The rings of one socket as libxdp fills them in, and reads them again to unmap.
pub(crate) struct Rings {
    pub(crate) rx: xsk_ring_cons,
    pub(crate) tx: xsk_ring_prod,
    pub(crate) fill: xsk_ring_prod,
    pub(crate) completion: xsk_ring_cons,
}

/// A socket of libxdp's with its rings; closed on drop.
pub(crate) struct Handle {
    pub(crate) xsk: NonNull<xsk_socket>,
    /// From `Box::into_raw`: libxdp holds pointers into it as long as `xsk` exists.
    rings: NonNull<Rings>,
    umem: Arc<Umem>,
    owner: bool,
}

// SAFETY: libxdp's UMEM has no tie to a thread; access is serialised by the mutex around `Inner`.
unsafe impl Send for Inner {}
// SAFETY: the socket and its rings have no tie to a thread, and a handle has one owner.
unsafe impl Send for Handle {}

// === impl SocketOptions ===

impl Default for SocketOptions {
    fn default() -> Self {
        Self { rx: 2048, tx: 2048, ready: 2048 }
    }
}

// === impl UmemOptions ===

impl Default for UmemOptions {
    fn default() -> Self {
        Self { fill: 2048, completion: 2048, multi_buffer: false }
    }
}

// === impl Umem ===

impl Umem {
    /// Registers the region and binds the UMEM's first socket, its owner.
    ///
    /// EBUSY is retried for up to 2 s; the call sleeps meanwhile.
    ///
    /// # Errors
    /// [`Error::Register`], [`Error::Bind`] (with EOPNOTSUPP or EINVAL where the interface cannot do
    /// the mode), [`Error::Config`], [`Error::InterfaceName`].
    pub fn open(
        region: &'static Region,
        mode: Mode,
        options: UmemOptions,
        interface: &str,
        queue: u32,
        socket: SocketOptions,
    ) -> Result<(Arc<Self>, Socket), Error> {
        let name = interface_name(interface)?;
        let socket_config = socket_config(socket, mode, options.multi_buffer)?;
        retry_busy(|| {
            // If the bind fails the registration goes with it: libxdp cannot take a half-made owner
            // up again.
            let umem = Arc::new(Self::register(region, mode, options)?);
            let rings = umem.lock().owner_rings;
            let handle = umem
                .create(rings, &name, queue, socket_config, true)
                .map_err(|source| bind_error(interface, queue, mode, source))?;
            let socket = Socket::new(handle, interface, queue, socket)?;
            Ok((umem, socket))
        })
    }

    /// Binds a further socket, in this UMEM's mode.
    ///
    /// EBUSY is retried for up to 2 s; the call sleeps meanwhile.
    ///
    /// # Errors
    /// [`Error::Bind`]: EOPNOTSUPP or EINVAL where the interface cannot do the mode, EBADF when the
    /// owner's netdev is gone; [`Error::AlreadyBound`], [`Error::Config`],
    /// [`Error::InterfaceName`].
    pub fn bind(
        self: &Arc<Self>,
        interface: &str,
        queue: u32,
        options: SocketOptions,
    ) -> Result<Socket, Error> {
        let name = interface_name(interface)?;
        let config = socket_config(options, self.mode, self.multi_buffer)?;
        retry_busy(|| {
            let handle = self
                .create(Rings::boxed(), &name, queue, config, false)
                .map_err(|source| bind_error(interface, queue, self.mode, source))?;
            Socket::new(handle, interface, queue, options)
        })
    }

    /// The memory behind it.
    #[must_use]
    pub fn region(&self) -> &'static Region {
        self.region
    }

    /// The mode of every socket of this UMEM.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether its sockets take packets of several chunks.
    #[must_use]
    pub fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    fn register(region: &'static Region, mode: Mode, options: UmemOptions) -> Result<Self, Error> {
        let config = umem_config(region, options)?;
        let rings = Rings::boxed();
        let mut umem = std::ptr::null_mut();
        // SAFETY: 1. the region is mapped for the rest of the process, page-aligned and of the size
        // given. 2. `rings` is live and at a stable address until the UMEM is deleted. 3. `config` is
        // copied by the callee.
        let code = unsafe {
            let rings = rings.as_ptr();
            xsk_umem__create(
                &mut umem,
                region.base().as_ptr().cast(),
                region.bytes() as u64,
                &raw mut (*rings).fill,
                &raw mut (*rings).completion,
                &config,
            )
        };
        match NonNull::new(umem).filter(|_| code == 0) {
            Some(umem) => {
                let inner = Inner { umem, owner_rings: rings, owner_lent: Vec::new() };
                let multi_buffer = options.multi_buffer;
                Ok(Self { region, mode, multi_buffer, inner: Mutex::new(inner) })
            }
            None => {
                // SAFETY: nobody else has the pointer; libxdp failed and kept nothing.
                unsafe { Rings::free(rings) };
                let source = io::Error::from_raw_os_error(-code);
                Err(Error::Register { bytes: region.bytes(), source })
            }
        }
    }

    /// Makes and binds a socket. `rings` is taken over, unless it is the owner's: then the UMEM
    /// keeps it.
    fn create(
        self: &Arc<Self>,
        rings: NonNull<Rings>,
        name: &CString,
        queue: u32,
        config: SocketConfig,
        owner: bool,
    ) -> io::Result<Handle> {
        let mut xsk = std::ptr::null_mut();
        let config: xsk_socket_config = config.into();
        let inner = self.lock();
        // SAFETY: 1. the UMEM is live (it is deleted when the last `Arc` of `self` goes) and only
        // used under the lock. 2. The rings are live, at a stable address and used for no other
        // socket; for the owner, fill and completion are the ones the UMEM was created with.
        // 3. `name` ends with NUL. 4. `config` is copied.
        let code = unsafe {
            let rings = rings.as_ptr();
            xsk_socket__create_shared(
                &mut xsk,
                name.as_ptr(),
                queue,
                inner.umem.as_ptr(),
                &raw mut (*rings).rx,
                &raw mut (*rings).tx,
                &raw mut (*rings).fill,
                &raw mut (*rings).completion,
                &config,
            )
        };
        drop(inner);
        match NonNull::new(xsk).filter(|_| code == 0) {
            Some(xsk) => Ok(Handle { xsk, rings, umem: Arc::clone(self), owner }),
            None => {
                if !owner {
                    // SAFETY: libxdp failed and kept no pointer to them.
                    unsafe { Rings::free(rings) };
                }
                Err(io::Error::from_raw_os_error(-code))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(|poison| poison.into_inner());
        // SAFETY: 1. every socket holds an `Arc` of the UMEM, so none is left and nothing uses the
        // pointer any more. 2. The owner's rings are freed after it, the owner socket's handle having
        // left them alone.
        unsafe {
            xsk_umem__delete(inner.umem.as_ptr());
            Rings::free(inner.owner_rings);
        }
        let chunks = std::mem::take(&mut inner.owner_lent);
        self.region.reclaim(chunks, self.mode == Mode::ZeroCopy);
    }
}

// === impl Handle ===

impl Handle {
    /// The rings, as libxdp filled them in.
    pub(crate) fn rings(&self) -> &Rings {
        // SAFETY: live until `drop`; libxdp writes to them only when a socket is created.
        unsafe { self.rings.as_ref() }
    }

    pub(crate) fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Closes the socket and gives the chunks that the kernel had for it back to the region.
    pub(crate) fn close(self, lent: Vec<u32>) {
        let umem = Arc::clone(&self.umem);
        let owner = self.owner;
        drop(self);
        if owner {
            umem.lock().owner_lent = lent;
        } else {
            umem.region.reclaim(lent, umem.mode == Mode::ZeroCopy);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _serialised = self.umem.lock();
        // SAFETY: 1. `xsk` came from `xsk_socket__create_shared`, is deleted once, under the lock.
        // 2. The rings, which the callee reads, are freed after it.
        unsafe {
            xsk_socket__delete(self.xsk.as_ptr());
            if !self.owner {
                Rings::free(self.rings);
            }
        }
    }
}

// === impl Rings ===

impl Rings {
    fn boxed() -> NonNull<Self> {
        // SAFETY: integers and raw pointers only, for all of which zero is a value: "no ring".
        let rings: Self = unsafe { std::mem::zeroed() };
        NonNull::from(Box::leak(Box::new(rings)))
    }

    /// # Safety
    /// `rings` came from [`Rings::boxed`] and nothing uses it any more.
    unsafe fn free(rings: NonNull<Self>) {
        // SAFETY: by the caller's promise this is the one owner of a leaked box.
        drop(unsafe { Box::from_raw(rings.as_ptr()) });
    }
}

fn interface_name(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::InterfaceName(name.to_owned()))
}

fn umem_config(region: &Region, options: UmemOptions) -> Result<xsk_umem_config, Error> {
    let frame_size = FrameSize::new(region.chunk_size() as u32).map_err(config_error)?;
    let config = UmemConfig::builder()
        .frame_size(frame_size)
        .fill_queue_size(QueueSize::new(options.fill).map_err(config_error)?)
        .comp_queue_size(QueueSize::new(options.completion).map_err(config_error)?)
        .build()
        .map_err(config_error)?;
    Ok(config.into())
}

fn socket_config(
    options: SocketOptions,
    mode: Mode,
    multi_buffer: bool,
) -> Result<SocketConfig, Error> {
    let mode = match mode {
        Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        Mode::Copy => BindFlags::XDP_COPY,
    };
    let mut bind_flags = mode | BindFlags::XDP_USE_NEED_WAKEUP;
    bind_flags.set(BindFlags::XDP_USE_SG, multi_buffer);
    Ok(SocketConfig::builder()
        .rx_queue_size(QueueSize::new(options.rx).map_err(config_error)?)
        .tx_queue_size(QueueSize::new(options.tx).map_err(config_error)?)
        // The programs are ours, see `program`.
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .xdp_flags(XdpFlags::empty())
        .bind_flags(bind_flags)
        .build())
}

fn config_error(error: impl std::fmt::Display) -> Error {
    Error::Config(error.to_string())
}

fn bind_error(interface: &str, queue: u32, mode: Mode, source: io::Error) -> Error {
    Error::Bind { interface: interface.to_owned(), queue, mode, source }
}

/// Repeats what fails with EBUSY, for up to [`BUSY_FOR`].
fn retry_busy<T>(mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let until = Instant::now() + BUSY_FOR;
    loop {
        match step() {
            Err(Error::Bind { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until =>
            {
                sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}
