//! `margayctl flows`.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use margay_protocol::{FlowFilter, proto};
use margay_resources::v3::Protocol;
use serde::Serialize;
use tonic::Streaming;

use super::{connect, in_time};
use crate::failure::Failure;
use crate::options::{Form, Options};
use crate::output::Table;

/// Arguments of `flows`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An address of either direction is this one or lies in this network
    #[arg(long, value_name = "IP|CIDR", value_parser = network)]
    net: Option<IpNet>,
    /// Protocol, by name (TCP, UDP, …) or number
    #[arg(long)]
    protocol: Option<Protocol>,
    /// A port of either direction
    #[arg(long)]
    port: Option<u16>,
    /// Allowed connections only
    #[arg(long)]
    allowed: bool,
    /// Denied connections only
    #[arg(long, conflicts_with = "allowed")]
    denied: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// A connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flow {
    orig: Tuple,
    reply: Tuple,
    orig_count: Count,
    reply_count: Count,
    state: String,
    idle_ms: u64,
    verdict: &'static str,
    /// Why its packets are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<String>,
    /// Whether its packets go from pod to pod past the workers.
    shortcut: bool,
    egress: Option<Hit>,
    ingress: Option<Hit>,
    /// By which policy for what passes through the node it left it.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_egress: Option<Hit>,
    /// By which such policy it came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_ingress: Option<Hit>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tuple {
    src: IpAddr,
    dst: IpAddr,
    protocol: String,
    src_port: u32,
    dst_port: u32,
}

#[derive(Debug, Serialize)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// The rule that decided: its policy and its place in the document; `Tier//NAME` and 0 where the
/// default action of a tier did.
#[derive(Debug, Serialize)]
struct Hit {
    policy: String,
    rule: u32,
}

/// A connection as policies see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Who began it.
    pub(crate) src: IpAddr,
    /// Who was asked.
    pub(crate) dst: IpAddr,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// 0 without ports.
    pub(crate) src_port: u16,
    /// 0 without ports.
    pub(crate) dst_port: u16,
    /// Who answers: another than was asked where a service is in the way.
    pub(crate) answers: SocketAddr,
}

/// All connections that the dataplane knows.
pub(crate) async fn seen(options: &Options) -> Result<Vec<Seen>, Failure> {
    let mut client = connect(options).await?;
    let everything = proto::FlowFilter::from(&FlowFilter::default());
    let mut flows = in_time(client.list_flows(everything)).await??.into_inner();
    let mut seen = Vec::new();
    while let Some(flow) = flows.message().await? {
        seen.push(Seen::new(&flow)?);
    }
    Ok(seen)
}

/// Lists the connections.
pub(super) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut client = connect(options).await?;
    let answer = in_time(client.list_flows(proto::FlowFilter::from(&args.filter()))).await??;
    let flows = answer.into_inner();
    match options.form() {
        Form::Json => write_json(flows).await,
        Form::Yaml => write_yaml(flows).await,
        form @ (Form::Table | Form::Wide) => write_table(flows, form == Form::Wide).await,
        Form::Name => {
            Err(Failure::Usage("connections have no names: use -o table, wide, json or yaml"))
        }
    }
}

/// An array with one connection on each line, written as they come: there may be millions.
async fn write_json(mut flows: Streaming<proto::Flow>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout());
    let mut separator = "[\n";
    while let Some(flow) = flows.message().await? {
        out.write_all(separator.as_bytes())?;
        serde_json::to_writer(&mut out, &Flow::new(flow)?).map_err(io::Error::from)?;
        separator = ",\n";
    }
    out.write_all(if separator == ",\n" { b"\n]\n" } else { b"[]\n" })?;
    Ok(out.flush()?)
}

/// A sequence, written as the connections come.
async fn write_yaml(mut flows: Streaming<proto::Flow>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout());
    let mut any = false;
    while let Some(flow) = flows.message().await? {
        serde_yaml_ng::to_writer(&mut out, &[Flow::new(flow)?]).map_err(io::Error::other)?;
        any = true;
    }
    if !any {
        out.write_all(b"[]\n")?;
    }
    Ok(out.flush()?)
}

async fn write_table(mut flows: Streaming<proto::Flow>, wide: bool) -> Result<(), Failure> {
    let titles = ["PROTOCOL", "FROM", "TO", "ANSWERED BY", "STATE", "WAY", "PACKETS", "IDLE"];
    let more = ["BYTES", "EGRESS", "INGRESS"].into_iter().filter(|_| wide);
    let mut table = Table::new(titles.into_iter().chain(more));
    while let Some(flow) = flows.message().await? {
        table.push(Flow::new(flow)?.row(wide));
    }
    Ok(table.write(&mut BufWriter::new(io::stdout()))?)
}

/// A network, or an address as the network of itself.
pub(super) fn network(text: &str) -> Result<IpNet, &'static str> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let net = text.parse::<IpNet>().or_else(|_| address());
    net.map(|net| net.trunc()).map_err(|_| "expected an address or a network, e.g. 10.0.0.0/8")
}

// === impl Args ===

impl Args {
    fn filter(&self) -> FlowFilter {
        FlowFilter {
            net: self.net,
            protocol: self.protocol.map(Protocol::number),
            port: self.port,
            allowed: (self.allowed || self.denied).then_some(self.allowed),
            limit: self.limit,
        }
    }
}

// === impl Seen ===

impl Seen {
    fn new(flow: &proto::Flow) -> Result<Self, Failure> {
        let missing = || Failure::Answer("a connection without addresses");
        let (orig, reply) = flow.orig.as_ref().zip(flow.reply.as_ref()).ok_or_else(missing)?;
        let port =
            |port: u32| u16::try_from(port).map_err(|_| Failure::Answer("a port above 65535"));
        let protocol = u8::try_from(orig.protocol);
        Ok(Self {
            src: address(&orig.src)?,
            dst: address(&orig.dst)?,
            protocol: protocol.map_err(|_| Failure::Answer("a protocol above 255"))?,
            src_port: port(orig.src_port)?,
            dst_port: port(orig.dst_port)?,
            answers: SocketAddr::new(address(&reply.src)?, port(reply.src_port)?),
        })
    }
}

// === impl Flow ===

impl Flow {
    pub(super) fn new(flow: proto::Flow) -> Result<Self, Failure> {
        Ok(Self {
            orig: Tuple::new(flow.orig)?,
            reply: Tuple::new(flow.reply)?,
            orig_count: flow.orig_count.unwrap_or_default().into(),
            reply_count: flow.reply_count.unwrap_or_default().into(),
            state: flow.state,
            idle_ms: flow.idle_ms,
            verdict: if flow.allowed { "allow" } else { "deny" },
            denied: (!flow.denied.is_empty()).then_some(flow.denied),
            shortcut: flow.shortcut,
            egress: flow.egress.map(Into::into),
            ingress: flow.ingress.map(Into::into),
            passed_egress: flow.passed_egress.map(Into::into),
            passed_ingress: flow.passed_ingress.map(Into::into),
        })
    }

    /// Who answers, where a service stands between; else nothing.
    pub(super) fn answered_by(&self) -> String {
        let answers = self.reply.from();
        if answers == self.orig.to() { String::new() } else { answers }
    }

    /// The rules that decided at the source's and at the destination's endpoint.
    pub(super) fn rules(&self) -> [Option<String>; 2] {
        [&self.egress, &self.ingress].map(|hit| hit.as_ref().map(Hit::to_string))
    }

    /// State and verdict.
    pub(super) fn summary(&self) -> String {
        format!("{} {}, {}", self.orig.protocol, self.state, self.verdict)
    }

    fn row(&self, wide: bool) -> Vec<String> {
        let Self { orig, orig_count, reply_count, .. } = self;
        let answered_by = self.answered_by();
        let mut row = vec![
            orig.protocol.clone(),
            orig.from(),
            orig.to(),
            answered_by,
            self.state.clone(),
            if self.shortcut { "shortcut" } else { "worker" }.to_owned(),
            format!("{}+{}", orig_count.packets, reply_count.packets),
            format!("{}.{}s", self.idle_ms / 1000, self.idle_ms % 1000 / 100),
        ];
        if wide {
            row.push(format!("{}+{}", orig_count.bytes, reply_count.bytes));
            row.extend(self.rules().map(Option::unwrap_or_default));
        }
        row
    }
}

// === impl Tuple ===

impl Tuple {
    pub(super) fn new(tuple: Option<proto::FlowTuple>) -> Result<Self, Failure> {
        let tuple = tuple.ok_or(Failure::Answer("a connection without addresses"))?;
        Ok(Self {
            src: address(&tuple.src)?,
            dst: address(&tuple.dst)?,
            protocol: protocol_name(tuple.protocol),
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
        })
    }

    fn from(&self) -> String {
        end(self.src, self.src_port)
    }

    fn to(&self) -> String {
        end(self.dst, self.dst_port)
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.protocol, self.from(), self.to())
    }
}

// === impl Hit ===

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy.strip_prefix("Tier//") {
            Some(tier) => write!(f, "default of tier {tier}"),
            None => write!(f, "{}#{}", self.policy, self.rule),
        }
    }
}

/// An address, with its port where there is one.
pub(super) fn end(address: IpAddr, port: u32) -> String {
    match u16::try_from(port) {
        Ok(0) | Err(_) => address.to_string(),
        Ok(port) => SocketAddr::new(address, port).to_string(),
    }
}

pub(super) fn address(bytes: &[u8]) -> Result<IpAddr, Failure> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).map_err(|_| Failure::Answer("an address of neither 4 nor 16 bytes"))
}

/// The name that documents know a protocol by, or its number.
pub(super) fn protocol_name(number: u32) -> String {
    u8::try_from(number).map_or(number.to_string(), |n| Protocol::of_number(n).to_string())
}

// === impl From ===

impl From<proto::FlowCount> for Count {
    fn from(count: proto::FlowCount) -> Self {
        Self { packets: count.packets, bytes: count.bytes }
    }
}

impl From<proto::RuleHit> for Hit {
    fn from(hit: proto::RuleHit) -> Self {
        Self { policy: hit.policy, rule: hit.rule }
    }
}
