//! What ADD answers, in each version's shape.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use margay_cni_api::{CniError, Code};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::version::SpecVersion;

/// A success result ("Section 5: Result Types", Success).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CniResult {
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) ips: Vec<Ip>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) dns: Option<Value>,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    #[serde(default, rename = "socketPath", skip_serializing_if = "String::is_empty")]
    pub(crate) socket_path: String,
    #[serde(default, rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub(crate) pci_id: String,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ip {
    pub(crate) address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
    /// Index into the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<i32>,
}

/// A route of a result; the keys after `gw` are 1.1.0's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advmss: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<u8>,
}

/// Go writes an empty list as null.
fn null_is_empty<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

// === impl Route ===

impl Route {
    /// `default via <gateway>`.
    pub(crate) fn default_by(gateway: IpAddr) -> Self {
        let dst = match gateway {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        Self {
            dst,
            gw: Some(gateway),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

// === impl CniResult ===

impl CniResult {
    /// Reads a `prevResult` of any supported version; what a version adds is optional.
    pub(crate) fn parse(value: Value) -> Result<Self, CniError> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            CniError::new(
                Code::INVALID_CONFIG,
                format!("prevResult.{}: {}", error.path(), error.inner()),
                "the container runtime passes the result of an earlier plugin or of ADD",
            )
        })
    }

    /// The addresses of the interface called `name` within a sandbox, by the indices; those
    /// without an index belong to it as well.
    pub(crate) fn addresses_of(&self, name: &str) -> Vec<IpAddr> {
        let ours = |ip: &&Ip| {
            let Some(index) = ip.interface else { return true };
            usize::try_from(index)
                .ok()
                .and_then(|index| self.interfaces.get(index))
                .is_some_and(|interface| interface.name == name && !interface.sandbox.is_empty())
        };
        self.ips.iter().filter(ours).map(|ip| ip.address.addr()).collect()
    }

    /// The result in `version`'s shape.
    pub(crate) fn to_json(&self, version: SpecVersion) -> Value {
        let mut interfaces = self.interfaces.clone();
        let mut routes = self.routes.clone();
        if version < SpecVersion::V1_1_0 {
            for interface in &mut interfaces {
                *interface = Interface {
                    mtu: None,
                    socket_path: String::new(),
                    pci_id: String::new(),
                    ..std::mem::take(interface)
                };
            }
            for route in &mut routes {
                let Route { dst, gw, .. } = *route;
                *route = Route {
                    dst,
                    gw,
                    mtu: None,
                    advmss: None,
                    priority: None,
                    table: None,
                    scope: None,
                };
            }
        }
        let dns = self.dns.clone().filter(|dns| !dns.is_null()).unwrap_or_else(|| json!({}));
        let mut ips = json!(self.ips);
        // Up to 0.4.0 each address says its family.
        if version < SpecVersion::V1_0_0 {
            for (value, ip) in ips.as_array_mut().into_iter().flatten().zip(&self.ips) {
                value["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
        }
        let mut result = json!({ "cniVersion": version.as_str(), "ips": ips, "dns": dns });
        if !interfaces.is_empty() {
            result["interfaces"] = json!(interfaces);
        }
        if !routes.is_empty() {
            result["routes"] = json!(routes);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CniResult {
        CniResult {
            interfaces: vec![Interface {
                name: "eth0".into(),
                mac: "02:00:00:00:00:01".into(),
                mtu: Some(1450),
                sandbox: "/run/netns/x".into(),
                ..Interface::default()
            }],
            ips: vec![Ip {
                address: "10.0.0.5/32".parse().expect("a net"),
                gateway: None,
                interface: Some(0),
            }],
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().expect("a net"),
                gw: Some("169.254.1.1".parse().expect("an address")),
                mtu: Some(1450),
                advmss: None,
                priority: None,
                table: None,
                scope: None,
            }],
            dns: None,
        }
    }

    #[test]
    fn each_version_gets_its_own_keys() {
        let shape = |version| {
            let value = sample().to_json(version);
            (
                value["cniVersion"].as_str().map(str::to_owned),
                value["ips"][0]["version"].as_str().map(str::to_owned),
                value["interfaces"][0]["mtu"].as_u64(),
                value["routes"][0]["mtu"].as_u64(),
            )
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(shape(SpecVersion::V0_3_1), (some("0.3.1"), some("4"), None, None));
        assert_eq!(shape(SpecVersion::V0_4_0), (some("0.4.0"), some("4"), None, None));
        assert_eq!(shape(SpecVersion::V1_0_0), (some("1.0.0"), None, None, None));
        assert_eq!(shape(SpecVersion::V1_1_0), (some("1.1.0"), None, Some(1450), Some(1450)));
    }

    #[test]
    fn what_is_written_reads_back_in_every_version() {
        for version in crate::version::SUPPORTED {
            let read = CniResult::parse(sample().to_json(version)).expect("our own result");
            assert_eq!(read.ips, sample().ips, "{version}");
            assert_eq!(
                read.addresses_of("eth0"),
                ["10.0.0.5".parse::<IpAddr>().expect("an address")]
            );
        }
    }

    #[test]
    fn null_lists_of_go_programs_are_empty() {
        let read = CniResult::parse(json!({"interfaces": null, "ips": null, "routes": null}));
        assert_eq!(read.expect("a result").ips, []);
    }
}
