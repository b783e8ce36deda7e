//! The settings that are in force on a node.
//!
//! Each setting is looked up in the configuration of the node (`node.NAME`), then in the oldest of
//! those whose `nodeSelector` picks the node, then in `default`; [`Settings::default`] holds what
//! is built in. Settings that mean nothing here are passed over; [`without_effect`] tells of those
//! that ask for something that does not happen.

mod dns;
mod read;
mod idle;

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use margay_model::{DnsServer, DnsSettings};

use crate::field::Report;
use crate::selector::{Labels, Selector};
use crate::v3::{FelixConfiguration, FelixConfigurationSpec, Protocol};

pub use idle::without_effect;

/// The settings of a node's dataplane, by the names of their fields in `FelixConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// VXLAN network identifier, 24 bits.
    pub vxlan_vni: u32,
    /// Source ports for masquerading; `None` for the dataplane's own range.
    pub nat_port_range: Option<(u16, u16)>,
    /// Source address for masquerading; `None` for the address of the way out.
    pub nat_outgoing_address: Option<Ipv4Addr>,
    /// Destinations that are not masqueraded.
    pub nat_outgoing_exclusions: NatExclusions,
    /// What becomes of packets of a pod to its own host, after the pod's policy.
    ///
    /// Built in is Accept, as Calico's manifests set it; without them Calico drops.
    pub default_endpoint_to_host_action: HostAction,
    /// Whether pods may send VXLAN.
    pub allow_vxlan_packets_from_workloads: bool,
    /// Whether pods may send IP in IP.
    pub allow_ipip_packets_from_workloads: bool,
    /// Whether pods may ask for foreign source addresses (`allowedSourcePrefixes`).
    pub workload_source_spoofing: bool,
    /// Whether pods may have floating addresses.
    pub floating_ips: bool,
    /// Node ports.
    pub kube_node_port_ranges: Vec<(u16, u16)>,
    /// What becomes of packets to unallocated service addresses.
    pub service_loop_prevention: LoopPrevention,
    /// Ports of the host that no policy can close: of connections to it.
    pub failsafe_inbound_host_ports: Vec<FailsafePort>,
    /// Ports that no policy can close to the host: of connections from it.
    pub failsafe_outbound_host_ports: Vec<FailsafePort>,
    /// Hosts outside of the cluster whose tunnel packets are accepted.
    pub external_nodes_list: Vec<IpNet>,
    /// Whether backends answer clients from outside themselves, and not through the node that these
    /// asked.
    pub bpf_external_service_mode: ExternalServiceMode,
    /// Clients that are answered through that node all the same.
    pub bpf_dsr_optout_cidrs: Vec<IpNet>,
    /// Where load balancers are told of the node, as kube-proxy would; 0 for nowhere.
    pub bpf_kube_proxy_healthz_port: u16,
    /// Lifetimes of idle connections.
    pub conntrack_timeouts: ConntrackTimeouts,
    /// Name servers whose answers to pods are believed.
    pub dns_trusted_servers: Vec<DnsServer>,
    /// How long an address stays allowed beyond the time that its records say.
    pub dns_extra_ttl: Duration,
    /// How long an answer is held back at most until its addresses are allowed.
    pub dns_packets_nfqueue_max_hold_duration: Duration,
    /// Another number than before: what was learned is forgotten.
    pub dns_cache_epoch: u32,
    /// What lines about packets of Log rules begin with.
    pub log_prefix: String,
    /// Lines of a Log rule in a time; `None` for no limit of Calico's.
    pub log_action_rate_limit: Option<(u32, Duration)>,
    /// Packets of a Log rule that may come at once.
    pub log_action_rate_limit_burst: u32,
    /// Between two flushes of the flow log.
    pub flow_logs_flush_interval: Duration,
}

/// How a backend on another node answers clients from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalServiceMode {
    /// Through the node that was asked.
    Tunnel,
    /// By itself: direct server return.
    Dsr,
}

/// Destinations that are not masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatExclusions {
    /// Addresses of the pools.
    IpPoolsOnly,
    /// Addresses of the pools and of the nodes.
    IpPoolsAndHostIps,
}

/// What becomes of packets of a pod to its own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAction {
    /// They are accepted.
    Accept,
    /// They are dropped.
    Drop,
    /// The host's own filter decides.
    Return,
}

/// What becomes of packets to unallocated service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopPrevention {
    /// They are dropped.
    Drop,
    /// They are refused.
    Reject,
    /// They are routed like others.
    Disabled,
}

/// A port that no policy can close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailsafePort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
    /// The other end; `None` for any.
    pub net: Option<IpNet>,
}

/// Lifetimes of idle connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackTimeouts {
    /// After creation nothing is removed for so long.
    pub creation_grace_period: Duration,
    /// TCP: only a SYN was seen.
    pub tcp_syn_sent: Duration,
    /// TCP: the handshake is complete.
    pub tcp_established: Duration,
    /// TCP: both ends sent a FIN; `None` for the kernel's value.
    pub tcp_fins_seen: Option<Duration>,
    /// TCP: a RST was seen.
    pub tcp_reset_seen: Duration,
    /// UDP.
    pub udp_timeout: Duration,
    /// Other protocols.
    pub generic_timeout: Duration,
    /// ICMP.
    pub icmp_timeout: Duration,
}

// === impl Settings ===

impl Settings {
    /// The settings of the node `name` with these labels. What cannot be read in a configuration
    /// is as good as missing in it.
    pub fn of_node<'a>(
        name: &str,
        labels: &impl Labels,
        configurations: impl IntoIterator<Item = &'a FelixConfiguration>,
    ) -> Self {
        let own = format!("node.{name}");
        let mut selected: Vec<(usize, &FelixConfiguration)> = (configurations.into_iter())
            .filter_map(|each| rank(each, &own, labels).map(|rank| (rank, each)))
            .collect();
        // Within a rank the oldest comes first, and only the first of a rank counts.
        selected.sort_by_key(|(rank, each)| {
            let created = each.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (*rank, created.is_none(), created, each.name().to_owned())
        });
        selected.dedup_by_key(|(rank, _)| *rank);
        let mut settings = Self::default();
        let mut problems = Vec::new();
        for (_, configuration) in selected {
            settings.read(&configuration.spec, &mut Report::new(&mut problems));
        }
        settings
    }
}

/// The place of a configuration in the order in which they override each other, lowest first;
/// `None` if it is not for the node.
fn rank(configuration: &FelixConfiguration, own: &str, labels: &impl Labels) -> Option<usize> {
    let name = configuration.name();
    if name == "default" {
        return Some(0);
    }
    if name.starts_with("node.") {
        return (name == own).then_some(2);
    }
    let selector = Selector::parse(configuration.spec.node_selector()?).ok()?;
    selector.matches(labels).then_some(1)
}

/// Everything that is wrong with the settings that mean something here.
pub(crate) fn check(spec: &FelixConfigurationSpec, report: &mut Report<'_>) {
    Settings::default().read(spec, report);
}

impl Default for Settings {
    fn default() -> Self {
        let tcp = |port| FailsafePort { protocol: Protocol::TCP, port, net: None };
        let udp = |port| FailsafePort { protocol: Protocol::UDP, port, net: None };
        let dns = DnsSettings::default();
        let always = [179, 2379, 2380, 5473, 6443, 6666, 6667].map(tcp);
        Self {
            vxlan_port: 4789,
            vxlan_vni: 4096,
            nat_port_range: None,
            nat_outgoing_address: None,
            nat_outgoing_exclusions: NatExclusions::IpPoolsOnly,
            default_endpoint_to_host_action: HostAction::Accept,
            allow_vxlan_packets_from_workloads: false,
            allow_ipip_packets_from_workloads: false,
            workload_source_spoofing: false,
            floating_ips: false,
            kube_node_port_ranges: vec![(30_000, 32_767)],
            service_loop_prevention: LoopPrevention::Drop,
            failsafe_inbound_host_ports: [&[tcp(22), udp(68)][..], &always].concat(),
            failsafe_outbound_host_ports: [&[udp(53), udp(67)][..], &always].concat(),
            external_nodes_list: Vec::new(),
            bpf_external_service_mode: ExternalServiceMode::Tunnel,
            bpf_dsr_optout_cidrs: Vec::new(),
            bpf_kube_proxy_healthz_port: 10_256,
            conntrack_timeouts: ConntrackTimeouts::default(),
            dns_trusted_servers: dns.trusted,
            dns_extra_ttl: Duration::from_secs(dns.extra_ttl.into()),
            dns_packets_nfqueue_max_hold_duration: Duration::from_millis(dns.max_hold.into()),
            dns_cache_epoch: dns.epoch,
            log_prefix: "calico-packet".to_owned(),
            log_action_rate_limit: None,
            log_action_rate_limit_burst: 5,
            flow_logs_flush_interval: Duration::from_secs(300),
        }
    }
}

impl Default for ConntrackTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            creation_grace_period: seconds(10),
            tcp_syn_sent: seconds(20),
            tcp_established: seconds(3600),
            tcp_fins_seen: None,
            tcp_reset_seen: seconds(40),
            udp_timeout: seconds(60),
            generic_timeout: seconds(600),
            icmp_timeout: seconds(5),
        }
    }
}

#[cfg(test)]
mod tests;
