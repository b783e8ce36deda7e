//! The network configuration as typed. Unknown keys are ignored, as the specification wants it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use margay_cni_api::{AttachmentRef, Bandwidth, HostPort};
use margay_model::Mac;
use serde::Deserialize;
use serde_json::Value;

use crate::fields;

#[derive(Debug, Deserialize)]
pub(super) struct NetConf {
    #[serde(default)]
    pub(super) name: String,
    #[serde(rename = "agentSocket")]
    pub(super) agent_socket: Option<String>,
    #[serde(default, deserialize_with = "fields::number")]
    pub(super) mtu: Option<u32>,
    pub(super) ipam: Option<Ipam>,
    pub(super) container_settings: Option<ContainerSettings>,
    pub(super) feature_control: Option<FeatureControl>,
    #[serde(default, deserialize_with = "fields::number")]
    pub(super) policy_setup_timeout_seconds: Option<u32>,
    pub(super) log_level: Option<String>,
    pub(super) log_file_path: Option<PathBuf>,
    pub(super) args: Option<Args>,
    #[serde(rename = "runtimeConfig")]
    pub(super) runtime_config: Option<Wishes>,
    #[serde(rename = "prevResult")]
    pub(super) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Vec<AttachmentRef>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ipam {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "fields::flag")]
    pub(super) assign_ipv4: Option<bool>,
    #[serde(default, deserialize_with = "fields::flag")]
    pub(super) assign_ipv6: Option<bool>,
    pub(super) ipv4_pools: Option<Vec<String>>,
    pub(super) ipv6_pools: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ContainerSettings {
    #[serde(default, deserialize_with = "fields::flag")]
    pub(super) allow_ip_forwarding: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct FeatureControl {
    #[serde(default, deserialize_with = "fields::flag")]
    pub(super) ip_addrs_no_ipam: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Args {
    #[serde(default)]
    pub(super) cni: Wishes,
}

/// What a runtime may wish for (CNI's CONVENTIONS.md, "ips", "mac", "portMappings" and
/// "bandwidth").
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wishes {
    ips: Option<Vec<String>>,
    mac: Option<String>,
    #[serde(rename = "portMappings")]
    port_mappings: Option<Vec<PortMapping>>,
    bandwidth: Option<Rates>,
}

/// A port of the node for a port of the container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    #[serde(default)]
    host_port: u16,
    container_port: u16,
    /// None means TCP.
    protocol: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

/// Bits a second, and bits at once. Keys as containerd writes them, or as the convention has them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rates {
    #[serde(alias = "IngressRate")]
    ingress_rate: u64,
    #[serde(alias = "IngressBurst")]
    ingress_burst: u64,
    #[serde(alias = "EgressRate")]
    egress_rate: u64,
    #[serde(alias = "EgressBurst")]
    egress_burst: u64,
}

// === impl Wishes ===

impl Wishes {
    /// Both lists of wishes; of two Ethernet addresses the other's.
    pub(super) fn merge(self, other: Self) -> Self {
        let ips = [self.ips, other.ips].into_iter().flatten().flatten().collect();
        let port_mappings = other.port_mappings.or(self.port_mappings);
        let bandwidth = other.bandwidth.or(self.bandwidth);
        Self { ips: Some(ips), mac: other.mac.or(self.mac), port_mappings, bandwidth }
    }

    /// The addresses, each once; a prefix length is taken off.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let mut addresses = Vec::new();
        for text in self.ips.iter().flatten() {
            let address = text
                .parse::<IpAddr>()
                .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()))
                .map_err(|_| format!("ips: {text:?} is no address"))?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// The Ethernet address.
    pub(super) fn mac(&self) -> Result<Option<Mac>, String> {
        let text = self.mac.as_deref().filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|error| format!("mac: {text:?}: {error}"))).transpose()
    }

    /// The ports of the node. As with CNI's own portmap, a mapping without one is none.
    pub(super) fn host_ports(&self) -> Result<Vec<HostPort>, String> {
        let mappings = self.port_mappings.iter().flatten().enumerate();
        let mappings = mappings.filter(|(_, mapping)| mapping.host_port != 0);
        mappings
            .map(|(at, mapping)| {
                mapping.host_port().map_err(|e| format!("runtimeConfig.portMappings[{at}].{e}"))
            })
            .collect()
    }

    /// What the container may use of the network. A burst without a rate is no limit.
    pub(super) fn bandwidth(&self) -> Bandwidth {
        let burst = |rate: u64, burst: u64| if rate == 0 { 0 } else { burst };
        let rates = self.bandwidth.as_ref();
        rates.map_or_else(Bandwidth::default, |rates| Bandwidth {
            ingress_rate: rates.ingress_rate,
            ingress_burst: burst(rates.ingress_rate, rates.ingress_burst),
            egress_rate: rates.egress_rate,
            egress_burst: burst(rates.egress_rate, rates.egress_burst),
        })
    }
}

// === impl PortMapping ===

impl PortMapping {
    fn host_port(&self) -> Result<HostPort, String> {
        let name = self.protocol.as_deref().unwrap_or("tcp");
        let protocol = match name.to_ascii_lowercase().as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => return Err(format!("protocol: {name:?} is none of tcp, udp and sctp")),
        };
        if self.container_port == 0 {
            return Err("containerPort: 0 is not a port".to_owned());
        }
        let text = self.host_ip.as_deref().filter(|text| !text.is_empty());
        let host_ip = text.map(|text| {
            text.parse::<IpAddr>().map_err(|_| format!("hostIP: {text:?} is no address"))
        });
        let host_ip = host_ip.transpose()?.filter(|address| !address.is_unspecified());
        Ok(HostPort { protocol, host_port: self.host_port, host_ip, port: self.container_port })
    }
}
