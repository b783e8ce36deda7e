//! The pod's routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::socket::RouteSocket;

/// A route to everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) gateway: IpAddr,
    /// Index of the interface behind which the gateway is.
    pub(crate) interface: u32,
}

// === impl DefaultRoute ===

impl DefaultRoute {
    fn parse(message: Message) -> Option<Self> {
        let Message::NewRoute(message) = message else { return None };
        let header = &message.header;
        if header.destination_prefix_length != 0 || header.table != RouteHeader::RT_TABLE_MAIN {
            return None;
        }
        let (mut gateway, mut interface) = (None, None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                    gateway = Some(IpAddr::V4(address));
                }
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                    gateway = Some(IpAddr::V6(address));
                }
                RouteAttribute::Oif(index) => interface = Some(index),
                _ => {}
            }
        }
        Some(Self { gateway: gateway?, interface: interface? })
    }
}

// === impl RouteSocket ===

impl RouteSocket {
    /// `<address>/32 dev <interface> scope link`: whom a default route may name as gateway though
    /// no subnet holds it.
    pub(crate) fn add_link_route(&mut self, address: Ipv4Addr, interface: u32) -> io::Result<()> {
        let mut message = unicast(AddressFamily::Inet, RouteScope::Link, 32);
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(address)),
            RouteAttribute::Oif(interface),
        ];
        self.request(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// `default via <gateway> dev <interface>`.
    ///
    /// # Errors
    /// EEXIST when the namespace has a default route of this family already.
    pub(crate) fn add_default_route(&mut self, route: DefaultRoute) -> io::Result<()> {
        let (family, gateway) = match route.gateway {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address)),
        };
        let mut message = unicast(family, RouteScope::Universe, 0);
        message.attributes =
            vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(route.interface)];
        self.request(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The default routes of both families in the main table.
    pub(crate) fn default_routes(&mut self) -> io::Result<Vec<DefaultRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            routes.extend(self.collect(
                Message::GetRoute(message),
                NLM_F_DUMP,
                DefaultRoute::parse,
            )?);
        }
        Ok(routes)
    }
}

fn unicast(family: AddressFamily, scope: RouteScope, length: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message
}
