//! `margayctl node status`.

use std::io::{self, Write};
use std::time::Duration;

use margay_cni_api::{Client, Readiness, Status as AskAgent};
use margay_protocol::proto;
use serde::Serialize;

use super::PATIENCE;
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{Table, write_structured};

/// What a node is and does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// Empty before a state was in force.
    node: String,
    release: String,
    protocol_version: u32,
    uptime_ms: u64,
    generation: u64,
    /// Whose state is in force: `agent`, `saved` or `none`.
    state_origin: &'static str,
    /// Whether the agent's connection to the dataplane is open.
    agent_connected: bool,
    agent: Agent,
    state: Counts,
    flow_table: FlowTable,
    /// `null` where it is turned off.
    shortcut: Option<Shortcut>,
    workers: Vec<Worker>,
    ports: Vec<Port>,
    endpoints_down: Vec<Down>,
    tuning: Vec<Setting>,
}

/// What the agent itself says.
#[derive(Debug, Serialize)]
struct Agent {
    socket: String,
    /// `ready`, `notReady`, `degraded` or `unreachable`.
    state: &'static str,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    endpoints: u64,
    policies: u64,
    sets: u64,
    set_members: u64,
    services: u64,
    routes: u64,
    remotes: u64,
    pools: u64,
}

#[derive(Debug, Serialize)]
struct FlowTable {
    capacity: u64,
    used: u64,
    denied: u64,
}

/// TCP and UDP past the workers.
#[derive(Debug, Serialize)]
struct Shortcut {
    /// Connections that take it now.
    connections: u64,
}

#[derive(Debug, Serialize)]
struct Worker {
    index: u32,
    /// The core it is pinned to.
    cpu: Option<u32>,
    sleeping: bool,
    packets: u64,
}

#[derive(Debug, Serialize)]
struct Port {
    name: String,
    ifindex: u32,
    role: &'static str,
    kind: &'static str,
    /// Nothing for a port behind the trunk.
    mode: Option<&'static str>,
    queues: u32,
    fallbacks: Vec<Fallback>,
    up: bool,
    /// The endpoint behind a pod's port.
    endpoint: Option<String>,
}

/// A better mode that did not work.
#[derive(Debug, Serialize)]
struct Fallback {
    mode: Option<&'static str>,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Down {
    endpoint: String,
    reason: String,
}

/// What was chosen for the machine, and why.
#[derive(Debug, Serialize)]
struct Setting {
    name: String,
    value: String,
    reason: String,
}

/// Asks the dataplane and the agent. Only the dataplane has to answer.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let answer = super::status(options).await?;
    let status = Status::new(answer, ask_agent(options).await);
    if !write_structured(options.form(), &status)? {
        status.write(&mut io::stdout().lock())?;
    }
    Ok(())
}

async fn ask_agent(options: &Options) -> Agent {
    let path = options.agent.as_ref().map(|address| address.path().to_owned());
    let path = path.unwrap_or_else(|| margay_cni_api::DEFAULT_SOCKET.into());
    let socket = path.display().to_string();
    let client = Client::new(path).with_timeout(PATIENCE);
    let answer = tokio::task::spawn_blocking(move || client.call(AskAgent {})).await;
    let (state, reason) = match answer {
        Ok(Ok(Readiness::Ready)) => ("ready", None),
        Ok(Ok(Readiness::NotReady { reason })) => ("notReady", Some(reason)),
        Ok(Ok(Readiness::Degraded { reason })) => ("degraded", Some(reason)),
        Ok(Err(error)) => ("unreachable", Some(error.msg)),
        Err(error) => ("unreachable", Some(error.to_string())),
    };
    Agent { socket, state, reason }
}

// === impl Status ===

impl Status {
    fn new(answer: proto::Status, agent: Agent) -> Self {
        let state_origin = match answer.state_origin() {
            proto::StateOrigin::Unspecified => "none",
            proto::StateOrigin::Saved => "saved",
            proto::StateOrigin::Agent => "agent",
        };
        let down = answer.endpoints_down.into_iter();
        Self {
            node: answer.node,
            release: answer.release,
            protocol_version: answer.version,
            uptime_ms: answer.uptime_ms,
            generation: answer.generation,
            state_origin,
            agent_connected: answer.agent_connected,
            agent,
            state: answer.state.unwrap_or_default().into(),
            flow_table: answer.flow_table.unwrap_or_default().into(),
            shortcut: answer
                .shortcut
                .map(|shortcut| Shortcut { connections: shortcut.connections }),
            workers: answer.workers.into_iter().map(Into::into).collect(),
            ports: answer.ports.into_iter().map(Into::into).collect(),
            endpoints_down: down
                .map(|down| Down { endpoint: down.key, reason: down.reason })
                .collect(),
            tuning: answer.tuning.into_iter().map(Into::into).collect(),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_head(out)?;
        writeln!(out)?;
        self.port_table().write(out)?;
        for port in &self.ports {
            for Fallback { mode, reason } in &port.fallbacks {
                writeln!(out, "{}: not {}: {reason}", port.name, mode.unwrap_or("other"))?;
            }
        }
        writeln!(out)?;
        self.worker_table().write(out)?;
        if !self.tuning.is_empty() {
            writeln!(out)?;
            self.tuning_table().write(out)?;
        }
        if !self.endpoints_down.is_empty() {
            writeln!(out)?;
            let mut table = Table::new(["ENDPOINT NOT UP", "REASON"]);
            for Down { endpoint, reason } in &self.endpoints_down {
                table.push(vec![endpoint.clone(), reason.clone()]);
            }
            table.write(out)?;
        }
        Ok(())
    }

    fn write_head(&self, out: &mut impl Write) -> io::Result<()> {
        let node = if self.node.is_empty() { "not known yet" } else { &self.node };
        let up = Duration::from_secs(self.uptime_ms / 1000);
        let link = if self.agent_connected { "connected" } else { "not connected" };
        let Agent { socket, state, reason } = &self.agent;
        let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let origin = match self.state_origin {
            "agent" => "from the agent",
            "saved" => "as an earlier process saved it",
            _ => "nothing in force yet",
        };
        let Counts { endpoints, policies, services, routes, remotes, .. } = self.state;
        let FlowTable { capacity, used, denied } = self.flow_table;
        writeln!(out, "Node         {node}")?;
        let (release, protocol) = (&self.release, self.protocol_version);
        writeln!(out, "Dataplane    margayd {release}, protocol {protocol}, up for {up:?}")?;
        writeln!(out, "Agent        {link}; {socket} {state}{reason}")?;
        writeln!(out, "State        generation {}, {origin}", self.generation)?;
        writeln!(
            out,
            "             {endpoints} endpoints, {policies} policies, {services} services, {routes} \
             routes, {remotes} other nodes"
        )?;
        writeln!(out, "Flow table   {used} of {capacity} in use, {denied} of them denials")?;
        match &self.shortcut {
            Some(Shortcut { connections }) => {
                writeln!(out, "Shortcut     on, {connections} connections between pods take it")
            }
            None => writeln!(out, "Shortcut     off"),
        }
    }

    fn port_table(&self) -> Table {
        let mut table = Table::new(["PORT", "ROLE", "KIND", "MODE", "QUEUES", "STATE", "ENDPOINT"]);
        for port in &self.ports {
            table.push(vec![
                port.name.clone(),
                port.role.to_owned(),
                port.kind.to_owned(),
                port.mode.unwrap_or("-").to_owned(),
                port.queues.to_string(),
                if port.up { "up" } else { "down" }.to_owned(),
                port.endpoint.clone().unwrap_or_default(),
            ]);
        }
        table
    }

    fn tuning_table(&self) -> Table {
        let mut table = Table::new(["CHOSEN", "VALUE", "WHY"]);
        for Setting { name, value, reason } in &self.tuning {
            table.push(vec![name.clone(), value.clone(), reason.clone()]);
        }
        table
    }

    fn worker_table(&self) -> Table {
        let mut table = Table::new(["WORKER", "CPU", "STATE", "PACKETS"]);
        for worker in &self.workers {
            table.push(vec![
                worker.index.to_string(),
                worker.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
                if worker.sleeping { "asleep" } else { "awake" }.to_owned(),
                worker.packets.to_string(),
            ]);
        }
        table
    }
}

// === impl From ===

impl From<proto::StateCounts> for Counts {
    fn from(counts: proto::StateCounts) -> Self {
        Self {
            endpoints: counts.endpoints,
            policies: counts.policies,
            sets: counts.sets,
            set_members: counts.set_members,
            services: counts.services,
            routes: counts.routes,
            remotes: counts.remotes,
            pools: counts.pools,
        }
    }
}

impl From<proto::FlowTable> for FlowTable {
    fn from(table: proto::FlowTable) -> Self {
        Self { capacity: table.capacity, used: table.used, denied: table.denied }
    }
}

impl From<proto::Setting> for Setting {
    fn from(setting: proto::Setting) -> Self {
        let proto::Setting { name, value, reason } = setting;
        Self { name, value, reason }
    }
}

impl From<proto::Worker> for Worker {
    fn from(worker: proto::Worker) -> Self {
        let proto::Worker { index, cpu, sleeping, packets } = worker;
        Self { index, cpu, sleeping, packets }
    }
}

impl From<proto::Port> for Port {
    fn from(port: proto::Port) -> Self {
        let (role, kind, mode) = (port.role(), port.kind(), port.mode());
        let fallback = |fallback: proto::ModeFallback| Fallback {
            mode: mode_name(fallback.mode()),
            reason: fallback.reason,
        };
        Self {
            name: port.name,
            ifindex: port.ifindex,
            role: match role {
                proto::PortRole::Unspecified => "unknown",
                proto::PortRole::Uplink => "uplink",
                proto::PortRole::Pod => "pod",
                proto::PortRole::Host => "host",
            },
            kind: match kind {
                proto::PortKind::Unspecified => "unknown",
                proto::PortKind::Native => "native",
                proto::PortKind::Trunk => "trunk",
            },
            mode: mode_name(mode),
            queues: port.queues,
            fallbacks: port.fallbacks.into_iter().map(fallback).collect(),
            up: port.up,
            endpoint: Some(port.endpoint).filter(|key| !key.is_empty()),
        }
    }
}

/// A mode as `--xdp-mode` calls it.
fn mode_name(mode: proto::XdpMode) -> Option<&'static str> {
    match mode {
        proto::XdpMode::Unspecified => None,
        proto::XdpMode::Zerocopy => Some("zerocopy"),
        proto::XdpMode::Copy => Some("copy"),
        proto::XdpMode::Generic => Some("generic"),
    }
}
