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

#[cfg(test)]
mod tests {
    use super::*;

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
