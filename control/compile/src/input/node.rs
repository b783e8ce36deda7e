//! Nodes, pools and blocks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use margay_model::node::TunnelAddress;
use margay_model::{Encap, Mac};
use margay_resources::v3;

use crate::network::{BlockFacts, NodeFacts, PoolFacts};

const ZONE: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler's taint of a node that it is going to delete.
const DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// A node of Kubernetes: addresses, and what Calico notes in annotations where it has no objects
/// of its own.
pub(crate) fn kubernetes(object: &Node) -> NodeFacts {
    let note = |name: &str| {
        let annotations = object.metadata.annotations.as_ref();
        let key = format!("projectcalico.org/{name}");
        annotations.and_then(|a| a.get(&key)).map(String::as_str).unwrap_or_default()
    };
    let addresses = object.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    // Internal addresses first: of several one stands for the node.
    let of = |kind: &'static str| {
        let addresses = addresses.iter().filter(move |a| a.type_ == kind);
        addresses.map(|a| a.address.as_str())
    };
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let mut facts = NodeFacts { labels, ..NodeFacts::default() };
    facts.know([note("IPv4Address"), note("IPv6Address")]);
    facts.know(of("InternalIP").chain(of("ExternalIP")));
    facts.tunnel(Encap::Ipip, note("IPv4IPIPTunnelAddr"));
    facts.tunnel(Encap::Vxlan, note("IPv4VXLANTunnelAddr"));
    facts.tunnel(Encap::Vxlan, note("IPv6VXLANTunnelAddr"));
    facts.vtep_mac = note("VXLANTunnelMACAddr").parse().unwrap_or_default();
    facts.pod_cidrs = pod_cidrs(object);
    facts.leaving = is_leaving(object);
    facts
}

/// `spec.podCIDRs`, or `spec.podCIDR` alone.
fn pod_cidrs(object: &Node) -> Vec<IpNet> {
    let Some(spec) = &object.spec else { return Vec::new() };
    let many = spec.pod_cidrs.as_deref().unwrap_or_default();
    let one = spec.pod_cidr.iter().filter(|_| many.is_empty());
    let nets = many.iter().chain(one).filter_map(|text| text.parse::<IpNet>().ok());
    nets.map(|net| net.trunc()).collect()
}

/// Whether it is being deleted, or about to be.
fn is_leaving(object: &Node) -> bool {
    let taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    object.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|t| t.key == DELETED)
}

/// The zone of a node of Kubernetes.
pub(crate) fn zone(object: &Node) -> Option<Arc<str>> {
    let zone = object.metadata.labels.as_ref()?.get(ZONE)?;
    (!zone.is_empty()).then(|| zone.as_str().into())
}

/// A node of Calico.
pub(crate) fn calico(object: &v3::Node) -> NodeFacts {
    let spec = &object.spec;
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let mut facts = NodeFacts { labels, ..NodeFacts::default() };
    if let Some(bgp) = &spec.bgp {
        facts.know([bgp.ipv4_address.as_str(), bgp.ipv6_address.as_str()]);
        facts.tunnel(Encap::Ipip, &bgp.ipv4_ipip_tunnel_addr);
    }
    facts.know(spec.addresses.iter().map(|a| a.address.as_str()));
    facts.tunnel(Encap::Vxlan, &spec.ipv4_vxlan_tunnel_addr);
    facts.tunnel(Encap::Vxlan, &spec.ipv6_vxlan_tunnel_addr);
    facts.vtep_mac = spec.vxlan_tunnel_mac_addr.parse().unwrap_or_default();
    facts
}

// === impl NodeFacts ===

impl NodeFacts {
    /// Adds addresses, with or without a length; the first of each family stands for the node.
    fn know<'a>(&mut self, addresses: impl IntoIterator<Item = &'a str>) {
        for text in addresses {
            let (address, length) = match text.split_once('/') {
                Some((address, length)) => (address, length.parse().ok()),
                None => (text, None),
            };
            match address.parse() {
                Ok(IpAddr::V4(a)) => {
                    let length = length.filter(|l| *l <= 32).unwrap_or(32);
                    self.v4.get_or_insert((a, length));
                    self.addresses.insert(a.into());
                }
                Ok(IpAddr::V6(a)) => {
                    let length = length.filter(|l| *l <= 128).unwrap_or(128);
                    self.v6.get_or_insert((a, length));
                    self.addresses.insert(a.into());
                }
                Err(_) => {}
            }
        }
    }

    fn tunnel(&mut self, encap: Encap, address: &str) {
        if let Ok(address) = address.parse() {
            self.tunnel_addresses.push(TunnelAddress { encap, address });
            self.addresses.insert(address);
        }
    }

    /// Both views of one node; `self` is asked first.
    pub(crate) fn merged(self, other: Self) -> Self {
        let none = self.tunnel_addresses.is_empty();
        let set = self.vtep_mac != Mac::default();
        Self {
            v4: self.v4.or(other.v4) as Option<(Ipv4Addr, u8)>,
            v6: self.v6.or(other.v6) as Option<(Ipv6Addr, u8)>,
            labels: if other.labels.is_empty() { self.labels } else { other.labels },
            addresses: self.addresses.union(&other.addresses).copied().collect::<BTreeSet<_>>(),
            tunnel_addresses: if none { other.tunnel_addresses } else { self.tunnel_addresses },
            vtep_mac: if set { self.vtep_mac } else { other.vtep_mac },
            pod_cidrs: if self.pod_cidrs.is_empty() { other.pod_cidrs } else { self.pod_cidrs },
            leaving: self.leaving || other.leaving,
        }
    }
}

/// A pool; `None` for one without addresses for pods and tunnels, as it is no destination of
/// their traffic.
pub(crate) fn pool(object: &v3::IpPool) -> Option<PoolFacts> {
    use v3::EncapMode::{Always, Never};
    let spec = &object.spec;
    let cidr = spec.cidr.as_ref()?.net();
    if spec.allowed_uses == [v3::AllowedUse::LoadBalancer] {
        return None;
    }
    let (ipip, vxlan) = (spec.ipip_mode.unwrap_or(Never), spec.vxlan_mode.unwrap_or(Never));
    let (encap, mode) = match (ipip, vxlan) {
        (Never, Never) => (Encap::None, Never),
        (Never, mode) => (Encap::Vxlan, mode),
        (mode, _) => (Encap::Ipip, mode),
    };
    Some(PoolFacts { cidr, nat_outgoing: spec.nat_outgoing, encap, always: mode == Always })
}

/// A block; `None` for one that is being deleted or whose network is none.
pub(crate) fn block(object: &v3::IpamBlock) -> Option<BlockFacts> {
    let spec = &object.spec;
    if spec.deleted {
        return None;
    }
    let cidr = spec.cidr.parse::<IpNet>().ok()?.trunc();
    let node = spec.affinity.as_deref().and_then(|a| a.strip_prefix("host:"));
    let mut borrowed = Vec::new();
    for (ordinal, attributes) in (0..).zip(&spec.allocations) {
        let Some(index) = attributes.and_then(|index| usize::try_from(index).ok()) else {
            continue;
        };
        let owner = spec.attributes.get(index).and_then(|a| a.active_owner.as_ref());
        let Some(on) = owner.and_then(|owner| owner.get("node")) else { continue };
        if Some(on.as_str()) != node
            && let Some(address) = nth(&cidr, ordinal)
        {
            borrowed.push((address, on.as_str().into()));
        }
    }
    Some(BlockFacts { cidr, node: node.map(Into::into), borrowed })
}

/// An address of a network, counted from its first.
fn nth(net: &IpNet, ordinal: u32) -> Option<IpAddr> {
    let address = match net.network() {
        IpAddr::V4(a) => IpAddr::V4(a.to_bits().checked_add(ordinal)?.into()),
        IpAddr::V6(a) => IpAddr::V6(a.to_bits().checked_add(ordinal.into())?.into()),
    };
    net.contains(&address).then_some(address)
}
