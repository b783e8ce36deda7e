//! The node, its peers, the pools and the settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::host::Failsafe;

/// An Ethernet address in transmission order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text was not six pairs of hexadecimal digits separated by colons.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an Ethernet address (expected aa:bb:cc:dd:ee:ff)")]
pub struct MacError;

// === impl Mac ===

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(MacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or(MacError)
    }
}

/// How a packet travels to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encap {
    /// Routed as it is.
    #[default]
    None,
    /// IP in IP, RFC 2003 (IPv4 only).
    Ipip,
    /// VXLAN, RFC 7348.
    Vxlan,
}

impl Encap {
    /// Bytes that the encapsulation adds to an inner IP packet, by the family of the underlay.
    pub const fn overhead(self, underlay_v6: bool) -> u16 {
        match (self, underlay_v6) {
            (Self::None, _) => 0,
            (Self::Ipip, _) => 20,
            (Self::Vxlan, false) => 50,
            (Self::Vxlan, true) => 70,
        }
    }
}

/// This node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNode {
    /// Name of the Node object.
    pub name: Arc<str>,
    /// The node's own IPv4 address with the length of its subnet.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// The node's own IPv6 address with the length of its subnet.
    pub v6: Option<(Ipv6Addr, u8)>,
    /// Addresses out of the pools that the node's own traffic carries into a tunnel: of IPIP and
    /// VXLAN, of either family. Each of them is an address of the node.
    pub tunnel_addresses: Vec<TunnelAddress>,
    /// Ethernet address of the VTEP for IPv4 and IPv6 underlays.
    pub vtep_mac: Mac,
    /// Settings in force on this node.
    pub settings: Settings,
}

/// A node's address out of a pool with an encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelAddress {
    /// The encapsulation it is for.
    pub encap: Encap,
    /// The address.
    pub address: IpAddr,
}

/// Another node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteNode {
    /// Name of the Node object.
    pub name: Arc<str>,
    /// IPv4 underlay address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 underlay address.
    pub v6: Option<Ipv6Addr>,
    /// Ethernet address of its VTEP: the inner destination of VXLAN frames.
    pub vtep_mac: Mac,
}

/// An address pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pool {
    /// The addresses of the pool.
    pub cidr: IpNet,
    /// Whether traffic from the pool to addresses outside all pools is masqueraded.
    pub nat_outgoing: bool,
    /// The encapsulation that the pool may use; it counts for the tunnel classes of the uplink.
    pub encap: Encap,
    /// Whether every remote destination is encapsulated (Always), not only other subnets'.
    pub encap_always: bool,
}

/// What happens to a packet of a pod to its own host after the pod's egress policy allowed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointToHost {
    /// It is accepted.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
}

/// What happens to a packet for an address of the service ranges that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceLoops {
    /// It is dropped.
    #[default]
    Drop,
    /// It is refused.
    Reject,
    /// It is routed like others.
    Route,
}

/// Settings of a node's dataplane that come from the datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// VXLAN network identifier.
    pub vxlan_vni: u32,
    /// First and last source port that masquerading may use.
    pub snat_ports: (u16, u16),
    /// Whether connections of pods to cluster addresses of services are masqueraded.
    pub masquerade_all: bool,
    /// Whether a masqueraded connection keeps its source port if that is one of these and free.
    pub keep_source_ports: bool,
    /// Fate of pod to own host traffic.
    pub endpoint_to_host: EndpointToHost,
    /// Ranges that service addresses are allocated from. Empty when unknown.
    pub service_ranges: Vec<IpNet>,
    /// Fate of packets for an address in them that no service has.
    pub service_loops: ServiceLoops,
    /// Addresses on which node ports answer; empty for all of the node's addresses.
    pub node_port_addresses: Vec<IpNet>,
    /// Whether backends on other nodes answer clients from outside themselves, without this node.
    pub direct_return: bool,
    /// Clients that are answered through this node all the same.
    pub direct_return_except: Vec<IpNet>,
    /// Whether a policy edit cuts connections it no longer allows at their next packet.
    pub cut_flows_on_policy_change: bool,
    /// Whether a TCP connection must be seen from its SYN on; otherwise one is picked up wherever
    /// it stands.
    pub tcp_strict: bool,
    /// Whether SYNs are told a maximum segment size that fits the way they take, if theirs does not.
    pub clamp_mss: bool,
    /// Whether pods may send VXLAN (UDP to the VXLAN port) themselves.
    pub allow_vxlan_from_workloads: bool,
    /// Whether pods may send IP in IP themselves.
    pub allow_ipip_from_workloads: bool,
    /// ICMP errors a second that each port may cause, at most.
    pub icmp_errors_per_second: u32,
    /// Ports of this node that no host endpoint's policy can close.
    pub failsafe_inbound: Vec<Failsafe>,
    /// Ports elsewhere that no host endpoint's policy can close to this node.
    pub failsafe_outbound: Vec<Failsafe>,
    /// How long an idle connection is remembered.
    pub timeouts: Timeouts,
    /// Whose answers about domain names are believed, and for how long.
    pub dns: DnsSettings,
    /// What lines about packets that met Log rules begin with; `%t`, `%k`, `%n` and `%p` stand for
    /// the tier, the kind, the name, and namespace and name of the policy.
    pub log_prefix: Arc<str>,
    /// How many packets of a Log rule get a line; `None` for the dataplane's own limit.
    pub log_limit: Option<LogLimit>,
    /// How many of them may come at once.
    pub log_burst: u32,
}

/// So many packets in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimit {
    /// Packets.
    pub packets: u32,
    /// Milliseconds.
    pub per_ms: u32,
}

/// How addresses of domain names are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Servers whose answers to pods are believed.
    pub trusted: Vec<DnsServer>,
    /// Seconds that an address stays allowed beyond the time that its records say.
    pub extra_ttl: u32,
    /// Milliseconds that an answer is held back at most until its addresses are allowed.
    pub max_hold: u32,
    /// Another number than before: what was learned is forgotten.
    pub epoch: u32,
}

/// A name server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsServer {
    /// By its address.
    Address {
        /// The address.
        addr: IpAddr,
        /// The port, over UDP and TCP, in host byte order.
        port: u16,
    },
    /// By a service's cluster addresses and those of its backends.
    Service {
        /// The service's namespace.
        namespace: Arc<str>,
        /// The service's name.
        name: Arc<str>,
        /// The service's port in host byte order.
        port: u16,
    },
}

/// Lifetimes of idle connections in milliseconds, with the names that Calico gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: only a SYN was seen.
    pub tcp_syn_sent: u32,
    /// TCP: the handshake is complete.
    pub tcp_established: u32,
    /// TCP: both ends sent a FIN.
    pub tcp_fins_seen: u32,
    /// TCP: a RST was seen.
    pub tcp_reset_seen: u32,
    /// UDP.
    pub udp: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// Every other protocol.
    pub generic: u32,
    /// A cached denial.
    pub denied: u32,
}

// === impl Settings ===

impl Default for Settings {
    /// Calico's defaults, but `endpoint_to_host` is Accept as its manifests set it, and failsafe
    /// ports are none: the control plane names them.
    fn default() -> Self {
        Self {
            vxlan_port: 4789,
            vxlan_vni: 4096,
            snat_ports: (61_000, 65_535),
            masquerade_all: false,
            keep_source_ports: false,
            endpoint_to_host: EndpointToHost::Accept,
            service_ranges: Vec::new(),
            service_loops: ServiceLoops::Drop,
            node_port_addresses: Vec::new(),
            direct_return: false,
            direct_return_except: Vec::new(),
            cut_flows_on_policy_change: true,
            tcp_strict: false,
            clamp_mss: false,
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            icmp_errors_per_second: 100,
            failsafe_inbound: Vec::new(),
            failsafe_outbound: Vec::new(),
            timeouts: Timeouts::default(),
            dns: DnsSettings::default(),
            log_prefix: "calico-packet".into(),
            log_limit: None,
            log_burst: 5,
        }
    }
}

impl Default for DnsSettings {
    /// The cluster's own name servers, and what their records say to the second.
    fn default() -> Self {
        let (namespace, name) = ("kube-system".into(), "kube-dns".into());
        Self {
            trusted: vec![DnsServer::Service { namespace, name, port: 53 }],
            extra_ttl: 0,
            max_hold: 3_000,
            epoch: 0,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_syn_sent: 20_000,
            tcp_established: 3_600_000,
            tcp_fins_seen: 120_000,
            tcp_reset_seen: 40_000,
            udp: 60_000,
            icmp: 5_000,
            generic: 600_000,
            denied: 1_000,
        }
    }
}

impl LocalNode {
    /// Every address of the node that the control plane knows: its own and its tunnels'.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let own = [self.v4.map(|(a, _)| a.into()), self.v6.map(|(a, _)| a.into())];
        own.into_iter().flatten().chain(self.tunnel_addresses.iter().map(|t| t.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_what_it_prints() {
        let mac = Mac([0xee, 0xee, 0, 1, 0xab, 9]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in ["", "ee:ee", "ee:ee:ee:ee:ee:ee:ee", "gg:ee:ee:ee:ee:ee", "eee:e:ee:ee:ee:ee"] {
            assert_eq!(bad.parse::<Mac>(), Err(MacError), "{bad}");
        }
    }
}
