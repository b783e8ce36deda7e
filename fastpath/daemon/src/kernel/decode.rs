//! Netlink messages to parts of the [view](super::view). What cannot be understood is `None`: a
//! kernel newer than this code must not stop it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use margay_model::node::Mac;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::own_protocol;
use super::view::{Link, NeighbourState, NextHop, Route, RouteKind};

/// Length of an Ethernet address.
const MAC_LEN: usize = 6;

/// A link. Messages of other families (bridge ports, IPv6 counters) tell of a link's side only.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let alive = LinkFlags::Up | LinkFlags::LowerUp;
    let mut link = Link {
        index: message.header.index,
        name: "".into(),
        mac: Mac::default(),
        mtu: 0,
        up: message.header.flags.contains(alive),
        rx_queues: 1,
        tx_queues: 1,
        peer: None,
        veth: false,
        xdp: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.as_str().into(),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumRxQueues(count) => link.rx_queues = *count,
            LinkAttribute::NumTxQueues(count) => link.tx_queues = *count,
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Xdp(facts) => {
                let none = LinkXdp::Attached(XdpAttached::None);
                link.xdp = !facts.is_empty() && !facts.contains(&none);
            }
            _ => {}
        }
    }
    let elsewhere = |a: &LinkAttribute| matches!(a, LinkAttribute::LinkNetNsId(_));
    if message.attributes.iter().any(elsewhere) {
        link.peer = None;
    }
    (!link.name.is_empty()).then_some(link)
}

/// An address with its link's index.
pub(super) fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // Of a point-to-point link the local one is the node's.
            AddressAttribute::Local(addr) => found = Some(*addr),
            AddressAttribute::Address(addr) => found = found.or(Some(*addr)),
            _ => {}
        }
    }
    let net = IpNet::new(found?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

/// A neighbour.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), NeighbourState)> {
    let mut addr = None;
    let mut lladdr = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some((*a).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addr = Some((*a).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
            _ => {}
        }
    }
    let state = match message.header.state {
        Nud::Reachable | Nud::Stale | Nud::Delay | Nud::Probe => {
            lladdr.map_or(NeighbourState::Asking, NeighbourState::Known)
        }
        Nud::Noarp | Nud::Permanent => NeighbourState::Fixed(lladdr.unwrap_or_default()),
        Nud::Failed => NeighbourState::Failed,
        _ => NeighbourState::Asking,
    };
    Some(((message.header.ifindex, addr?), state))
}

/// The table of a route.
pub(super) fn table(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or(message.header.table.into())
}

/// A route of somebody else's, with the rank that its table has.
pub(super) fn route(message: &RouteMessage, rank: u32) -> Option<Route> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) || header.protocol == own_protocol() {
        return None;
    }
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    let mut route = Route {
        rank,
        dst: destination(message)?,
        metric: 0,
        kind,
        next_hops: Vec::new(),
        source: None,
        mtu: None,
    };
    let flags = RouteNextHopFlags::from_bits_retain(header.flags.bits() as u8);
    route.next_hops.extend(next_hop(None, flags, 1, &message.attributes));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(addr) => route.source = ip(addr),
            RouteAttribute::MultiPath(ways) => route.next_hops.extend(ways.iter().filter_map(way)),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let leads_on = kind == RouteKind::Unicast;
    if !leads_on {
        route.next_hops.clear();
    }
    // A route whose every way is dead is none.
    (!leads_on || !route.next_hops.is_empty()).then_some(route)
}

/// Destination of a route; a default route has no attribute for it.
pub(super) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(addr) => Some(ip(addr)),
        _ => None,
    });
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    };
    let addr = addr.unwrap_or(unspecified)?;
    IpNet::new(addr, message.header.destination_prefix_length).ok()
}

/// The table that a rule without any condition leads to, with the rule's priority.
pub(super) fn unconditional_table(message: &RuleMessage) -> Option<(u32, u32)> {
    let header = &message.header;
    if header.action != RuleAction::ToTable || header.dst_len != 0 || header.src_len != 0 {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut priority = 0;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(long) => table = *long,
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Protocol(_) => {}
            // The kernel states these two of every rule; only these values mean no condition.
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => return None,
        }
    }
    (header.tos == 0).then_some((priority, table))
}

fn way(message: &RouteNextHop) -> Option<NextHop> {
    let weight = u16::from(message.hops) + 1;
    next_hop(Some(message.interface_index), message.flags, weight, &message.attributes)
}

fn next_hop(
    index: Option<u32>,
    flags: RouteNextHopFlags,
    weight: u16,
    attributes: &[RouteAttribute],
) -> Option<NextHop> {
    if flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown) {
        return None;
    }
    let mut hop = NextHop { index: index.unwrap_or(0), gateway: None, weight };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(oif) => hop.index = *oif,
            RouteAttribute::Gateway(addr) => hop.gateway = ip(addr),
            // An IPv4 route through an IPv6 neighbour (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(addr)) => hop.gateway = Some((*addr).into()),
            RouteAttribute::Via(RouteVia::Inet(addr)) => hop.gateway = Some((*addr).into()),
            _ => {}
        }
    }
    (hop.index != 0).then_some(hop)
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; MAC_LEN]>::try_from(bytes).ok().map(Mac)
}
