//! What the Node object of this node has to say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_resources::v3::{Node, NodeAddress, NodeBgp, OrchRef};
use sha1::{Digest, Sha1};

use crate::config::NodeAddresses;

/// What is known about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its name.
    pub(super) name: String,
    /// Its addresses as the agent was told.
    pub(super) addresses: NodeAddresses,
    /// Labels and addresses of the Kubernetes node of this name.
    pub(super) kubernetes: Option<KubernetesNode>,
    /// The tunnels that the pools want.
    pub(super) tunnels: Tunnels,
}

/// The tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tunnels {
    /// IPIP.
    pub(super) ipip: Tunnel,
    /// VXLAN.
    pub(super) vxlan_v4: Tunnel,
    /// VXLAN of IPv6.
    pub(super) vxlan_v6: Tunnel,
}

/// What is known of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// No pool wants it.
    #[default]
    Unwanted,
    /// One does; the node's address in it, where it needs one.
    Wanted(Option<IpAddr>),
    /// One does; the address could not be looked up: that of before holds.
    Unknown,
}

/// What the Kubernetes node of the same name contributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KubernetesNode {
    pub(super) labels: BTreeMap<String, String>,
    /// `status.addresses` of type `InternalIP`.
    pub(super) internal: Vec<IpAddr>,
}

/// The node's Ethernet address in VXLAN, as Calico makes it: stable, and another one for each
/// node. 0x66 marks it as locally administered.
pub(crate) fn vtep_mac(node: &str) -> String {
    let digest = Sha1::digest(node.as_bytes());
    let mut text = "66".to_owned();
    for byte in digest.iter().take(5) {
        text.push_str(&format!(":{byte:02x}"));
    }
    text
}

/// The Node object that says what is known, with everything else as it was before.
pub(super) fn desired(before: Option<Node>, facts: &Facts) -> Node {
    let mut node = before.unwrap_or_else(|| Node::named("", &facts.name, Default::default()));
    if let Some(kubernetes) = &facts.kubernetes {
        node.metadata.labels = Some(kubernetes.labels.clone()).filter(|l| !l.is_empty());
        node.spec.orch_refs =
            vec![OrchRef { node_name: facts.name.clone(), orchestrator: "k8s".into() }];
    }
    let tell = |tunnel: Tunnel, field: &mut String| match tunnel {
        Tunnel::Wanted(Some(address)) => *field = address.to_string(),
        Tunnel::Wanted(None) | Tunnel::Unwanted => field.clear(),
        Tunnel::Unknown => {}
    };
    let bgp = node.spec.bgp.get_or_insert_with(NodeBgp::default);
    addresses(bgp, facts);
    tell(facts.tunnels.ipip, &mut bgp.ipv4_ipip_tunnel_addr);
    node.spec.addresses.retain(|address| address.kind != NODE_IP);
    for own in [&bgp.ipv4_address, &bgp.ipv6_address] {
        if !own.is_empty() {
            let address = NodeAddress { address: own.clone(), kind: NODE_IP.to_owned() };
            node.spec.addresses.push(address);
        }
    }
    if *bgp == NodeBgp::default() {
        node.spec.bgp = None;
    }
    let Tunnels { vxlan_v4, vxlan_v6, .. } = facts.tunnels;
    // A tunnel works for pods also while the node itself has no address in it.
    let mac = |tunnel| match tunnel {
        Tunnel::Unwanted => String::new(),
        _ => vtep_mac(&facts.name),
    };
    tell(vxlan_v4, &mut node.spec.ipv4_vxlan_tunnel_addr);
    node.spec.vxlan_tunnel_mac_addr = mac(vxlan_v4);
    tell(vxlan_v6, &mut node.spec.ipv6_vxlan_tunnel_addr);
    // One VTEP serves both families: the dataplane has one address for it.
    node.spec.vxlan_tunnel_mac_addr_v6 = mac(vxlan_v6);
    node
}

/// The type of the addresses that Calico's own nodes give themselves.
const NODE_IP: &str = "CalicoNodeIP";

/// What the agent was told; else what the object says; else what Kubernetes says.
fn addresses(bgp: &mut NodeBgp, facts: &Facts) {
    let internal = |v4: bool| {
        let of_kubernetes = facts.kubernetes.iter().flat_map(|k| &k.internal);
        of_kubernetes.copied().find(|a| a.is_ipv4() == v4).map(|a| a.to_string())
    };
    if let Some((address, length)) = facts.addresses.v4 {
        bgp.ipv4_address = format!("{address}/{length}");
    } else if bgp.ipv4_address.is_empty() {
        bgp.ipv4_address = internal(true).unwrap_or_default();
    }
    if let Some((address, length)) = facts.addresses.v6 {
        bgp.ipv6_address = format!("{address}/{length}");
    } else if bgp.ipv6_address.is_empty() {
        bgp.ipv6_address = internal(false).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            name: "a".into(),
            addresses: "10.0.0.1/24,fd00::1/64".parse().unwrap(),
            ..Facts::default()
        }
    }

    #[test]
    fn a_new_node_says_what_the_agent_was_told() {
        let node = desired(None, &facts());
        let bgp = node.spec.bgp.clone().unwrap();
        assert_eq!(bgp.ipv4_address, "10.0.0.1/24");
        assert_eq!(bgp.ipv6_address, "fd00::1/64");
        let own: Vec<_> = node.spec.addresses.iter().map(|a| a.address.as_str()).collect();
        assert_eq!(own, ["10.0.0.1/24", "fd00::1/64"]);
        assert_eq!(desired(Some(node.clone()), &facts()), node);
    }

    #[test]
    fn what_others_wrote_stays_and_what_the_agent_wrote_is_renewed() {
        let mut node = desired(None, &facts());
        node.spec.bgp.as_mut().unwrap().route_reflector_cluster_id = "1.2.3.4".into();
        let external = NodeAddress { address: "192.0.2.1".into(), kind: "ExternalIP".into() };
        node.spec.addresses.push(external.clone());
        let facts = Facts { addresses: "10.0.0.2/24".parse().unwrap(), ..facts() };
        let node = desired(Some(node), &facts);
        let bgp = node.spec.bgp.unwrap();
        assert_eq!(bgp.route_reflector_cluster_id, "1.2.3.4");
        assert_eq!(
            (bgp.ipv4_address.as_str(), bgp.ipv6_address.as_str()),
            ("10.0.0.2/24", "fd00::1/64")
        );
        assert_eq!(node.spec.addresses[0], external);
    }

    #[test]
    fn without_node_ip_the_internal_address_of_kubernetes_is_taken() {
        let internal = vec!["192.0.2.7".parse().unwrap(), "fd01::7".parse().unwrap()];
        let kubernetes = KubernetesNode { labels: [("rack".into(), "r1".into())].into(), internal };
        let facts = Facts { name: "a".into(), kubernetes: Some(kubernetes), ..Facts::default() };
        let node = desired(None, &facts);
        let bgp = node.spec.bgp.unwrap();
        assert_eq!(
            (bgp.ipv4_address.as_str(), bgp.ipv6_address.as_str()),
            ("192.0.2.7", "fd01::7")
        );
        assert_eq!(node.metadata.labels.unwrap()["rack"], "r1");
    }

    #[test]
    fn a_tunnel_that_no_pool_wants_any_more_loses_its_addresses() {
        let address: IpAddr = "10.1.0.1".parse().unwrap();
        let tunnels = Tunnels {
            ipip: Tunnel::Wanted(Some(address)),
            vxlan_v4: Tunnel::Wanted(Some(address)),
            vxlan_v6: Tunnel::Wanted(None),
        };
        let node = desired(None, &Facts { tunnels, ..facts() });
        assert_eq!(node.spec.bgp.as_ref().unwrap().ipv4_ipip_tunnel_addr, "10.1.0.1");
        assert_eq!(node.spec.ipv4_vxlan_tunnel_addr, "10.1.0.1");
        assert_eq!(node.spec.vxlan_tunnel_mac_addr, vtep_mac("a"));
        assert_eq!(node.spec.vxlan_tunnel_mac_addr_v6, vtep_mac("a"));
        assert_eq!(node.spec.ipv6_vxlan_tunnel_addr, "");
        let unknown = Tunnels { ipip: Tunnel::Unknown, vxlan_v4: Tunnel::Unknown, ..tunnels };
        assert_eq!(desired(Some(node.clone()), &Facts { tunnels: unknown, ..facts() }), node);
        assert_eq!(desired(Some(node), &facts()), desired(None, &facts()));
    }

    #[test]
    fn a_vtep_mac_is_calicos_and_differs_between_nodes() {
        // `printf node-a | sha1sum` begins with 0702c1cc60.
        assert_eq!(vtep_mac("node-a"), "66:07:02:c1:cc:60");
        assert_ne!(vtep_mac("node-a"), vtep_mac("node-b"));
    }
}
