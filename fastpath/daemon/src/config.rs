//! Configuration: as typed (flags, then the file below them), then checked, then immutable.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use margay_protocol::socket::without_scheme;
use serde::Deserialize;

use crate::tuning::{self, Setting};

/// The Margay dataplane: forwards the packets of this node's pods in user space.
///
/// Runs in the node's network namespace, as root. It keeps forwarding with its last state when the
/// agent is away; SIGTERM leaves the node's own connectivity as it was.
#[derive(Debug, Default, Parser)]
#[command(name = "margayd", version)]
pub struct Flags {
    /// Configuration file (TOML); flags override it
    #[arg(long, value_name = "FILE", env = "MARGAYD_CONFIG")]
    config: Option<PathBuf>,
    /// Name of this node, for logs and status
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Interfaces to the world outside
    #[arg(long, value_name = "IF[,IF]", value_delimiter = ',')]
    uplink: Vec<String>,
    /// Worker threads
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Cores that workers are pinned to, in order: 2,3 or 2-5
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// Socket for the agent and margayctl
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where flows and the last state are kept
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How packets get in: best first, or only this way
    #[arg(long, value_name = "MODE")]
    xdp_mode: Option<XdpMode>,
    /// Where /metrics, /liveness and /readiness are served
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Poll without ever sleeping
    #[arg(long)]
    busy: bool,
    /// What is logged: error, warn, info, debug, trace, or a filter as RUST_LOG takes it
    #[arg(long, value_name = "FILTER", env = "RUST_LOG")]
    log: Option<String>,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    node: Option<String>,
    uplink: List,
    workers: Option<usize>,
    cpus: List,
    socket: Option<PathBuf>,
    #[serde(alias = "state_dir")]
    state_dir: Option<PathBuf>,
    #[serde(alias = "xdp_mode")]
    xdp_mode: Option<XdpMode>,
    metrics: Option<SocketAddr>,
    busy: Option<bool>,
    #[serde(alias = "prefer_busy_poll")]
    prefer_busy_poll: bool,
    log: Option<String>,
    #[serde(alias = "pod_ports")]
    pod_ports: Option<PodPorts>,
    shortcut: Option<bool>,
    flows: Flows,
    frames: Option<u32>,
    #[serde(alias = "rule_series")]
    rule_series: Option<usize>,
}

/// A list as the flag takes it, or as TOML has it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum List {
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<usize>),
}

/// Connections that the flow table has room for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Flows {
    /// IPv4.
    pub v4: u32,
    /// IPv6.
    pub v6: u32,
}

/// How packets get in.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// Zero-copy, else native, else generic.
    #[default]
    Auto,
    /// The driver shares packet memory.
    Zerocopy,
    /// Native XDP, packets are copied.
    Copy,
    /// Generic XDP, packets are copied: on any interface, slower.
    Generic,
}

/// The kind of pods' ports.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum PodPorts {
    /// All pods behind the trunk.
    #[default]
    Trunk,
    /// An AF_XDP socket for each pod.
    Native,
}

/// What the daemon runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node.
    pub node: String,
    /// Interfaces to the world outside.
    pub uplinks: Vec<String>,
    /// Worker threads.
    pub workers: usize,
    /// The core of each worker, if pinned.
    pub cores: Vec<Option<usize>>,
    /// Socket for the agent.
    pub socket: PathBuf,
    /// Where flows and state are kept.
    pub state_dir: PathBuf,
    /// How packets get in.
    pub xdp_mode: XdpMode,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Poll without sleeping.
    pub busy: bool,
    /// Whether workers run the NAPI of the uplinks' queues, where the kernel lets them.
    pub prefer_busy_poll: bool,
    /// The log filter.
    pub log: String,
    /// The kind of pods' ports.
    pub pod_ports: PodPorts,
    /// Whether busy TCP between pods goes past the workers; native ports have no way for it.
    pub shortcut: bool,
    /// Size of the flow table.
    pub flows: Flows,
    /// Chunks of packet memory.
    pub frames: u32,
    /// Rules that have metrics of their own; all others are summed.
    pub rule_series: usize,
    /// How workers and cores were chosen.
    pub placement: Vec<Setting>,
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not as it should be.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// No uplink.
    #[error("no uplink: name the node's interface to the outside with --uplink IF")]
    NoUplink,
    /// A number out of range.
    #[error("{field}: {problem}")]
    Value {
        /// The flag.
        field: &'static str,
        /// What is wrong, and the mend.
        problem: &'static str,
    },
}

// === impl List ===

impl Default for List {
    fn default() -> Self {
        Self::Texts(Vec::new())
    }
}

impl List {
    /// As the flag takes it; `None` for an empty one.
    fn text(self) -> Option<String> {
        let text = match self {
            Self::Text(text) => text,
            Self::Texts(texts) => texts.join(","),
            Self::Numbers(numbers) => {
                numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
        };
        Some(text).filter(|text| !text.is_empty())
    }
}

// === impl Flows ===

impl Default for Flows {
    fn default() -> Self {
        Self { v4: 1 << 18, v6: 1 << 16 }
    }
}

// === impl Config ===

impl Config {
    /// Reads the file, lays the flags over it, and checks the result.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let of_file = file.uplink.text().unwrap_or_default();
        let of_file = of_file.split(',').map(str::trim).filter(|name| !name.is_empty());
        let uplinks = match flags.uplink.is_empty() {
            true => of_file.map(str::to_owned).collect(),
            false => flags.uplink,
        };
        if uplinks.is_empty() {
            return Err(ConfigError::NoUplink);
        }
        let available = core_affinity::get_core_ids().unwrap_or_default();
        let listed = flags.cpus.or(file.cpus.text()).map(|list| cpu_list(&list)).transpose()?;
        let (workers, why) = match (flags.workers.or(file.workers), &listed) {
            (Some(workers), _) => (workers, "--workers".to_owned()),
            (None, Some(cores)) => (cores.len(), "one for each core of --cpus".to_owned()),
            (None, None) => {
                let why = format!("one a core, up to four, of {} to be had", available.len());
                (available.len().clamp(1, 4), why)
            }
        };
        if !(1..=64).contains(&workers) {
            return Err(value("--workers", "must be between 1 and 64"));
        }
        let (is_listed, near) = (listed.is_some(), near(&uplinks));
        let cores = listed.unwrap_or_else(|| {
            let mut cores: Vec<_> = available.iter().map(|core| core.id).collect();
            cores.sort_by_key(|core| !near.contains(core));
            cores
        });
        // More workers than cores stay where the scheduler puts them.
        let cores: Vec<_> = (0..workers).map(|nth| cores.get(nth).copied()).collect();
        let (flows, pod_ports) = (file.flows, file.pod_ports.unwrap_or_default());
        if flows.v4 < 64 || flows.v6 < 64 {
            return Err(value("flows", "v4 and v6 must each be at least 64"));
        }
        Ok(Self {
            node: flags.node.or(file.node).unwrap_or_else(hostname),
            uplinks,
            workers,
            placement: tuning::placement((workers, &why), &cores, is_listed, &near),
            cores,
            socket: (flags.socket.or(file.socket))
                .map_or_else(|| margay_protocol::DEFAULT_SOCKET.into(), without_scheme),
            state_dir: flags.state_dir.or(file.state_dir).unwrap_or_else(|| "/run/margay".into()),
            xdp_mode: flags.xdp_mode.or(file.xdp_mode).unwrap_or_default(),
            metrics: flags.metrics.or(file.metrics),
            busy: flags.busy || file.busy.unwrap_or(false),
            prefer_busy_poll: file.prefer_busy_poll,
            log: flags.log.or(file.log).unwrap_or_else(|| "info".into()),
            pod_ports,
            shortcut: file.shortcut.unwrap_or(true) && pod_ports == PodPorts::Trunk,
            flows,
            frames: file.frames.unwrap_or(1 << 14),
            rule_series: file.rule_series.unwrap_or(1000),
        })
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.into(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
}

fn value(field: &'static str, problem: &'static str) -> ConfigError {
    ConfigError::Value { field, problem }
}

/// `0,2-4` → 0, 2, 3, 4.
fn cpu_list(text: &str) -> Result<Vec<usize>, ConfigError> {
    let bad = || value("--cpus", "write cores as 2,3 or 2-5");
    let mut out = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        // The kernel's own sets of CPUs that threads are pinned by end at 1023.
        if first > last || last > 1023 {
            return Err(bad());
        }
        out.extend(first..=last);
    }
    Ok(out)
}

/// The cores on the NUMA nodes of the uplinks' cards; none where they are no cards.
fn near(uplinks: &[String]) -> Vec<usize> {
    let lists = uplinks.iter().filter_map(|uplink| {
        std::fs::read_to_string(format!("/sys/class/net/{uplink}/device/local_cpulist")).ok()
    });
    lists.filter_map(|list| cpu_list(list.trim()).ok()).flatten().collect()
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Config, ConfigError> {
        Config::load(Flags::parse_from([&["margayd"], args].concat()))
    }

    #[test]
    fn flags_override_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "uplink = [\"eth7\"]\nworkers = 3\nxdp-mode = \"copy\"\n").unwrap();
        let path = path.to_str().unwrap();
        let config = load(&["--config", path, "--workers", "1", "--cpus", "0"]).unwrap();
        assert_eq!((config.uplinks, config.workers), (vec!["eth7".to_owned()], 1));
        assert_eq!((config.xdp_mode, config.cores), (XdpMode::Copy, vec![Some(0)]));
    }

    #[test]
    fn the_shortcut_is_on_unless_it_is_turned_off_or_ports_are_native() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        for (text, on) in
            [("", true), ("shortcut = false", false), ("pod-ports = \"native\"", false)]
        {
            std::fs::write(&path, format!("uplink = [\"eth7\"]\n{text}\n")).unwrap();
            assert_eq!(load(&["--config", path.to_str().unwrap()]).unwrap().shortcut, on, "{text}");
        }
    }

    #[test]
    fn preferred_busy_polling_is_the_files_wish_and_goes_with_either_way_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        for (text, flags, wanted) in [
            ("", &[] as &[_], (false, false)),
            ("prefer-busy-poll = true", &[], (false, true)),
            ("prefer_busy_poll = true", &["--busy"], (true, true)),
        ] {
            std::fs::write(&path, format!("uplink = [\"eth7\"]\n{text}\n")).unwrap();
            let config = load(&[&["--config", path.to_str().unwrap()], flags].concat()).unwrap();
            assert_eq!((config.busy, config.prefer_busy_poll), wanted, "{text} {flags:?}");
        }
    }

    #[test]
    fn lists_of_the_file_may_be_written_as_flags_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        for text in [
            "uplink = \"eth7,eth8\"\ncpus = \"0,0\"\nstate_dir = \"/x\"\n",
            "uplink = [\"eth7\", \"eth8\"]\ncpus = [0, 0]\nstate-dir = \"/x\"\n",
        ] {
            std::fs::write(&path, text).unwrap();
            let flags = ["--config", path.to_str().unwrap(), "--socket", "unix:/run/x.sock"];
            let config = load(&flags).unwrap();
            assert_eq!(config.uplinks, ["eth7", "eth8"], "{text}");
            assert_eq!(config.cores, [Some(0), Some(0)], "{text}");
            assert_eq!(config.state_dir, Path::new("/x"), "{text}");
            assert_eq!(config.socket, Path::new("/run/x.sock"), "{text}");
        }
    }

    #[test]
    fn an_unknown_field_of_the_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "uplinks = [\"eth7\"]\n").unwrap();
        let error = load(&["--config", path.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("uplinks"), "{error}");
    }

    #[test]
    fn cores_are_read_as_a_list_of_ranges() {
        assert_eq!(cpu_list("0, 2-4").unwrap(), [0, 2, 3, 4]);
        for bad in ["", "4-2", "a", "1-", "1-1024"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
        assert!(matches!(load(&[]), Err(ConfigError::NoUplink)));
    }
}
