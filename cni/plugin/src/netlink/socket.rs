//! Request, acknowledgement, dump.

use std::io;
use std::marker::PhantomData;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A blocking socket whose messages carry `I`.
#[derive(Debug)]
pub(crate) struct NetlinkSocket<I> {
    socket: Socket,
    sequence: u32,
    messages: PhantomData<I>,
}

/// A socket for links, addresses, routes and neighbours.
pub(crate) type RouteSocket = NetlinkSocket<RouteNetlinkMessage>;

// === impl NetlinkSocket ===

impl RouteSocket {
    /// A socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_protocol(NETLINK_ROUTE)
    }
}

impl<I: NetlinkSerializable + NetlinkDeserializable> NetlinkSocket<I> {
    pub(super) fn open_protocol(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, messages: PhantomData })
    }

    /// Sends one request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's errno as it is.
    pub(super) fn request(&mut self, payload: I, flags: u16) -> io::Result<()> {
        self.collect(payload, flags, |_| None::<()>).map(drop)
    }

    /// Sends one request and gathers what `keep` makes of the answers, up to the acknowledgement
    /// or the end of the dump. An answer that does not decode (an attribute newer than the
    /// library) is passed over.
    pub(super) fn collect<T>(
        &mut self,
        payload: I,
        flags: u16,
        mut keep: impl FnMut(I) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.send(payload, flags)?;
        let mut kept = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((message, tail)) = split(rest) {
                rest = tail;
                let Ok(message) = NetlinkMessage::<I>::deserialize(message) else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => kept.extend(keep(answer)),
                    NetlinkPayload::Done(_) => return Ok(kept),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(kept),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, payload: I, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }
}

/// The first message of a datagram and what follows it, at the alignment of NLMSG_ALIGN.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(NetlinkBuffer::new_checked(bytes).ok()?.length()).ok()?;
    let message = bytes.get(..length)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
