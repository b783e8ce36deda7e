//! Numbers for interfaces, and the kernel's view in the engine's words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use margay_engine::Counters;
use margay_engine::snapshot::{DeviceId, KernelRoute, NextHop, PortId, PortInfo, Underlay};

use crate::kernel::{KernelView, Route, RouteKind};

/// Frames and bytes, received and sent.
pub(crate) type Traffic = [(u64, u64); 2];

/// Which number each interface has. An interface that comes back finds its own, with its counts;
/// only when numbers run out do those of interfaces that are gone go to others.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    numbers: BTreeMap<Arc<str>, PortId>,
    /// Numbers that had a name once, and what they had counted when they lost it.
    given_back: BTreeMap<PortId, Traffic>,
}

/// An interface whose frames come to the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Its name.
    pub name: Arc<str>,
    /// What its frames are sent through.
    pub device: DeviceId,
    /// Whether it is an uplink.
    pub uplink: bool,
}

// === impl Ports ===

impl Ports {
    /// The number of an interface.
    pub(crate) fn number(&mut self, name: &Arc<str>) -> PortId {
        if let Some(id) = self.numbers.get(name) {
            return *id;
        }
        // 0 is the host port.
        let fresh = (1..u16::MAX).map(PortId).nth(self.numbers.len());
        let again = || {
            let used: BTreeSet<_> = self.numbers.values().collect();
            self.given_back.keys().copied().find(|id| !used.contains(id))
        };
        let next = again().or(fresh).unwrap_or(PortId(u16::MAX));
        self.numbers.insert(name.clone(), next);
        next
    }

    /// Takes the numbers of all interfaces that are not attached, if there are not many left.
    pub(crate) fn make_room(&mut self, attached: &[Attached], count: impl Fn(PortId) -> Traffic) {
        if self.numbers.len() + 2 < Counters::PORTS {
            return;
        }
        let here: BTreeSet<_> = attached.iter().map(|port| &port.name).collect();
        let gone = self.numbers.extract_if(.., |name, _| !here.contains(name));
        self.given_back.extend(gone.map(|(_, id)| (id, count(id))));
    }

    /// What numbers had counted for interfaces that are gone; it counts for no later one.
    pub(crate) fn given_back(&self) -> &BTreeMap<PortId, Traffic> {
        &self.given_back
    }

    /// All names and numbers, the host port's first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, PortId)> {
        let rest = self.numbers.iter().map(|(name, id)| (&**name, *id));
        std::iter::once((TRUNK, PortId::HOST)).chain(rest)
    }

    /// What the kernel says about these interfaces, for the engine.
    pub(crate) fn underlay(
        &mut self,
        view: &KernelView,
        attached: &[Attached],
        trunk_mtu: u16,
    ) -> Underlay {
        let ports: Vec<_> =
            attached.iter().filter_map(|port| self.port(view, port, trunk_mtu)).collect();
        let by_index: BTreeMap<u32, PortId> =
            ports.iter().filter(|p| p.uplink).map(|p| (p.ifindex, p.id)).collect();
        let neighbours = (view.neighbours.keys())
            .filter_map(|(index, addr)| {
                let port = by_index.get(index)?;
                Some(((*port, *addr), view.mac(*index, *addr)?))
            })
            .collect();
        Underlay {
            routes: routes(view, &by_index),
            addresses: addresses(view),
            broadcasts: broadcasts(view),
            neighbours,
            ports,
            trunk_mtu,
            path_mtus: BTreeMap::new(),
        }
    }

    fn port(&mut self, view: &KernelView, attached: &Attached, largest: u16) -> Option<PortInfo> {
        let link = view.link(&attached.name)?;
        Some(PortInfo {
            id: self.number(&attached.name),
            name: attached.name.clone(),
            ifindex: link.index,
            mac: link.mac,
            // Sockets were made for no more.
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX).min(largest),
            device: attached.device,
            uplink: attached.uplink,
            addresses: addresses_of(view, link.index),
        })
    }
}

/// The kernel end of the trunk: the host port's name.
pub(crate) const TRUNK: &str = "margay0";

/// Addresses that packets may be for. Pods ask the node itself at link-local addresses of IPv4 too, as
/// those of a name server's cache on each node; those of IPv6 are every link's own.
fn addresses(view: &KernelView) -> Vec<IpAddr> {
    let all = view.addresses.iter().map(|(_, net)| net.addr());
    all.filter(|addr| match addr {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    })
    .collect()
}

/// All addresses of an interface.
pub(crate) fn addresses_of(view: &KernelView, index: u32) -> Vec<IpAddr> {
    let own = view.addresses.iter().filter(|(of, _)| *of == index);
    own.map(|(_, net)| net.addr()).collect()
}

/// What the node answers to besides its addresses, on any of its networks (RFC 1122 §3.3.6, RFC 4291
/// §2.6.1).
fn broadcasts(view: &KernelView) -> Vec<IpAddr> {
    let ends = |net: &IpNet| match net {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            vec![net.broadcast().into(), net.network().into()]
        }
        IpNet::V6(net) if net.prefix_len() < 127 => vec![net.network().into()],
        _ => Vec::new(),
    };
    view.addresses.iter().flat_map(|(_, net)| ends(net)).collect()
}

/// Routes that leave by uplinks, and those that refuse, in the order in which the kernel tries them.
fn routes(view: &KernelView, ports: &BTreeMap<u32, PortId>) -> Vec<KernelRoute> {
    let of_ports = |route: &Route| {
        let hop = |hop: &crate::kernel::NextHop| {
            Some(NextHop { port: *ports.get(&hop.index)?, gateway: hop.gateway })
        };
        let hops: Vec<_> = route.next_hops.iter().filter_map(hop).collect();
        let counts = match route.kind {
            RouteKind::Unicast => !hops.is_empty(),
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => true,
            RouteKind::Throw => false,
        };
        counts.then_some(KernelRoute { dst: route.dst, hops })
    };
    view.routes.iter().filter_map(of_ports).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(name: &str) -> Attached {
        Attached { name: name.into(), device: DeviceId::TRUNK, uplink: false }
    }

    #[test]
    fn an_interface_keeps_its_number_until_there_are_none_left() {
        let mut ports = Ports::default();
        let first = ports.number(&"first".into());
        assert_eq!(first, PortId(1));
        ports.make_room(&[], |_| [(0, 0); 2]);
        assert_eq!(ports.number(&"first".into()), first);

        for nth in 2..Counters::PORTS - 1 {
            ports.number(&format!("p{nth}").into());
        }
        ports.make_room(&[attached("first")], |id| [(u64::from(id.0), 0); 2]);
        assert_eq!(ports.number(&"first".into()), first);
        let again = ports.number(&"new".into());
        assert_eq!(again, PortId(2), "a number that was given back");
        assert_eq!(ports.given_back()[&again], [(2, 0); 2]);
        assert_ne!(ports.number(&"newer".into()), again);
    }

    #[test]
    fn routes_by_uplinks_and_those_that_refuse_keep_the_kernels_order() {
        let hop = |index: &u32| crate::kernel::NextHop { index: *index, gateway: None, weight: 1 };
        let route = |metric, kind, links: &[u32]| Route {
            rank: 0,
            dst: "0.0.0.0/0".parse().unwrap(),
            metric,
            kind,
            next_hops: links.iter().map(hop).collect(),
            source: None,
            mtu: None,
        };
        let view = KernelView {
            routes: Arc::new(vec![
                route(1, RouteKind::Unicast, &[7]),
                route(2, RouteKind::Throw, &[]),
                route(3, RouteKind::Unicast, &[7, 2]),
                route(4, RouteKind::Prohibit, &[]),
            ]),
            ..KernelView::default()
        };
        let routes = routes(&view, &[(2, PortId(1))].into());
        let hops: Vec<_> = routes.iter().map(|route| route.hops.len()).collect();
        assert_eq!(hops, [1, 0]);
    }
}
