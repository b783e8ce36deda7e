//! The network configuration as typed. Unknown keys are ignored, as the specification wants it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use margay_cni_api::AttachmentRef;
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

/// What a runtime may wish for (CNI's CONVENTIONS.md, "ips" and "mac").
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wishes {
    ips: Option<Vec<String>>,
    mac: Option<String>,
}

// === impl Wishes ===

impl Wishes {
    /// Both lists of wishes; of two Ethernet addresses the other's.
    pub(super) fn merge(self, other: Self) -> Self {
        let ips = [self.ips, other.ips].into_iter().flatten().flatten().collect();
        Self { ips: Some(ips), mac: other.mac.or(self.mac) }
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
}
