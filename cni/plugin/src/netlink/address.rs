//! Addresses of an interface.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};

use super::socket::RouteSocket;

// === impl RouteSocket ===

impl RouteSocket {
    /// Adds `address` with the whole length of its family (/32, /128), without duplicate address
    /// detection: nobody but us assigns addresses on a link of two.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.flags = AddressHeaderFlags::Nodad;
        (message.header.family, message.header.prefix_len) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The addresses of the interface.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let dump = Message::GetAddress(AddressMessage::default());
        self.collect(dump, NLM_F_DUMP, |answer| match answer {
            Message::NewAddress(message) if message.header.index == index => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(address),
                    _ => None,
                })
            }
            _ => None,
        })
    }
}
