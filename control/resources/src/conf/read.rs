//! From the fields of a configuration to settings.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::dns;
use super::{
    ConntrackTimeouts, ExternalServiceMode, FailsafePort, HostAction, LoopPrevention,
    NatExclusions, Settings,
};
use crate::duration;
use crate::field::Report;
use crate::v3::{FelixConfigurationSpec, Net, Port, Protocol};

/// What is wrong with a value, as the end of a sentence.
type Wrong = String;

// === impl Settings ===

impl Settings {
    /// Overrides the settings that `spec` has; what cannot be read is reported and left alone.
    pub(super) fn read(&mut self, spec: &FelixConfigurationSpec, report: &mut Report<'_>) {
        let mut from = Source { spec, report };
        from.read("vxlanPort", &mut self.vxlan_port, |v| number(v, 1, 65_535));
        from.read("vxlanVNI", &mut self.vxlan_vni, |v| number(v, 1, 0xff_ffff));
        from.read("natPortRange", &mut self.nat_port_range, |v| port_range(v).map(Some));
        from.read("natOutgoingAddress", &mut self.nat_outgoing_address, ipv4);
        from.read("natOutgoingExclusions", &mut self.nat_outgoing_exclusions, |v| {
            word(
                v,
                &[
                    ("IPPoolsOnly", NatExclusions::IpPoolsOnly),
                    ("IPPoolsAndHostIPs", NatExclusions::IpPoolsAndHostIps),
                ],
            )
        });
        from.read("defaultEndpointToHostAction", &mut self.default_endpoint_to_host_action, |v| {
            word(
                v,
                &[
                    ("Accept", HostAction::Accept),
                    ("Drop", HostAction::Drop),
                    ("Return", HostAction::Return),
                ],
            )
        });
        from.read(
            "allowVXLANPacketsFromWorkloads",
            &mut self.allow_vxlan_packets_from_workloads,
            flag,
        );
        from.read(
            "allowIPIPPacketsFromWorkloads",
            &mut self.allow_ipip_packets_from_workloads,
            flag,
        );
        from.read("workloadSourceSpoofing", &mut self.workload_source_spoofing, |v| {
            word(v, &[("Any", true), ("Disabled", false)])
        });
        from.read("floatingIPs", &mut self.floating_ips, |v| {
            word(v, &[("Enabled", true), ("Disabled", false)])
        });
        from.read("kubeNodePortRanges", &mut self.kube_node_port_ranges, port_ranges);
        from.read("serviceLoopPrevention", &mut self.service_loop_prevention, |v| {
            word(
                v,
                &[
                    ("Drop", LoopPrevention::Drop),
                    ("Reject", LoopPrevention::Reject),
                    ("Disabled", LoopPrevention::Disabled),
                ],
            )
        });
        from.read("failsafeInboundHostPorts", &mut self.failsafe_inbound_host_ports, failsafes);
        from.read("failsafeOutboundHostPorts", &mut self.failsafe_outbound_host_ports, failsafes);
        from.read("externalNodesList", &mut self.external_nodes_list, |v| list(v, net));
        from.read("bpfExternalServiceMode", &mut self.bpf_external_service_mode, |v| {
            word(v, &[("Tunnel", ExternalServiceMode::Tunnel), ("DSR", ExternalServiceMode::Dsr)])
        });
        from.read("bpfDSROptoutCIDRs", &mut self.bpf_dsr_optout_cidrs, |v| list(v, net));
        from.read("bpfKubeProxyHealthzPort", &mut self.bpf_kube_proxy_healthz_port, |v| {
            number(v, 0, 65_535)
        });
        from.read("dnsTrustedServers", &mut self.dns_trusted_servers, |v| list(v, dns::server));
        from.read("dnsExtraTTL", &mut self.dns_extra_ttl, time);
        let hold = &mut self.dns_packets_nfqueue_max_hold_duration;
        from.read("dnsPacketsNfqueueMaxHoldDuration", hold, time);
        from.read("dnsCacheEpoch", &mut self.dns_cache_epoch, |v| number(v, 0, u32::MAX.into()));
        from.read("logPrefix", &mut self.log_prefix, prefix);
        from.read("logActionRateLimit", &mut self.log_action_rate_limit, rate);
        let burst = &mut self.log_action_rate_limit_burst;
        from.read("logActionRateLimitBurst", burst, |v| number(v, 1, 9999));
        from.read("flowLogsFlushInterval", &mut self.flow_logs_flush_interval, interval);
        let before = self.conntrack_timeouts;
        from.read("bpfConntrackTimeouts", &mut self.conntrack_timeouts, |v| timeouts(v, before));
    }
}

/// Where settings come from, and where their problems go.
struct Source<'s, 'r, 'p> {
    spec: &'s FelixConfigurationSpec,
    report: &'r mut Report<'p>,
}

// === impl Source ===

impl Source<'_, '_, '_> {
    fn read<T>(
        &mut self,
        name: &str,
        setting: &mut T,
        parse: impl FnOnce(&Value) -> Result<T, Wrong>,
    ) {
        match self.spec.0.get(name).filter(|value| !value.is_null()).map(parse) {
            Some(Ok(value)) => *setting = value,
            Some(Err(wrong)) => self.report.wrong_at(name, wrong),
            None => {}
        }
    }
}

// === values ===

fn number<T: TryFrom<u64>>(value: &Value, least: u64, most: u64) -> Result<T, Wrong> {
    let number = value.as_u64().filter(|n| (least..=most).contains(n));
    let number = number.and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| format!("{value} is not a number from {least} to {most}"))
}

fn flag(value: &Value) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| format!("{value} is neither true nor false"))
}

/// One of several words, in any case, since older versions wrote some of them in capitals.
fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, Wrong> {
    let text = value.as_str().unwrap_or_default();
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{value} is none of {}", words.join(", "))
    })
}

/// An IPv4 address; the empty text is none.
fn ipv4(value: &Value) -> Result<Option<Ipv4Addr>, Wrong> {
    match value.as_str() {
        Some("") => Ok(None),
        text => text
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or_else(|| format!("{value} is not an IPv4 address")),
    }
}

fn time(value: &Value) -> Result<Duration, Wrong> {
    let time = value.as_str().and_then(duration::parse);
    time.ok_or_else(|| format!("{value} is not a duration such as 30s"))
}

fn net(value: &Value) -> Result<IpNet, Wrong> {
    let net = value.as_str().and_then(|text| text.parse::<Net>().ok());
    net.map(|net| net.net()).ok_or_else(|| format!("{value} is not a network such as 10.0.0.0/8"))
}

fn list<T>(value: &Value, item: fn(&Value) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    let list = value.as_array().ok_or_else(|| format!("{value} is not a list"))?;
    list.iter().map(item).collect()
}

fn port_range(value: &Value) -> Result<(u16, u16), Wrong> {
    match serde_json::from_value(value.clone()) {
        Ok(Port::Number(port)) => Ok((port, port)),
        Ok(Port::Range(first, last)) => Ok((first, last)),
        Ok(Port::Name(_)) => Err(format!("{value} is a name; give the port's number")),
        Err(error) => Err(error.to_string()),
    }
}

/// The kernel's filter, for which the limit is meant, matches at most seven ranges at once.
fn port_ranges(value: &Value) -> Result<Vec<(u16, u16)>, Wrong> {
    let ranges = list(value, port_range)?;
    if ranges.len() > 7 {
        return Err(format!("has {} ranges; 7 are allowed", ranges.len()));
    }
    Ok(ranges)
}

/// An empty list, or the text `none`, is no failsafe at all.
fn failsafes(value: &Value) -> Result<Vec<FailsafePort>, Wrong> {
    if value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("none")) {
        return Ok(Vec::new());
    }
    list(value, failsafe)
}

fn failsafe(value: &Value) -> Result<FailsafePort, Wrong> {
    let member = |key: &str| value.get(key).filter(|v| !v.is_null());
    let protocols = [("TCP", Protocol::TCP), ("UDP", Protocol::UDP), ("SCTP", Protocol::SCTP)];
    let protocol = member("protocol").map_or(Ok(Protocol::TCP), |v| word(v, &protocols))?;
    let port = member("port").ok_or_else(|| format!("{value} has no port"))?;
    let net = member("net").filter(|v| v.as_str() != Some("")).map(net).transpose()?;
    Ok(FailsafePort { protocol, port: number(port, 0, 65_535)?, net })
}

/// The longest prefix that nftables takes.
const LONGEST_PREFIX: usize = 127;

fn prefix(value: &Value) -> Result<String, Wrong> {
    let text = value.as_str().filter(|text| text.len() <= LONGEST_PREFIX);
    let printable = |text: &&str| !text.is_empty() && !text.chars().any(char::is_control);
    let wrong = || format!("{value} is not a text of 1 to {LONGEST_PREFIX} bytes on one line");
    text.filter(printable).map(str::to_owned).ok_or_else(wrong)
}

/// `N/second`, `N/minute`, `N/hour` or `N/day`; the empty text is no limit.
fn rate(value: &Value) -> Result<Option<(u32, Duration)>, Wrong> {
    let wrong = || format!("{value} is no rate; write one such as 10/second or 5/minute");
    let text = value.as_str().ok_or_else(wrong)?;
    if text.is_empty() {
        return Ok(None);
    }
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.parse().ok().filter(|n| (1..=9999).contains(n)).ok_or_else(wrong)?;
    Ok(Some((number, Duration::from_secs(seconds))))
}

/// A duration of a second at least.
fn interval(value: &Value) -> Result<Duration, Wrong> {
    let given = value.as_str().and_then(duration::parse);
    let wrong = || format!("{value} is no duration of a second or more, such as 15s");
    given.filter(|given| *given >= Duration::from_secs(1)).ok_or_else(wrong)
}

fn timeouts(value: &Value, mut timeouts: ConntrackTimeouts) -> Result<ConntrackTimeouts, Wrong> {
    let map = value.as_object().ok_or_else(|| format!("{value} is not a map of durations"))?;
    for (name, lifetime) in [
        ("creationGracePeriod", &mut timeouts.creation_grace_period),
        ("tcpSynSent", &mut timeouts.tcp_syn_sent),
        ("tcpEstablished", &mut timeouts.tcp_established),
        ("tcpResetSeen", &mut timeouts.tcp_reset_seen),
        ("udpTimeout", &mut timeouts.udp_timeout),
        ("genericTimeout", &mut timeouts.generic_timeout),
        ("icmpTimeout", &mut timeouts.icmp_timeout),
    ] {
        // Auto stands for the kernel's value, which is not known here.
        if let Some(given) = timeout(map, name)?.flatten() {
            *lifetime = given;
        }
    }
    if let Some(given) = timeout(map, "tcpFinsSeen")? {
        timeouts.tcp_fins_seen = given;
    }
    Ok(timeouts)
}

/// The lifetime of that name, if it is given; `None` inside for `Auto`.
fn timeout(map: &Map<String, Value>, name: &str) -> Result<Option<Option<Duration>>, Wrong> {
    let Some(value) = map.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_str() {
        Some("Auto") => Ok(Some(None)),
        text => match text.and_then(duration::parse) {
            Some(duration) => Ok(Some(Some(duration))),
            None => Err(format!("{name} is {value}; write a duration such as 60s, or Auto")),
        },
    }
}
