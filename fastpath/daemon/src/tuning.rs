//! What was chosen for this machine, and why: told by `margayctl node status`.

use std::borrow::Cow;

use margay_protocol::proto;
use margay_tables::flow::{FlowConfig, FlowTable};
use margay_xsk::{Region, SocketOptions, UmemOptions};

use crate::config::{Config, PodPorts};

/// A choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What was chosen.
    pub name: Cow<'static, str>,
    /// The choice.
    pub value: String,
    /// Why; what to set to have it otherwise.
    pub reason: String,
}

impl Setting {
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        value: String,
        reason: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), value, reason: reason.into() }
    }
}

impl From<&Setting> for proto::Setting {
    fn from(setting: &Setting) -> Self {
        let Setting { name, value, reason } = setting.clone();
        Self { name: name.into_owned(), value, reason }
    }
}

/// What the configuration and the memory that was to be had came to.
pub(crate) fn chosen(config: &Config, region: &Region, flows: &FlowConfig) -> Vec<Setting> {
    let mut settings = config.placement.clone();
    settings.extend([
        polling(config.busy),
        Setting::new(
            "batch",
            format!("{} frames", margay_engine::BATCH),
            "so many flows' memory is asked for at once; less comes where less is waiting",
        ),
        memory(region),
        rings(),
        flow_table(flows),
        pod_ports(config.pod_ports),
        shortcut(config),
    ]);
    settings
}

/// Workers and their cores. `near` are the cores beside the uplinks' cards, if they say so.
pub(crate) fn placement(
    workers: (usize, &str),
    cores: &[Option<usize>],
    listed: bool,
    near: &[usize],
) -> Vec<Setting> {
    let pinned: Vec<_> = cores.iter().flatten().map(ToString::to_string).collect();
    let value = if pinned.is_empty() { "not pinned".to_owned() } else { pinned.join(",") };
    let reason = match near.is_empty() {
        _ if listed => "--cpus".to_owned(),
        true => "the first that this process may use; no uplink says what cores are near it".into(),
        false => "first those on the NUMA node of the uplink's card".into(),
    };
    let of = |text: &str| text.to_owned();
    vec![
        Setting::new("workers", workers.0.to_string(), of(workers.1)),
        Setting::new("cores", value, reason),
    ]
}

fn polling(busy: bool) -> Setting {
    let (value, reason) = match busy {
        true => ("busy", "--busy: workers never sleep"),
        false => ("adaptive", "workers poll while there is traffic and sleep else; --busy: never"),
    };
    Setting::new("polling", value.into(), reason)
}

fn memory(region: &Region) -> Setting {
    let (chunks, bytes) = (region.chunks(), region.bytes());
    let each = bytes / (chunks as usize).max(1);
    let value = format!("{chunks} frames of {each} bytes, {} MiB", bytes >> 20);
    let reason = match region.hugepages() {
        true => "reserved hugepages were there for all of it",
        false => "ordinary pages: too few hugepages are reserved (vm.nr_hugepages)",
    };
    Setting::new(
        "packet memory",
        value,
        format!("{reason}; sized by the uplinks' MTU, a jumbo packet takes up to three"),
    )
}

fn rings() -> Setting {
    let (socket, umem) = (SocketOptions::default(), UmemOptions::default());
    let value = format!(
        "receive {}, transmit {}, fill {}, completion {}",
        socket.rx, socket.tx, umem.fill, umem.completion
    );
    let reason = "what comes while a worker is elsewhere; busy sockets keep the fill ring full, \
                  quiet ones give frames to those that need them";
    Setting::new("rings", value, reason)
}

fn flow_table(flows: &FlowConfig) -> Setting {
    let bytes = FlowTable::required_bytes(flows).unwrap_or(0);
    let value = format!("{} IPv4 and {} IPv6 connections, {} MiB", flows.v4, flows.v6, bytes >> 20);
    Setting::new("flow table", value, "`flows.v4` and `flows.v6` of the configuration file")
}

fn pod_ports(kind: PodPorts) -> Setting {
    let (value, reason) = match kind {
        PodPorts::Trunk => (
            "trunk",
            "bulk TCP, and few sockets for many pods; `pod-ports = \"native\"` has most packets",
        ),
        PodPorts::Native => ("native", "`pod-ports`: most packets a second, less bulk TCP"),
    };
    Setting::new("pod ports", value.into(), reason)
}

fn shortcut(config: &Config) -> Setting {
    let (value, reason) = match (config.shortcut, config.pod_ports) {
        (true, _) => ("on", "busy connections go past the workers; `shortcut = false`: none does"),
        (false, PodPorts::Native) => ("off", "only the trunk has it: `pod-ports`"),
        (false, PodPorts::Trunk) => ("off", "`shortcut`: workers carry every packet"),
    };
    Setting::new("shortcut", value.into(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use clap::Parser;
    use margay_xsk::{ChunkSize, RegionConfig};

    /// What is chosen with these lines of the configuration file.
    fn told(lines: &str) -> Vec<Setting> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, format!("uplink = [\"eth7\"]\n{lines}\n")).unwrap();
        let line = ["margayd", "--config", path.to_str().unwrap(), "--cpus", "0"];
        let config = Config::load(Flags::parse_from(line)).unwrap();
        let memory =
            RegionConfig { chunks: 512, chunk_size: ChunkSize::Bytes2048, hugepages: false };
        let region = Region::new(memory).unwrap();
        let flows = FlowConfig { v4: 1 << 10, v6: 1 << 8, participants: 1, denial_share: 2 };
        chosen(&config, region, &flows)
    }

    #[test]
    fn every_choice_is_told_with_its_reason() {
        let settings = told("");
        let value = |name: &str| {
            let one = settings.iter().find(|setting| setting.name == name);
            one.map(|setting| setting.value.as_str()).unwrap_or_default()
        };
        assert_eq!((value("workers"), value("cores"), value("polling")), ("1", "0", "adaptive"));
        let named = (value("batch"), value("pod ports"), value("shortcut"));
        assert_eq!(named, ("64 frames", "trunk", "on"));
        assert_eq!(value("packet memory"), "512 frames of 2048 bytes, 1 MiB");
        assert!(value("rings").starts_with("receive "), "{}", value("rings"));
        assert!(value("flow table").starts_with("1024 IPv4 and 256 IPv6 connections"));
        assert!(settings.iter().all(|setting| !setting.reason.is_empty()), "{settings:?}");
    }

    #[test]
    fn what_the_file_says_is_told_as_its_doing() {
        let named = |lines, name: &str| {
            let one = told(lines).into_iter().find(|setting| setting.name == name).unwrap();
            (one.value, one.reason)
        };
        let (value, reason) = named("shortcut = false", "shortcut");
        assert!(value == "off" && reason.contains("`shortcut`"), "{reason}");
        let (value, reason) = named("pod-ports = \"native\"", "shortcut");
        assert!(value == "off" && reason.contains("trunk"), "{reason}");
        let (value, reason) = named("pod-ports = \"native\"", "pod ports");
        assert!(value == "native" && reason.contains("`pod-ports`"), "{reason}");
        assert_eq!(named("busy = true", "polling").0, "busy");
    }

    #[test]
    fn cores_are_told_with_their_reason() {
        let cores = [Some(4), Some(0), None];
        let told = |listed, near: &[usize]| placement((3, "why"), &cores, listed, near).remove(1);
        assert_eq!(told(true, &[4]), Setting::new("cores", "4,0".into(), "--cpus"));
        assert!(told(false, &[4, 5]).reason.contains("NUMA"));
        assert!(told(false, &[]).reason.contains("no uplink"));
        let none = placement((1, "--workers"), &[None], false, &[]);
        assert_eq!(none[0], Setting::new("workers", "1".into(), "--workers"));
        assert_eq!(none[1].value, "not pinned");
    }
}
