//! The pod's end: what is set while it is down, and what once it is up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use margay_cni_api::CniError;
use margay_model::Mac;

use super::{HOST_MAC, Pair, failed};
use crate::netlink::{DefaultRoute, Feature, RouteSocket, set_features};
use crate::netns::Netns;
use crate::sysctl;

/// The gateway of every pod's IPv4, as Calico's.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The gateway of every pod's IPv6: the link-local address that modified EUI-64 (RFC 4291,
/// appendix A) makes of the host end's Ethernet address.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// linkwatch lets an event rest for a second; half of one on top for a busy machine.
const LONGEST_SETTLING: Duration = Duration::from_millis(1500);

/// What CHECK finds in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    pub(crate) mac: Option<Mac>,
    pub(crate) up: bool,
    pub(crate) addresses: Vec<IpAddr>,
    /// Gateways of the default routes by this interface.
    pub(crate) gateways: Vec<IpAddr>,
}

/// The gateways that a pod with `addresses` has, one a family.
pub(crate) fn gateways(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let v4 = addresses.iter().any(IpAddr::is_ipv4).then_some(IpAddr::V4(GATEWAY_V4));
    let v6 = addresses.iter().any(IpAddr::is_ipv6).then_some(IpAddr::V6(GATEWAY_V6));
    v4.into_iter().chain(v6).collect()
}

/// Gives the pod's end everything that it can have while it is down.
pub(crate) fn configure(
    netns: &Netns,
    pair: &Pair,
    addresses: &[IpAddr],
    tx_checksum_offload: bool,
    allow_ip_forwarding: bool,
) -> Result<(), CniError> {
    let work = || -> io::Result<()> {
        set_sysctls(&pair.pod_name, addresses, allow_ip_forwarding)?;
        let mut socket = RouteSocket::open()?;
        for address in addresses {
            socket.add_address(pair.pod_index, *address)?;
        }
        // With GRO a veth's end receives by NAPI, in the context of whoever transmits to it;
        // without, every frame goes through the backlog queue of one CPU.
        let features = [(Feature::Gro, true), (Feature::TxChecksum, tx_checksum_offload)];
        set_features(pair.pod_index, &features)
    };
    netns.enter(work).and_then(|done| done).map_err(failed("configuring the pod's end"))
}

/// Brings the pod's end up and gives it its routes. Routes have to come after: the kernel refuses
/// one by an interface that is down.
pub(crate) fn open(netns: &Netns, pair: &Pair, addresses: &[IpAddr]) -> Result<(), CniError> {
    let interface = pair.pod_index;
    let work = || -> io::Result<()> {
        let mut socket = RouteSocket::open()?;
        socket.set_up(interface)?;
        settle(&mut socket, &pair.pod_name)?;
        for gateway in gateways(addresses) {
            if let IpAddr::V4(address) = gateway {
                socket.add_link_route(address, interface)?;
            }
            // The pod never has to ask for its gateway's Ethernet address, so a flood of other
            // questions cannot crowd this one out.
            socket.add_neighbour(interface, gateway, HOST_MAC)?;
            socket.add_default_route(DefaultRoute { gateway, interface })?;
        }
        Ok(())
    };
    netns.enter(work).and_then(|done| done).map_err(failed("giving the pod its routes"))
}

/// Waits until the kernel has taken notice of the carrier: before, IPv6 has no link-local address
/// and the interface shows as down. Asking for the link makes newer kernels (6.9) look at once;
/// older ones do so by themselves, within a second at worst.
fn settle(socket: &mut RouteSocket, name: &str) -> io::Result<()> {
    let deadline = Instant::now() + LONGEST_SETTLING;
    while !socket.link(name)?.is_some_and(|link| link.running) {
        if Instant::now() > deadline {
            tracing::warn!(interface = name, "up, but without a carrier");
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Looks at the interface called `name`; none when there is none.
pub(crate) fn inspect(netns: &Netns, name: &str) -> Result<Option<Inspection>, CniError> {
    let work = || -> io::Result<Option<Inspection>> {
        let mut socket = RouteSocket::open()?;
        let Some(link) = socket.link(name)? else { return Ok(None) };
        let routes = socket.default_routes()?;
        Ok(Some(Inspection {
            mac: link.mac,
            up: link.up,
            addresses: socket.addresses(link.index)?,
            gateways: routes
                .iter()
                .filter(|route| route.interface == link.index)
                .map(|route| route.gateway)
                .collect(),
        }))
    };
    netns.enter(work).and_then(|done| done).map_err(failed("looking at the pod's end"))
}

/// A container forwards only where the configuration lets it; IPv6 is switched on where the pod
/// has an address of it (runtimes start namespaces with it off), and its addresses are usable at
/// once.
fn set_sysctls(name: &str, addresses: &[IpAddr], allow_ip_forwarding: bool) -> io::Result<()> {
    let forwarding = if allow_ip_forwarding { "1" } else { "0" };
    if addresses.iter().any(IpAddr::is_ipv4) {
        sysctl::set("ipv4/ip_forward", forwarding)?;
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        sysctl::set("ipv6/conf/all/disable_ipv6", "0")?;
        sysctl::set("ipv6/conf/default/disable_ipv6", "0")?;
        sysctl::set("ipv6/conf/lo/disable_ipv6", "0")?;
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        sysctl::set(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        sysctl::set("ipv6/conf/all/forwarding", forwarding)?;
    }
    Ok(())
}
