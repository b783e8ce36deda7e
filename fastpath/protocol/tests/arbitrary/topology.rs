//! Nodes, pools, routes, services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::node::{EndpointToHost, LogLimit, ServiceLoops, Timeouts, TunnelAddress};
use margay_model::{
    Backend, DnsServer, DnsSettings, Encap, Failsafe, LocalNode, Pool, RemoteNode, Route,
    RouteTarget, Selection, Service, Settings, TrafficPolicy,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{mac, name, net, port_range};

fn encap() -> impl Strategy<Value = Encap> {
    prop_oneof![Just(Encap::None), Just(Encap::Ipip), Just(Encap::Vxlan)]
}

pub(crate) fn local_node() -> impl Strategy<Value = LocalNode> {
    let tunnel =
        (encap(), any::<IpAddr>()).prop_map(|(encap, address)| TunnelAddress { encap, address });
    (
        name(),
        option::of((any::<Ipv4Addr>(), 0..=32u8)),
        option::of((any::<Ipv6Addr>(), 0..=128u8)),
        vec(tunnel, 0..3),
        mac(),
        settings(),
    )
        .prop_map(|(name, v4, v6, tunnel_addresses, vtep_mac, settings)| LocalNode {
            name,
            v4,
            v6,
            tunnel_addresses,
            vtep_mac,
            settings,
        })
}

fn settings() -> impl Strategy<Value = Settings> {
    let to_host = prop_oneof![Just(EndpointToHost::Accept), Just(EndpointToHost::Drop)];
    let loops = prop_oneof![
        Just(ServiceLoops::Drop),
        Just(ServiceLoops::Reject),
        Just(ServiceLoops::Route)
    ];
    (
        (any::<u16>(), 0..1u32 << 24, port_range(), to_host),
        (vec(net(), 0..3), vec(net(), 0..3), vec(net(), 0..3)),
        (any::<[bool; 8]>(), loops),
        (any::<u32>(), timeouts(), vec(failsafe(), 0..3), vec(failsafe(), 0..3), dns()),
        ("[a-z%]{1,9}".prop_map(Into::into), option::of((1..9u32, 1..9u32)), 1..9u32),
    )
        .prop_map(|(vxlan, nets, (flags, service_loops), rest, log)| {
            let [cut, tcp_strict, clamp_mss, direct_return, allow_vxlan, allow_ipip, keep, all] =
                flags;
            let (log_prefix, limit, log_burst) = log;
            let log_limit = limit.map(|(packets, per_ms)| LogLimit { packets, per_ms });
            let (vxlan_port, vxlan_vni, ports, endpoint_to_host) = vxlan;
            let (service_ranges, node_port_addresses, direct_return_except) = nets;
            let (errors, timeouts, failsafe_inbound, failsafe_outbound, dns) = rest;
            Settings {
                vxlan_port,
                vxlan_vni,
                snat_ports: (ports.first, ports.last),
                endpoint_to_host,
                masquerade_all: all,
                keep_source_ports: keep,
                service_ranges,
                service_loops,
                node_port_addresses,
                direct_return,
                direct_return_except,
                cut_flows_on_policy_change: cut,
                tcp_strict,
                clamp_mss,
                allow_vxlan_from_workloads: allow_vxlan,
                allow_ipip_from_workloads: allow_ipip,
                icmp_errors_per_second: errors,
                failsafe_inbound,
                failsafe_outbound,
                timeouts,
                dns,
                log_prefix,
                log_limit,
                log_burst,
            }
        })
}

fn failsafe() -> impl Strategy<Value = Failsafe> {
    (any::<u8>(), any::<u16>(), option::of(net())).prop_map(|(protocol, port, net)| Failsafe {
        protocol,
        port,
        net,
    })
}

fn dns() -> impl Strategy<Value = DnsSettings> {
    let server = prop_oneof![
        any::<(IpAddr, u16)>().prop_map(|(addr, port)| DnsServer::Address { addr, port }),
        (name(), name(), any::<u16>()).prop_map(|(namespace, name, port)| DnsServer::Service {
            namespace,
            name,
            port
        }),
    ];
    (vec(server, 0..3), any::<[u32; 3]>()).prop_map(|(trusted, [extra_ttl, max_hold, epoch])| {
        DnsSettings { trusted, extra_ttl, max_hold, epoch }
    })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    any::<[u32; 8]>().prop_map(|[a, b, c, d, e, f, g, h]| Timeouts {
        tcp_syn_sent: a,
        tcp_established: b,
        tcp_fins_seen: c,
        tcp_reset_seen: d,
        udp: e,
        icmp: f,
        generic: g,
        denied: h,
    })
}

pub(crate) fn remote_node() -> impl Strategy<Value = RemoteNode> {
    (name(), any::<Option<Ipv4Addr>>(), any::<Option<Ipv6Addr>>(), mac())
        .prop_map(|(name, v4, v6, vtep_mac)| RemoteNode { name, v4, v6, vtep_mac })
}

pub(crate) fn pool() -> impl Strategy<Value = Pool> {
    (net(), any::<bool>(), encap(), any::<bool>()).prop_map(
        |(cidr, nat_outgoing, encap, encap_always)| Pool {
            cidr,
            nat_outgoing,
            encap,
            encap_always,
        },
    )
}

pub(crate) fn route() -> impl Strategy<Value = Route> {
    let node = (name(), encap()).prop_map(|(node, encap)| RouteTarget::Node { node, encap });
    (net(), prop_oneof![node, Just(RouteTarget::LocalBlock)])
        .prop_map(|(dst, target)| Route { dst, target })
}

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let policy = || prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    let selection = prop_oneof![Just(Selection::Even), Just(Selection::Maglev)];
    let addresses = || vec(any::<IpAddr>(), 0..3);
    let backends =
        || vec(any::<(IpAddr, u16)>().prop_map(|(addr, port)| Backend { addr, port }), 0..3);
    (
        (name(), any::<u8>(), any::<u16>(), any::<Option<u16>>()),
        (addresses(), addresses(), addresses(), vec(net(), 0..3)),
        (policy(), policy(), any::<Option<u32>>(), selection),
        (backends(), backends(), backends()),
    )
        .prop_map(|(what, addresses, how, backends)| {
            let (key, protocol, port, node_port) = what;
            let (cluster_ips, external_ips, load_balancer_ips, load_balancer_sources) = addresses;
            let (internal, external, affinity, selection) = how;
            let (cluster_backends, local_backends, kept_backends) = backends;
            Service {
                key,
                protocol,
                port,
                cluster_ips,
                external_ips,
                load_balancer_ips,
                load_balancer_sources,
                node_port,
                internal,
                external,
                affinity,
                selection,
                cluster_backends,
                local_backends,
                kept_backends,
            }
        })
}
