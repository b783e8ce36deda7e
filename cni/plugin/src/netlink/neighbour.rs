//! Permanent neighbours.

use std::io;
use std::net::IpAddr;

use margay_model::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::socket::RouteSocket;

// === impl RouteSocket ===

impl RouteSocket {
    /// `<address> dev <interface> lladdr <mac> nud permanent`.
    pub(crate) fn add_neighbour(
        &mut self,
        interface: u32,
        address: IpAddr,
        mac: Mac,
    ) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = interface;
        message.header.state = NeighbourState::Permanent;
        let (family, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.attributes = vec![
            NeighbourAttribute::Destination(destination),
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        ];
        self.request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }
}
