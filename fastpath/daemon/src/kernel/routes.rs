//! Margay's addresses and routes on the trunk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressScope};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::hostport::{Change, HostRoute};
use super::{Result, decode, errno, own_protocol, refused};

/// The kernel's main table.
pub(super) const MAIN_TABLE: u32 = 254;
/// Metric that IPv6 gives a route without one.
const V6_METRIC: u32 = 1024;
/// `EEXIST`, `ESRCH`, `EADDRNOTAVAIL`: done already.
const EXISTS: i32 = 17;
const NO_SUCH: i32 = 3;
const NOT_AVAILABLE: i32 = 99;

/// Makes `wanted` the only addresses on the link, each alone in its network and without a route of
/// its own.
pub(super) async fn ensure_addresses(
    handle: &Handle,
    index: u32,
    wanted: &BTreeSet<IpAddr>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let found = handle.address().get().set_link_index_filter(index).execute();
    let found: Vec<_> = found.try_collect().await.map_err(refused("list", "addresses"))?;
    let mut there = BTreeSet::new();
    for message in found {
        let Some((_, net)) = decode::address(&message) else { continue };
        if wanted.contains(&net.addr()) && net.prefix_len() == net.max_prefix_len() {
            there.insert(net.addr());
        } else {
            let done = handle.address().del(message).execute().await;
            done.or_else(|e| forgive(e, NOT_AVAILABLE)).map_err(refused("remove address", net))?;
            changes.push(Change::AddressRemoved(net.addr()));
        }
    }
    for addr in wanted.difference(&there) {
        let length = IpNet::from(*addr).max_prefix_len();
        let mut request = handle.address().add(index, *addr, length);
        // The address is alone on its link: nobody to ask whether it is in use.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        if matches!(addr, IpAddr::V4(v4) if v4.is_link_local()) {
            request.message_mut().header.scope = AddressScope::Link;
        }
        let done = request.execute().await;
        done.or_else(|e| forgive(e, EXISTS)).map_err(refused("add address", addr))?;
        changes.push(Change::AddressAdded(*addr));
    }
    Ok(())
}

/// Makes `wanted` Margay's only routes in a table: they lead to the link, replacing what stands at
/// the same destination and metric. One that is refused keeps no other from being made.
pub(super) async fn ensure_routes(
    handle: &Handle,
    index: u32,
    table: u32,
    wanted: &[HostRoute],
    changes: &mut Vec<Change>,
) -> Result<()> {
    let wanted: BTreeMap<IpNet, &HostRoute> =
        wanted.iter().map(|route| (route.dst.trunc(), route)).collect();
    let mut right = BTreeSet::new();
    for (message, route) in own_routes(handle, table).await? {
        let on_link = message.attributes.contains(&RouteAttribute::Oif(index));
        match wanted.get(&route.dst) {
            Some(wish) if on_link && **wish == route => {
                right.insert(route.dst);
            }
            // Replaced below; the kernel takes the old one away in the same step.
            Some(_) if route.dst.addr().is_ipv4() && on_link => {}
            _ => {
                delete(handle, message, route.dst).await?;
                changes.push(Change::RouteRemoved(route.dst));
            }
        }
    }
    let mut refusal = Ok(());
    for (dst, route) in wanted.iter().filter(|(dst, _)| !right.contains(*dst)) {
        let message = message(index, table, route);
        let done = handle.route().add(message).replace().execute().await;
        match done.map_err(refused("add route", dst)) {
            Ok(()) => changes.push(Change::RouteAdded(*dst)),
            Err(error) => refusal = refusal.and(Err(error)),
        }
    }
    refusal
}

/// Margay's routes in a table, each as the kernel tells it and as it would have been asked for.
async fn own_routes(handle: &Handle, table: u32) -> Result<Vec<(RouteMessage, HostRoute)>> {
    let mut out = Vec::new();
    let questions = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    for question in questions {
        let found = handle.route().get(question).execute();
        let found: Vec<_> = found.try_collect().await.map_err(refused("list", "routes"))?;
        let own = found.into_iter().filter(|m| m.header.protocol == own_protocol());
        out.extend(own.filter(|m| decode::table(m) == table).filter_map(|message| {
            let route = as_wanted(&message)?;
            Some((message, route))
        }));
    }
    Ok(out)
}

fn as_wanted(message: &RouteMessage) -> Option<HostRoute> {
    let mut route = HostRoute { dst: decode::destination(message)?, source: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::PrefSource(addr) => {
                route.source = match addr {
                    netlink_packet_route::route::RouteAddress::Inet(a) => Some((*a).into()),
                    netlink_packet_route::route::RouteAddress::Inet6(a) => Some((*a).into()),
                    _ => None,
                };
            }
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(route)
}

fn message(index: u32, table: u32, route: &HostRoute) -> RouteMessage {
    let dst = route.dst.trunc();
    let mut message = match dst {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .priority(V6_METRIC)
            .build(),
    };
    message.header.protocol = own_protocol();
    message.header.kind = RouteType::Unicast;
    message.header.scope =
        if dst.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.table = 0;
    message.attributes.push(RouteAttribute::Table(table));
    message.attributes.push(RouteAttribute::Oif(index));
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}

async fn delete(handle: &Handle, message: RouteMessage, dst: IpNet) -> Result<()> {
    let done = handle.route().del(message).execute().await;
    done.or_else(|e| forgive(e, NO_SUCH)).map_err(refused("remove route", dst))
}

/// An error that says that the work was done before is none.
fn forgive(error: rtnetlink::Error, expected: i32) -> std::result::Result<(), rtnetlink::Error> {
    if errno(&error) == Some(expected) { Ok(()) } else { Err(error) }
}
