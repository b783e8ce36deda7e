//! Settings: FelixConfiguration, and the ranges of service addresses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use margay_model::node::{EndpointToHost, LogLimit, ServiceLoops, Timeouts};
use margay_model::{DnsSettings, Failsafe, Settings};
use margay_resources::conf::{
    self, ConntrackTimeouts, ExternalServiceMode, FailsafePort, HostAction, LoopPrevention,
};
use margay_resources::v3::FelixConfiguration;

use crate::profiles::LabelMap;

/// The objects that settings come from.
#[derive(Debug)]
pub(crate) struct Configuration {
    felix: BTreeMap<Arc<str>, FelixConfiguration>,
    ranges: BTreeMap<Arc<str>, Vec<IpNet>>,
    nodes: BTreeMap<Arc<str>, LabelMap>,
    changed: bool,
}

// === impl Configuration ===

impl Default for Configuration {
    fn default() -> Self {
        Self {
            felix: BTreeMap::new(),
            ranges: BTreeMap::new(),
            nodes: BTreeMap::new(),
            changed: true,
        }
    }
}

impl Configuration {
    /// Adds, replaces or removes a FelixConfiguration.
    pub(crate) fn set_felix(&mut self, name: &Arc<str>, felix: Option<FelixConfiguration>) {
        match felix {
            Some(felix) => self.felix.insert(name.clone(), felix),
            None => self.felix.remove(name),
        };
        self.changed = true;
    }

    /// Sets the ranges of a ServiceCIDR; none removes it.
    pub(crate) fn set_service_ranges(&mut self, name: &Arc<str>, cidrs: &[String]) {
        let cidrs: Vec<IpNet> = cidrs.iter().filter_map(|c| c.trim().parse().ok()).collect();
        if cidrs.is_empty() {
            self.ranges.remove(name);
        } else {
            self.ranges.insert(name.clone(), cidrs);
        }
        self.changed = true;
    }

    /// Sets the labels of a node, which settings may be limited to.
    pub(crate) fn set_node(&mut self, name: &Arc<str>, labels: Option<LabelMap>) {
        let old = match labels.clone() {
            Some(labels) => self.nodes.insert(name.clone(), labels),
            None => self.nodes.remove(name),
        };
        self.changed |= old != labels;
    }

    /// The settings of a node, and whether its pods may have `allowedSourcePrefixes`, if anything has
    /// changed since the last call.
    pub(crate) fn flush(&mut self, node: Option<&str>) -> Option<(Settings, bool)> {
        let node = node.unwrap_or_default();
        std::mem::take(&mut self.changed)
            .then(|| (self.settings(node), self.felix(node).workload_source_spoofing))
    }

    /// What FelixConfiguration says of a node.
    pub(crate) fn felix(&self, node: &str) -> conf::Settings {
        conf::Settings::of_node(node, &self.nodes.get(node), self.felix.values())
    }

    /// The settings of a node's dataplane.
    pub(crate) fn settings(&self, node: &str) -> Settings {
        let felix = self.felix(node);
        let defaults = Settings::default();
        let mut service_ranges: Vec<_> = self.ranges.values().flatten().copied().collect();
        service_ranges.sort_unstable();
        service_ranges.dedup();
        Settings {
            vxlan_port: felix.vxlan_port,
            vxlan_vni: felix.vxlan_vni,
            snat_ports: felix.nat_port_range.unwrap_or(defaults.snat_ports),
            endpoint_to_host: match felix.default_endpoint_to_host_action {
                HostAction::Drop => EndpointToHost::Drop,
                // What is returned to the host's own filter is not dropped here.
                HostAction::Accept | HostAction::Return => EndpointToHost::Accept,
            },
            service_ranges,
            service_loops: match felix.service_loop_prevention {
                LoopPrevention::Drop => ServiceLoops::Drop,
                LoopPrevention::Reject => ServiceLoops::Reject,
                LoopPrevention::Disabled => ServiceLoops::Route,
            },
            direct_return: felix.bpf_external_service_mode == ExternalServiceMode::Dsr,
            direct_return_except: felix.bpf_dsr_optout_cidrs,
            allow_vxlan_from_workloads: felix.allow_vxlan_packets_from_workloads,
            allow_ipip_from_workloads: felix.allow_ipip_packets_from_workloads,
            failsafe_inbound: failsafes(&felix.failsafe_inbound_host_ports),
            failsafe_outbound: failsafes(&felix.failsafe_outbound_host_ports),
            timeouts: timeouts(&felix.conntrack_timeouts, defaults.timeouts),
            dns: DnsSettings {
                trusted: felix.dns_trusted_servers,
                extra_ttl: u32::try_from(felix.dns_extra_ttl.as_secs()).unwrap_or(u32::MAX),
                max_hold: millis(felix.dns_packets_nfqueue_max_hold_duration),
                epoch: felix.dns_cache_epoch,
            },
            log_prefix: felix.log_prefix.into(),
            log_limit: felix.log_action_rate_limit.map(|(packets, time)| LogLimit {
                packets,
                per_ms: u32::try_from(time.as_millis()).unwrap_or(u32::MAX),
            }),
            log_burst: felix.log_action_rate_limit_burst,
            ..defaults
        }
    }
}

fn failsafes(felix: &[FailsafePort]) -> Vec<Failsafe> {
    let open = |port: &FailsafePort| Failsafe {
        protocol: port.protocol.number(),
        port: port.port,
        net: port.net,
    };
    felix.iter().map(open).collect()
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn timeouts(felix: &ConntrackTimeouts, defaults: Timeouts) -> Timeouts {
    Timeouts {
        tcp_syn_sent: millis(felix.tcp_syn_sent),
        tcp_established: millis(felix.tcp_established),
        tcp_fins_seen: felix.tcp_fins_seen.map_or(defaults.tcp_fins_seen, millis),
        tcp_reset_seen: millis(felix.tcp_reset_seen),
        udp: millis(felix.udp_timeout),
        icmp: millis(felix.icmp_timeout),
        generic: millis(felix.generic_timeout),
        denied: defaults.denied,
    }
}
