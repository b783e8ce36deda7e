//! What the network configuration says: first as typed, then checked and immutable.
//!
//! Calico's keys are read where they mean something here; the others (`kubernetes`, `policy`,
//! `datastore_type`, `nodename`, `nodename_file`, …) are the agent's business and ignored.

mod raw;

use std::net::IpAddr;
use std::path::PathBuf;

use margay_cni_api::{
    AttachmentRef, Bandwidth, Client, CniError, Code, DEFAULT_SOCKET, Families, HostPort,
};
use margay_model::Mac;
use serde_json::Value;

use crate::environment::is_identifier;
use crate::result::CniResult;
use crate::version::SpecVersion;

/// A checked network configuration.
#[derive(Clone, Debug)]
pub(crate) struct NetConf {
    pub(crate) version: SpecVersion,
    /// `name`.
    pub(crate) name: String,
    /// `agentSocket`.
    pub(crate) agent_socket: PathBuf,
    /// `mtu`; 0 leaves it to the agent.
    pub(crate) mtu: u32,
    /// `ipam`.
    pub(crate) ipam: Ipam,
    /// `container_settings.allow_ip_forwarding`.
    pub(crate) allow_ip_forwarding: bool,
    /// `feature_control.ip_addrs_no_ipam`.
    pub(crate) allow_ip_addrs_no_ipam: bool,
    /// `policy_setup_timeout_seconds`; 0 leaves it to the agent.
    pub(crate) policy_timeout_s: u32,
    /// Addresses that the runtime asks for: `args.cni.ips` and `runtimeConfig.ips`.
    pub(crate) ips: Vec<IpAddr>,
    /// The Ethernet address that the runtime asks for: `args.cni.mac` or `runtimeConfig.mac`.
    pub(crate) mac: Option<Mac>,
    /// The node's ports that the runtime asks for: `runtimeConfig.portMappings`.
    pub(crate) host_ports: Vec<HostPort>,
    /// What the pod may use of the network: `runtimeConfig.bandwidth`.
    pub(crate) bandwidth: Bandwidth,
    /// `log_level`, `log_file_path`.
    pub(crate) log: Log,
    /// `prevResult`.
    pub(crate) prev_result: Option<CniResult>,
    /// `cni.dev/valid-attachments`; a GC without it (libcni leaves an empty list out) finds
    /// nothing valid.
    pub(crate) valid_attachments: Vec<AttachmentRef>,
    /// The whole configuration as it came, for the IPAM plugin.
    pub(crate) raw: Value,
}

/// `ipam`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ipam {
    /// `type`.
    pub(crate) kind: String,
    /// `assign_ipv4` (default true) and `assign_ipv6` (default false).
    pub(crate) families: Families,
    /// `ipv4_pools`.
    pub(crate) ipv4_pools: Vec<String>,
    /// `ipv6_pools`.
    pub(crate) ipv6_pools: Vec<String>,
}

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// `log_level`.
    pub(crate) level: Option<tracing::Level>,
    /// `log_file_path`; none means standard error.
    pub(crate) file: Option<PathBuf>,
}

/// Smallest MTU that IPv4 can live with (RFC 791), and largest that a veth takes.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65535;

// === impl NetConf ===

impl NetConf {
    /// Checks a configuration; the version first, since it decides the shape of the rest.
    ///
    /// # Errors
    /// [`Code::INCOMPATIBLE_VERSION`] or [`Code::INVALID_CONFIG`], naming the key and the value.
    pub(crate) fn parse(raw: Value) -> Result<Self, CniError> {
        let version = version(&raw)?;
        let conf: raw::NetConf = serde_path_to_error::deserialize(&raw)
            .map_err(|error| invalid(format!("{}: {}", error.path(), error.inner())))?;
        if !is_identifier(&conf.name) {
            return Err(invalid(format!(
                "name: {:?} is not letters, digits, '_', '.' and '-' after a letter or digit",
                conf.name
            )));
        }
        let mtu = conf.mtu.unwrap_or_default();
        if mtu != 0 && !MTU_RANGE.contains(&mtu) {
            return Err(invalid(format!("mtu: {mtu} is neither 0 nor within {MTU_RANGE:?}")));
        }
        let prev_result = conf.prev_result.map(CniResult::parse).transpose()?;
        let runtime =
            conf.args.unwrap_or_default().cni.merge(conf.runtime_config.unwrap_or_default());
        Ok(Self {
            version,
            name: conf.name,
            agent_socket: socket(conf.agent_socket.as_deref())?,
            mtu,
            ipam: ipam(conf.ipam)?,
            allow_ip_forwarding: conf
                .container_settings
                .unwrap_or_default()
                .allow_ip_forwarding
                .unwrap_or(false),
            allow_ip_addrs_no_ipam: conf
                .feature_control
                .unwrap_or_default()
                .ip_addrs_no_ipam
                .unwrap_or(false),
            policy_timeout_s: conf.policy_setup_timeout_seconds.unwrap_or_default(),
            ips: runtime.addresses().map_err(invalid)?,
            mac: runtime.mac().map_err(invalid)?,
            host_ports: runtime.host_ports().map_err(invalid)?,
            bandwidth: runtime.bandwidth(),
            log: log(conf.log_level.as_deref(), conf.log_file_path)?,
            prev_result,
            valid_attachments: conf.valid_attachments.unwrap_or_default(),
            raw,
        })
    }

    /// A client of the node's agent.
    pub(crate) fn agent(&self) -> Client {
        Client::new(&self.agent_socket)
    }

    /// `prevResult`, which CHECK cannot do without.
    pub(crate) fn demand_prev_result(&self) -> Result<&CniResult, CniError> {
        self.prev_result
            .as_ref()
            .ok_or_else(|| invalid("prevResult: missing; CHECK compares with it"))
    }
}

fn invalid(msg: impl Into<String>) -> CniError {
    CniError::new(
        Code::INVALID_CONFIG,
        msg,
        "correct the key in the network configuration (the runtime's CNI folder, /etc/cni/net.d)",
    )
}

fn version(raw: &Value) -> Result<SpecVersion, CniError> {
    let text = match raw.get("cniVersion") {
        Some(Value::String(text)) => text.as_str(),
        Some(other) => return Err(invalid(format!("cniVersion: {other} is no string"))),
        // As the specification reads a configuration that does not say.
        None => "0.1.0",
    };
    SpecVersion::find(text).ok_or_else(|| {
        let supported = crate::version::SUPPORTED.map(SpecVersion::as_str).join(", ");
        CniError::new(
            Code::INCOMPATIBLE_VERSION,
            format!("cniVersion {text:?} is not supported"),
            format!("set \"cniVersion\" of the network configuration to one of {supported}"),
        )
    })
}

fn socket(text: Option<&str>) -> Result<PathBuf, CniError> {
    let path = PathBuf::from(
        text.map_or(DEFAULT_SOCKET, |text| text.strip_prefix("unix:").unwrap_or(text)),
    );
    if path.is_absolute() {
        return Ok(path);
    }
    Err(invalid(format!("agentSocket: {:?} is no absolute path", path.display())))
}

fn ipam(conf: Option<raw::Ipam>) -> Result<Ipam, CniError> {
    let conf = conf.ok_or_else(|| {
        invalid("ipam: missing; {\"type\":\"margay-ipam\"} lets Margay assign addresses")
    })?;
    let kind = conf.kind.filter(|kind| !kind.is_empty()).ok_or_else(|| {
        invalid("ipam.type: missing; \"margay-ipam\" lets Margay assign addresses")
    })?;
    if kind.contains('/') {
        return Err(invalid(format!("ipam.type: {kind:?} is a path, not a plugin's name")));
    }
    let families = Families {
        ipv4: conf.assign_ipv4.unwrap_or(true),
        ipv6: conf.assign_ipv6.unwrap_or(false),
    };
    if !families.ipv4 && !families.ipv6 {
        return Err(invalid(
            "ipam.assign_ipv4, ipam.assign_ipv6: both are false, one must be true",
        ));
    }
    Ok(Ipam {
        kind,
        families,
        ipv4_pools: conf.ipv4_pools.unwrap_or_default(),
        ipv6_pools: conf.ipv6_pools.unwrap_or_default(),
    })
}

/// Levels by Calico's names (logrus') and by ours.
fn log(level: Option<&str>, file: Option<PathBuf>) -> Result<Log, CniError> {
    let file = file.filter(|path| !path.as_os_str().is_empty());
    let level = match level.unwrap_or_default().to_ascii_lowercase().as_str() {
        "trace" => Some(tracing::Level::TRACE),
        "debug" => Some(tracing::Level::DEBUG),
        "" | "info" => Some(tracing::Level::INFO),
        "warning" | "warn" => Some(tracing::Level::WARN),
        "error" | "fatal" | "panic" => Some(tracing::Level::ERROR),
        "none" | "off" => None,
        other => {
            return Err(invalid(format!(
                "log_level: {other:?} is none of debug, info, warning, error and none"
            )));
        }
    };
    Ok(Log { level, file })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conf(change: impl FnOnce(&mut Value)) -> Result<NetConf, CniError> {
        let mut raw = json!({
            "cniVersion": "1.1.0", "name": "margay", "type": "margay-cni",
            "agentSocket": "/run/margay/agent.sock", "mtu": 0, "ipam": {"type": "margay-ipam"},
        });
        change(&mut raw);
        NetConf::parse(raw)
    }

    #[test]
    fn the_contracts_configuration_is_good() {
        let conf = conf(|_| ()).expect("as the contract has it");
        assert_eq!(conf.ipam.families, Families { ipv4: true, ipv6: false });
        assert_eq!(conf.mtu, 0);
    }

    #[test]
    fn calicos_configuration_is_good_and_its_strings_count() {
        let raw = json!({
            "cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "calico",
            "log_level": "Info", "log_file_path": "/var/log/calico/cni/cni.log",
            "log_file_max_size": 100, "datastore_type": "kubernetes", "nodename": "n1",
            "nodename_file": "/var/lib/calico/nodename", "mtu": "1450", "num_queues": 1,
            "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "TRUE",
                     "ipv4_pools": ["10.0.0.0/24", "default-ipv4-ippool"], "ipv6_pools": null},
            "container_settings": {"allow_ip_forwarding": "true"},
            "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
            "feature_control": {"ip_addrs_no_ipam": true, "floating_ips": false},
            "args": {"cni": {"ips": ["10.0.0.9"]}},
        });
        let conf = NetConf::parse(raw).expect("as Calico's manifest has it");
        assert_eq!(conf.mtu, 1450);
        assert_eq!(conf.ipam.families, Families { ipv4: true, ipv6: true });
        assert_eq!(conf.ipam.ipv4_pools, ["10.0.0.0/24", "default-ipv4-ippool"]);
        assert!(conf.allow_ip_forwarding && conf.allow_ip_addrs_no_ipam);
        assert_eq!(conf.ips, ["10.0.0.9".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn a_bad_key_is_named() {
        type Change = fn(&mut Value);
        let cases: &[(&str, Change)] = &[
            ("name", |c| c["name"] = json!("../etc")),
            ("name", |c| drop(c.as_object_mut().map(|c| c.remove("name")))),
            ("mtu", |c| c["mtu"] = json!("large")),
            ("mtu", |c| c["mtu"] = json!(-1)),
            ("mtu", |c| c["mtu"] = json!(70000)),
            ("agentSocket", |c| c["agentSocket"] = json!("agent.sock")),
            ("ipam", |c| drop(c.as_object_mut().map(|c| c.remove("ipam")))),
            ("ipam.type", |c| c["ipam"] = json!({})),
            ("ipam.type", |c| c["ipam"]["type"] = json!("../../bin/sh")),
            ("ipam.assign_ipv4", |c| c["ipam"]["assign_ipv4"] = json!("perhaps")),
            ("ipam.assign_ipv4", |c| c["ipam"]["assign_ipv4"] = json!(false)),
            ("ipam.ipv4_pools", |c| c["ipam"]["ipv4_pools"] = json!("10.0.0.0/8")),
            ("container_settings.allow_ip_forwarding", |c| {
                c["container_settings"] = json!({"allow_ip_forwarding": 3});
            }),
            ("log_level", |c| c["log_level"] = json!("loud")),
            ("prevResult.ips[0].address", |c| {
                c["prevResult"] = json!({"ips": [{"address": "10.0.0.300/32"}]});
            }),
            ("ips", |c| c["runtimeConfig"] = json!({"ips": ["somewhere"]})),
            ("runtimeConfig.portMappings[0].hostPort", |c| {
                let mapping = json!({"hostPort": 70_000, "containerPort": 80});
                c["runtimeConfig"] = json!({"portMappings": [mapping]});
            }),
            ("runtimeConfig.portMappings[1].protocol", |c| {
                let none = json!({"hostPort": 0, "containerPort": 80, "protocol": "icmp"});
                let mapping = json!({"hostPort": 1, "containerPort": 80, "protocol": "icmp"});
                c["runtimeConfig"] = json!({"portMappings": [none, mapping]});
            }),
            ("runtimeConfig.bandwidth.IngressRate", |c| {
                c["runtimeConfig"] = json!({"bandwidth": {"IngressRate": -1}});
            }),
            ("runtimeConfig.portMappings[0].hostIP", |c| {
                let mapping = json!({"hostPort": 1, "containerPort": 80, "hostIP": "node"});
                c["runtimeConfig"] = json!({"portMappings": [mapping]});
            }),
        ];
        for (key, change) in cases {
            let error = conf(change).expect_err(key);
            assert_eq!(error.code, Code::INVALID_CONFIG, "{key}: {error}");
            assert!(error.msg.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn ports_of_the_node_are_read_as_cnis_own_portmap_reads_them() {
        let conf = conf(|c| {
            c["runtimeConfig"] = json!({"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "0.0.0.0"},
                {"hostPort": 9, "containerPort": 9, "protocol": "sctp", "hostIP": "fd00::1"},
                {"hostPort": 0, "containerPort": 7},
            ]});
        })
        .unwrap();
        let ports = [
            (6, 8080, None, 80),
            (17, 53, None, 5353),
            (132, 9, Some("fd00::1".parse().unwrap()), 9),
        ]
        .map(|(protocol, host_port, host_ip, port)| HostPort {
            protocol,
            host_port,
            host_ip,
            port,
        });
        assert_eq!(conf.host_ports, ports);
    }

    #[test]
    fn bandwidths_are_read_in_either_spelling_and_no_rate_is_no_limit() {
        let read = |bandwidth: Value| {
            conf(|c| c["runtimeConfig"] = json!({"bandwidth": bandwidth})).unwrap().bandwidth
        };
        let expected = Bandwidth {
            ingress_rate: 10_000_000,
            ingress_burst: 4_294_967_295,
            egress_rate: 0,
            egress_burst: 0,
        };
        let (rate, burst) = (10_000_000, 4_294_967_295u64);
        for bandwidth in [
            json!({"ingressRate": rate, "ingressBurst": burst}),
            json!({"IngressRate": rate, "IngressBurst": burst, "EgressRate": 0, "EgressBurst": burst}),
        ] {
            assert_eq!(read(bandwidth), expected);
        }
        assert_eq!(conf(|_| ()).unwrap().bandwidth, Bandwidth::default());
    }

    #[test]
    fn an_unsupported_version_is_code_1_and_lists_the_supported() {
        for version in [json!("0.2.0"), json!("2.0.0"), json!("")] {
            let error = conf(|c| c["cniVersion"] = version).expect_err("unsupported");
            assert_eq!(error.code, Code::INCOMPATIBLE_VERSION);
            assert!(error.details.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{error}");
        }
        let error = conf(|c| drop(c.as_object_mut().map(|c| c.remove("cniVersion"))));
        assert_eq!(error.expect_err("0.1.0").code, Code::INCOMPATIBLE_VERSION);
    }
}
