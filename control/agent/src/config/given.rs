//! Flags, environment and file, each as somebody typed it.

use std::path::PathBuf;

use clap::Parser;
use serde::Deserialize;

/// The Margay control plane of one node: reads the datastore, tells the dataplane, answers the
/// CNI plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser, Deserialize)]
#[command(name = "margay-agent", version, max_term_width = 100)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Given {
    /// Name of this node, as its Node object has it.
    #[arg(long, env = "MARGAY_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Where the objects are: dir:PATH is a directory of YAML documents.
    #[arg(long, env = "MARGAY_DATASTORE", value_name = "URL")]
    pub datastore: Option<String>,
    /// Socket of the dataplane [default: unix:/run/margay/margayd.sock].
    #[arg(long, env = "MARGAY_DATAPLANE", value_name = "unix:PATH")]
    pub dataplane: Option<String>,
    /// Socket on which the CNI plugins are answered [default: /run/margay/agent.sock].
    #[arg(long, env = "MARGAY_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The node's addresses with the lengths of their subnets; a length left out means a subnet of
    /// its own. None given: those of the Node object.
    #[arg(long, env = "MARGAY_NODE_IP", value_name = "A.B.C.D[/len][,IPv6[/len]]")]
    pub node_ip: Option<String>,
    /// Networks whose addresses of the node answer on services' node ports, separated by commas, or
    /// `primary`: the addresses of its Node object [default: all addresses of the node].
    #[arg(long, env = "MARGAY_NODEPORT_ADDRESSES", value_name = "CIDR,...|primary")]
    pub nodeport_addresses: Option<String>,
    /// Whether connections that are there go on although policies forbid them by now [default: false].
    #[arg(long, env = "MARGAY_CONNECTIONS_OUTLIVE_POLICIES", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub connections_outlive_policies: Option<bool>,
    /// Whether TCP connections whose SYN was not seen are refused [default: false: they are picked
    /// up].
    #[arg(long, env = "MARGAY_TCP_STRICT", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub tcp_strict: Option<bool>,
    /// Whether TCP's maximum segment size is lowered to what fits the packets' way, for networks
    /// that lose the ICMP messages about it [default: false].
    #[arg(long, env = "MARGAY_CLAMP_MSS", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub clamp_mss: Option<bool>,
    /// Whether connections of pods to cluster addresses of services are masqueraded, as kube-proxy's
    /// flag of this name does [default: false: backends see the pods].
    #[arg(long, env = "MARGAY_MASQUERADE_ALL", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub masquerade_all: Option<bool>,
    /// Whether masqueraded connections keep their source ports where these lie in `natPortRange` and
    /// are free [default: false: ports are chosen at random].
    #[arg(long, env = "MARGAY_KEEP_SOURCE_PORTS", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub keep_source_ports: Option<bool>,
    /// ICMP errors a second that the packets of one interface may cause, at most [default: 100].
    #[arg(long, env = "MARGAY_ICMP_ERRORS_PER_SECOND", value_name = "N")]
    pub icmp_errors_per_second: Option<u32>,
    /// Where /metrics, /liveness and /readiness are served [default: 127.0.0.1:9091].
    #[arg(long, env = "MARGAY_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<String>,
    /// Where proxies ask by Envoy's ext_authz whether a request may pass: unix:PATH, a socket that
    /// all may open who see its folder, or an address [default: nowhere].
    #[arg(long, env = "MARGAY_AUTHZ", value_name = "unix:PATH|ADDR:PORT")]
    pub authz: Option<String>,
    /// File that flow logs are written to, as JSON lines; full ones get a number behind their name
    /// [default: none].
    #[arg(long, env = "MARGAY_FLOW_LOGS", value_name = "FILE")]
    pub flow_logs: Option<PathBuf>,
    /// Collector that flow logs are sent to, by OTLP over gRPC, as in http://127.0.0.1:4317
    /// [default: none].
    #[arg(long, env = "MARGAY_FLOW_LOGS_OTLP", value_name = "URL")]
    pub flow_logs_otlp: Option<String>,
    /// What to log: error, warn, info, debug, trace, or a filter as RUST_LOG takes it
    /// [default: RUST_LOG, else info].
    #[arg(long, env = "MARGAY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// A TOML file with any of these by the names of their flags; flags and environment go first.
    #[arg(long, env = "MARGAY_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// The file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("--config {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no TOML, has an unknown field or a value of a wrong type.
    #[error("--config {}: {source}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

// === impl Given ===

impl Given {
    /// Fills what is missing from the file, if there is one.
    pub fn with_file(self) -> Result<Self, ConfigFileError> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigFileError::Read { path, source }),
        };
        let file: Self = toml::from_str(&text)
            .map_err(|source| ConfigFileError::Parse { path, source: source.into() })?;
        Ok(Self {
            node: self.node.or(file.node),
            datastore: self.datastore.or(file.datastore),
            dataplane: self.dataplane.or(file.dataplane),
            socket: self.socket.or(file.socket),
            node_ip: self.node_ip.or(file.node_ip),
            nodeport_addresses: self.nodeport_addresses.or(file.nodeport_addresses),
            connections_outlive_policies: self
                .connections_outlive_policies
                .or(file.connections_outlive_policies),
            tcp_strict: self.tcp_strict.or(file.tcp_strict),
            clamp_mss: self.clamp_mss.or(file.clamp_mss),
            masquerade_all: self.masquerade_all.or(file.masquerade_all),
            keep_source_ports: self.keep_source_ports.or(file.keep_source_ports),
            icmp_errors_per_second: self.icmp_errors_per_second.or(file.icmp_errors_per_second),
            metrics: self.metrics.or(file.metrics),
            authz: self.authz.or(file.authz),
            flow_logs: self.flow_logs.or(file.flow_logs),
            flow_logs_otlp: self.flow_logs_otlp.or(file.flow_logs_otlp),
            log: self.log.or(file.log),
            // What was read once needs no second reading.
            config: None,
        })
    }
}
