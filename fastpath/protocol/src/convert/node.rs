//! The node, its peers, the pools and the settings.

use margay_model::node::{EndpointToHost, LogLimit, ServiceLoops, Timeouts, TunnelAddress};
use margay_model::{DnsSettings, Encap, LocalNode, Pool, PortRange, RemoteNode, Settings};

use super::net::{from_subnet, subnet_v4, subnet_v6};
use crate::bytes::{address, each, from_address, mac, messages, needed, small, v4, v6};
use crate::error::{At, FieldError, Problem};
use crate::proto;

/// VXLAN network identifiers have 24 bits (RFC 7348, section 5).
const MAX_VNI: u32 = (1 << 24) - 1;

impl From<Encap> for proto::Encap {
    fn from(encap: Encap) -> Self {
        match encap {
            Encap::None => Self::None,
            Encap::Ipip => Self::Ipip,
            Encap::Vxlan => Self::Vxlan,
        }
    }
}

pub(super) fn encap(value: i32) -> Result<Encap, Problem> {
    match proto::Encap::try_from(value) {
        Ok(proto::Encap::None) => Ok(Encap::None),
        Ok(proto::Encap::Ipip) => Ok(Encap::Ipip),
        Ok(proto::Encap::Vxlan) => Ok(Encap::Vxlan),
        Ok(proto::Encap::Unspecified) | Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<&LocalNode> for proto::LocalNode {
    fn from(node: &LocalNode) -> Self {
        Self {
            name: node.name.to_string(),
            v4: node.v4.map(from_subnet),
            v6: node.v6.map(from_subnet),
            tunnel_addresses: messages(&node.tunnel_addresses),
            vtep_mac: node.vtep_mac.0.to_vec(),
            settings: Some((&node.settings).into()),
        }
    }
}

impl TryFrom<proto::LocalNode> for LocalNode {
    type Error = FieldError;

    fn try_from(node: proto::LocalNode) -> Result<Self, FieldError> {
        Ok(Self {
            name: node.name.into(),
            v4: node.v4.map(subnet_v4).transpose().at("v4")?,
            v6: node.v6.map(subnet_v6).transpose().at("v6")?,
            tunnel_addresses: each(node.tunnel_addresses, "tunnel_addresses")?,
            vtep_mac: mac(&node.vtep_mac).at("vtep_mac")?,
            settings: needed(node.settings, "settings")?.try_into().at("settings")?,
        })
    }
}

impl From<&TunnelAddress> for proto::TunnelAddress {
    fn from(tunnel: &TunnelAddress) -> Self {
        Self {
            encap: proto::Encap::from(tunnel.encap).into(),
            address: from_address(tunnel.address),
        }
    }
}

impl TryFrom<proto::TunnelAddress> for TunnelAddress {
    type Error = FieldError;

    fn try_from(tunnel: proto::TunnelAddress) -> Result<Self, FieldError> {
        Ok(Self {
            encap: encap(tunnel.encap).at("encap")?,
            address: address(&tunnel.address).at("address")?,
        })
    }
}

impl From<&RemoteNode> for proto::RemoteNode {
    fn from(node: &RemoteNode) -> Self {
        Self {
            name: node.name.to_string(),
            v4: node.v4.map(|a| a.octets().to_vec()),
            v6: node.v6.map(|a| a.octets().to_vec()),
            vtep_mac: node.vtep_mac.0.to_vec(),
        }
    }
}

impl TryFrom<proto::RemoteNode> for RemoteNode {
    type Error = FieldError;

    fn try_from(node: proto::RemoteNode) -> Result<Self, FieldError> {
        Ok(Self {
            name: node.name.into(),
            v4: node.v4.as_deref().map(v4).transpose().at("v4")?,
            v6: node.v6.as_deref().map(v6).transpose().at("v6")?,
            vtep_mac: mac(&node.vtep_mac).at("vtep_mac")?,
        })
    }
}

impl From<&Pool> for proto::Pool {
    fn from(pool: &Pool) -> Self {
        Self {
            cidr: Some((&pool.cidr).into()),
            nat_outgoing: pool.nat_outgoing,
            encap: proto::Encap::from(pool.encap).into(),
            encap_always: pool.encap_always,
        }
    }
}

impl TryFrom<proto::Pool> for Pool {
    type Error = FieldError;

    fn try_from(pool: proto::Pool) -> Result<Self, FieldError> {
        Ok(Self {
            cidr: needed(pool.cidr, "cidr")?.try_into().at("cidr")?,
            nat_outgoing: pool.nat_outgoing,
            encap: encap(pool.encap).at("encap")?,
            encap_always: pool.encap_always,
        })
    }
}

impl From<EndpointToHost> for proto::EndpointToHost {
    fn from(action: EndpointToHost) -> Self {
        match action {
            EndpointToHost::Accept => Self::Accept,
            EndpointToHost::Drop => Self::Drop,
        }
    }
}

fn endpoint_to_host(value: i32) -> Result<EndpointToHost, Problem> {
    match proto::EndpointToHost::try_from(value) {
        Ok(proto::EndpointToHost::Accept) => Ok(EndpointToHost::Accept),
        Ok(proto::EndpointToHost::Drop) => Ok(EndpointToHost::Drop),
        Ok(proto::EndpointToHost::Unspecified) | Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<ServiceLoops> for proto::ServiceLoops {
    fn from(loops: ServiceLoops) -> Self {
        match loops {
            ServiceLoops::Drop => Self::Drop,
            ServiceLoops::Reject => Self::Reject,
            ServiceLoops::Route => Self::Route,
        }
    }
}

fn service_loops(value: i32) -> Result<ServiceLoops, Problem> {
    match proto::ServiceLoops::try_from(value) {
        Ok(proto::ServiceLoops::Unspecified | proto::ServiceLoops::Drop) => Ok(ServiceLoops::Drop),
        Ok(proto::ServiceLoops::Reject) => Ok(ServiceLoops::Reject),
        Ok(proto::ServiceLoops::Route) => Ok(ServiceLoops::Route),
        Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<&Settings> for proto::Settings {
    fn from(settings: &Settings) -> Self {
        let (first, last) = settings.snat_ports;
        Self {
            vxlan_port: settings.vxlan_port.into(),
            vxlan_vni: settings.vxlan_vni,
            snat_ports: Some((&PortRange { first, last }).into()),
            endpoint_to_host: proto::EndpointToHost::from(settings.endpoint_to_host).into(),
            masquerade_all: settings.masquerade_all,
            keep_source_ports: settings.keep_source_ports,
            service_ranges: messages(&settings.service_ranges),
            service_loops: proto::ServiceLoops::from(settings.service_loops).into(),
            node_port_addresses: messages(&settings.node_port_addresses),
            direct_return: settings.direct_return,
            direct_return_except: messages(&settings.direct_return_except),
            cut_flows_on_policy_change: settings.cut_flows_on_policy_change,
            tcp_strict: settings.tcp_strict,
            clamp_mss: settings.clamp_mss,
            allow_vxlan_from_workloads: settings.allow_vxlan_from_workloads,
            allow_ipip_from_workloads: settings.allow_ipip_from_workloads,
            icmp_errors_per_second: settings.icmp_errors_per_second,
            timeouts: Some((&settings.timeouts).into()),
            failsafe_inbound: messages(&settings.failsafe_inbound),
            failsafe_outbound: messages(&settings.failsafe_outbound),
            dns: Some((&settings.dns).into()),
            log_prefix: settings.log_prefix.to_string(),
            log_packets: settings.log_limit.map_or(0, |limit| limit.packets),
            log_per_ms: settings.log_limit.map_or(0, |limit| limit.per_ms),
            log_burst: settings.log_burst,
        }
    }
}

impl TryFrom<proto::Settings> for Settings {
    type Error = FieldError;

    fn try_from(settings: proto::Settings) -> Result<Self, FieldError> {
        let ports: PortRange =
            needed(settings.snat_ports, "snat_ports")?.try_into().at("snat_ports")?;
        let defaults = Self::default();
        let limit = LogLimit { packets: settings.log_packets, per_ms: settings.log_per_ms };
        Ok(Self {
            vxlan_port: small(settings.vxlan_port).at("vxlan_port")?,
            vxlan_vni: vni(settings.vxlan_vni).at("vxlan_vni")?,
            snat_ports: (ports.first, ports.last),
            endpoint_to_host: endpoint_to_host(settings.endpoint_to_host).at("endpoint_to_host")?,
            masquerade_all: settings.masquerade_all,
            keep_source_ports: settings.keep_source_ports,
            service_ranges: each(settings.service_ranges, "service_ranges")?,
            service_loops: service_loops(settings.service_loops).at("service_loops")?,
            node_port_addresses: each(settings.node_port_addresses, "node_port_addresses")?,
            direct_return: settings.direct_return,
            direct_return_except: each(settings.direct_return_except, "direct_return_except")?,
            cut_flows_on_policy_change: settings.cut_flows_on_policy_change,
            tcp_strict: settings.tcp_strict,
            clamp_mss: settings.clamp_mss,
            allow_vxlan_from_workloads: settings.allow_vxlan_from_workloads,
            allow_ipip_from_workloads: settings.allow_ipip_from_workloads,
            icmp_errors_per_second: settings.icmp_errors_per_second,
            timeouts: needed(settings.timeouts, "timeouts")?.into(),
            failsafe_inbound: each(settings.failsafe_inbound, "failsafe_inbound")?,
            failsafe_outbound: each(settings.failsafe_outbound, "failsafe_outbound")?,
            dns: match settings.dns {
                Some(dns) => dns.try_into().at("dns")?,
                None => DnsSettings::default(),
            },
            log_prefix: match settings.log_prefix.is_empty() {
                true => defaults.log_prefix,
                false => settings.log_prefix.into(),
            },
            log_limit: (limit.packets != 0 && limit.per_ms != 0).then_some(limit),
            log_burst: match settings.log_burst {
                0 => defaults.log_burst,
                burst => burst,
            },
        })
    }
}

fn vni(value: u32) -> Result<u32, Problem> {
    if value > MAX_VNI {
        return Err(Problem::TooLarge { value: value.into(), max: MAX_VNI.into() });
    }
    Ok(value)
}

impl From<&Timeouts> for proto::Timeouts {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            tcp_syn_sent: timeouts.tcp_syn_sent,
            tcp_established: timeouts.tcp_established,
            tcp_fins_seen: timeouts.tcp_fins_seen,
            tcp_reset_seen: timeouts.tcp_reset_seen,
            udp: timeouts.udp,
            icmp: timeouts.icmp,
            generic: timeouts.generic,
            denied: timeouts.denied,
        }
    }
}

impl From<proto::Timeouts> for Timeouts {
    fn from(timeouts: proto::Timeouts) -> Self {
        Self {
            tcp_syn_sent: timeouts.tcp_syn_sent,
            tcp_established: timeouts.tcp_established,
            tcp_fins_seen: timeouts.tcp_fins_seen,
            tcp_reset_seen: timeouts.tcp_reset_seen,
            udp: timeouts.udp,
            icmp: timeouts.icmp,
            generic: timeouts.generic,
            denied: timeouts.denied,
        }
    }
}
