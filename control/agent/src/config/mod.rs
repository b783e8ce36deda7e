//! What the agent is told: as typed, then validated and immutable.
//!
//! - [`given`]: flags, environment and file, each as somebody typed it; unknown fields refused;
//! - [`node_ip`]: the addresses of the node;
//! - [`Config`]: what they come to, each value from the first of flag, environment, file, default.

mod given;

mod node_ip;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use margay_compile::{Connections, NodePorts};
use margay_datastore::{Url, UrlError};
use margay_protocol::DEFAULT_SOCKET;
use margay_protocol::socket::{UnixAddress, UnixAddressError, without_scheme};
use tonic::transport::Uri;

pub use crate::authz::{AuthzAddress, AuthzAddressError};
pub use crate::flowlog::Destinations;
pub use given::{ConfigFileError, Given};
pub use node_ip::{NodeAddresses, NodeIpError};

/// Where the plugins find the agent unless it is told otherwise.
pub const DEFAULT_CNI_SOCKET: &str = "/run/margay/agent.sock";
/// Where metrics and health are unless it is told otherwise: Calico's Felix port, on this host.
const DEFAULT_METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9091);

/// kube-proxy's word for the node's primary addresses.
const PRIMARY: &str = "primary";

/// Everything the agent has to know to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the node.
    pub node: Arc<str>,
    /// Where the objects are.
    pub datastore: Url,
    /// Where the dataplane is.
    pub dataplane: UnixAddress,
    /// The socket of the CNI plugins.
    pub socket: PathBuf,
    /// The node's addresses; empty leaves them to its Node object.
    pub addresses: NodeAddresses,
    /// Which addresses of the node answer on node ports.
    pub node_ports: NodePorts,
    /// How connections are treated.
    pub connections: Connections,
    /// Where metrics and health are served.
    pub metrics: SocketAddr,
    /// Where proxies are answered; nowhere if nothing is given.
    pub authz: Option<AuthzAddress>,
    /// Where flow logs go; nowhere if nothing is given.
    pub flow_logs: Destinations,
}

/// The configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// A value that has no default.
    #[error("{name} is missing: give --{name}, set {env} or write it into the --config file")]
    Missing {
        /// Its flag.
        name: &'static str,
        /// Its variable.
        env: &'static str,
    },
    /// The node's name.
    #[error("--node {0:?}: a node's name has lower-case letters, digits, '-' and '.' only")]
    Node(String),
    /// The datastore.
    #[error("--datastore: {0}")]
    Datastore(#[from] UrlError),
    /// The dataplane.
    #[error("--dataplane: {0}")]
    Dataplane(#[from] UnixAddressError),
    /// The node's addresses.
    #[error("--node-ip: {0}")]
    NodeIp(#[from] NodeIpError),
    /// The networks of node ports.
    #[error(
        "--nodeport-addresses {0:?}: write {PRIMARY}, or networks separated by commas, as in \
         192.0.2.0/24,2001:db8::/64"
    )]
    NodePortAddresses(String),
    /// The metrics' address.
    #[error("--metrics {0:?}: write ADDRESS:PORT, as in 0.0.0.0:9091 or [::]:9091")]
    Metrics(String),
    /// Where proxies ask.
    #[error("--authz: {0}")]
    Authz(#[from] AuthzAddressError),
    /// The collector of flow logs.
    #[error(
        "--flow-logs-otlp {0:?}: write http://HOST:PORT of a collector that takes OTLP by gRPC"
    )]
    Collector(String),
}

// === impl Config ===

impl Config {
    /// Validates what was given.
    pub fn resolve(given: Given) -> Result<Self, ConfigError> {
        let given = given.with_file()?;
        let node = needed(given.node, "node", "MARGAY_NODE")?;
        if !is_node_name(&node) {
            return Err(ConfigError::Node(node));
        }
        let metrics = match given.metrics {
            Some(text) => text.parse().map_err(|_| ConfigError::Metrics(text))?,
            None => DEFAULT_METRICS,
        };
        let dataplane = given.dataplane.as_deref().unwrap_or(DEFAULT_SOCKET);
        Ok(Self {
            node: node.into(),
            datastore: needed(given.datastore, "datastore", "MARGAY_DATASTORE")?.parse()?,
            dataplane: dataplane.parse()?,
            socket: given.socket.map_or_else(|| DEFAULT_CNI_SOCKET.into(), without_scheme),
            node_ports: node_ports(given.nodeport_addresses)?,
            connections: Connections {
                outlive_policies: given.connections_outlive_policies.unwrap_or_default(),
                tcp_strict: given.tcp_strict.unwrap_or_default(),
                clamp_mss: given.clamp_mss.unwrap_or_default(),
                masquerade_all: given.masquerade_all.unwrap_or_default(),
                keep_source_ports: given.keep_source_ports.unwrap_or_default(),
                icmp_errors_per_second: given.icmp_errors_per_second,
            },
            addresses: given.node_ip.map(|text| text.parse()).transpose()?.unwrap_or_default(),
            metrics,
            authz: given.authz.map(|text| text.parse()).transpose()?,
            flow_logs: Destinations {
                file: given.flow_logs,
                collector: given.flow_logs_otlp.map(collector).transpose()?,
            },
        })
    }
}

/// A collector without TLS: it is on this node, or behind something that encrypts.
fn collector(text: String) -> Result<Uri, ConfigError> {
    let uri = text.parse::<Uri>().ok();
    let good = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
    uri.filter(good).ok_or(ConfigError::Collector(text))
}

/// Networks, or addresses for themselves alone.
fn node_ports(text: Option<String>) -> Result<NodePorts, ConfigError> {
    let network = |text: &str| {
        let alone = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().map(|net| net.trunc()).or_else(|_| alone()).ok()
    };
    let Some(text) = text else { return Ok(NodePorts::All) };
    if text == PRIMARY {
        return Ok(NodePorts::Primary);
    }
    let all = text.split(',').map(|part| network(part.trim()));
    let all = all.collect::<Option<_>>().ok_or(ConfigError::NodePortAddresses(text))?;
    Ok(NodePorts::Of(all))
}

fn needed(
    value: Option<String>,
    name: &'static str,
    env: &'static str,
) -> Result<String, ConfigError> {
    value.ok_or(ConfigError::Missing { name, env })
}

/// A DNS subdomain (RFC 1123), as Kubernetes asks of a node's name.
fn is_node_name(name: &str) -> bool {
    let good_part = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(good_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(node: &str) -> Given {
        Given {
            node: Some(node.into()),
            datastore: Some("dir:/etc/margay".into()),
            ..Given::default()
        }
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let config = Config::resolve(given("node-a.example")).unwrap();
        assert_eq!(config.dataplane.to_string(), "unix:/run/margay/margayd.sock");
        assert_eq!(config.socket, PathBuf::from("/run/margay/agent.sock"));
        assert_eq!(config.metrics.to_string(), "127.0.0.1:9091");
        assert_eq!(config.addresses, NodeAddresses::default());
        assert_eq!(config.authz, None);
        assert_eq!(config.connections, Connections::default());
    }

    #[test]
    fn how_connections_are_treated_is_told_by_flags() {
        let of = |given| Config::resolve(given).unwrap().connections;
        let strict = of(Given { tcp_strict: Some(true), clamp_mss: Some(false), ..given("a") });
        assert!(strict.tcp_strict && !strict.clamp_mss && !strict.outlive_policies);
        let told =
            Given { keep_source_ports: Some(true), icmp_errors_per_second: Some(7), ..given("a") };
        let told = of(told);
        assert!(told.keep_source_ports && told.icmp_errors_per_second == Some(7));
    }

    #[test]
    fn a_missing_value_names_its_flag_and_its_variable() {
        let error = Config::resolve(Given::default()).unwrap_err().to_string();
        assert!(error.contains("--node") && error.contains("MARGAY_NODE"), "{error}");
    }

    #[test]
    fn node_ports_may_be_narrowed_to_networks_and_addresses() {
        let some = Some("192.0.2.7/24, 2001:db8::1".into());
        let config = Config::resolve(Given { nodeport_addresses: some, ..given("a") }).unwrap();
        let NodePorts::Of(networks) = config.node_ports else { panic!("{:?}", config.node_ports) };
        let text: Vec<_> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["192.0.2.0/24", "2001:db8::1/128"]);
        let primary = Given { nodeport_addresses: Some("primary".into()), ..given("a") };
        assert_eq!(Config::resolve(primary).unwrap().node_ports, NodePorts::Primary);
    }

    #[test]
    fn a_name_that_kubernetes_would_refuse_is_refused() {
        for bad in ["", "Node", "a_b", "-a", "a-", "a..b", "a/b", &"a".repeat(254)] {
            assert!(matches!(Config::resolve(given(bad)), Err(ConfigError::Node(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_value_names_its_flag() {
        let bad = Given { metrics: Some("9091".into()), ..given("a") };
        assert!(Config::resolve(bad).unwrap_err().to_string().starts_with("--metrics \"9091\""));
        let bad = Given { node_ip: Some("10.0.0.1/33".into()), ..given("a") };
        assert!(Config::resolve(bad).unwrap_err().to_string().starts_with("--node-ip: "));
        let bad = Given { nodeport_addresses: Some("10.0.0.0/8,x".into()), ..given("a") };
        assert!(Config::resolve(bad).unwrap_err().to_string().starts_with("--nodeport-addresses "));
        for text in ["127.0.0.1:4317", "https://a:1", "http://"] {
            let bad = Given { flow_logs_otlp: Some(text.into()), ..given("a") };
            let error = Config::resolve(bad).unwrap_err().to_string();
            assert!(error.starts_with("--flow-logs-otlp "), "{error}");
        }
        let bad = Given { dataplane: Some("tcp:1".into()), ..given("a") };
        assert!(Config::resolve(bad).unwrap_err().to_string().starts_with("--dataplane: "));
        let bad = Given { authz: Some("9191".into()), ..given("a") };
        assert!(Config::resolve(bad).unwrap_err().to_string().starts_with("--authz: "));
        let bad = Given { datastore: Some("zookeeper:1".into()), ..given("a") };
        assert!(Config::resolve(bad).unwrap_err().to_string().starts_with("--datastore: "));
    }

    #[test]
    fn the_file_gives_what_flags_and_environment_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "node = \"from-file\"\nnode-ip = \"10.0.0.1/24,fd00::1/64\"\n")
            .unwrap();
        let config = Config::resolve(Given { config: Some(path.clone()), ..given("from-flag") });
        let config = config.unwrap();
        assert_eq!(&*config.node, "from-flag");
        assert_eq!(config.addresses.v4, Some(("10.0.0.1".parse().unwrap(), 24)));

        std::fs::write(&path, "node = \"a\"\nnodeip = \"10.0.0.1\"\n").unwrap();
        let error = Config::resolve(Given { config: Some(path), ..given("a") }).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("agent.toml") && error.contains("nodeip"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }
}
