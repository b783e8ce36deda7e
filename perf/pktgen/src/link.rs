//! What the kernel knows of an interface, by netlink.

use anyhow::{Context, bail};
use margay_wire::ethernet;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// An interface.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// Its Ethernet address, if it has one.
    pub(crate) mac: Option<[u8; 6]>,
    /// Bytes of the largest packet, the Ethernet header not counted.
    pub(crate) mtu: usize,
    flags: LinkFlags,
}

// === impl Link ===

impl Link {
    /// The interface of that name in the namespace that this thread is in, if there is one.
    pub(crate) fn find(name: &str) -> anyhow::Result<Option<Self>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(request));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.send(&bytes, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                Self::new(&link).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn new(link: &LinkMessage) -> anyhow::Result<Self> {
        let mac = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
            _ => None,
        });
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu as usize),
            _ => None,
        });
        let flags = link.header.flags;
        Ok(Self { index: link.header.index, mac, mtu: mtu.context("it has no MTU")?, flags })
    }

    /// Bytes of the largest frame that its MTU allows.
    pub(crate) fn largest(&self) -> usize {
        self.mtu + ethernet::LEN
    }

    /// Refuses an interface that cannot carry packets now.
    pub(crate) fn must_run(&self, name: &str) -> anyhow::Result<()> {
        if !self.flags.contains(LinkFlags::Up) {
            bail!("{name} is down: ip link set {name} up");
        }
        if !self.flags.contains(LinkFlags::LowerUp) {
            bail!("{name} has no carrier: its other end, or the cable's, is down");
        }
        Ok(())
    }
}
