//! `margayctl counters`.

use std::io::{self, Write};

use margay_protocol::proto;
use serde::Serialize;

use super::{connect, cycles, in_time};
use crate::failure::Failure;
use crate::options::{Form, Options};
use crate::output::{Table, write_structured};

/// Arguments of `counters`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reasons that never happened too
    #[arg(long)]
    all: bool,
    /// What the workers do with their time instead: cycles, packets and batches by stage
    #[arg(long)]
    cycles: bool,
    /// How long to look at that; 0: since the dataplane's start
    #[arg(long, value_name = "N", default_value_t = 1.0, requires = "cycles", value_parser = seconds)]
    seconds: f64,
}

/// Everything that was counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counters {
    ports: Vec<Port>,
    drops: Vec<Reason>,
    punts: Vec<Reason>,
    injected: Vec<Reason>,
    consumed: Vec<Reason>,
    flow_misses: u64,
    flow_evictions: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    port: String,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: String,
    packets: u64,
    /// What it means.
    sentence: String,
}

/// Asks the dataplane.
pub(super) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    if args.cycles {
        return cycles::run(options, args.seconds).await;
    }
    let mut client = connect(options).await?;
    let answer = in_time(client.get_counters(proto::GetCountersRequest {})).await??;
    let counters = Counters::new(answer.into_inner(), args.all);
    let form = options.form();
    if !write_structured(form, &counters)? {
        counters.write(&mut io::stdout().lock(), form == Form::Wide)?;
    }
    Ok(())
}

/// A span of time up to a day.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=86400.0).contains(&seconds) { Ok(seconds) } else { Err("not 0 to 86400".into()) }
}

// === impl Counters ===

impl Counters {
    /// Reasons that never happened are left out unless `all` are wanted.
    fn new(answer: proto::Counters, all: bool) -> Self {
        let reasons = |list: Vec<proto::ReasonCounter>| {
            let wanted = list.into_iter().filter(|each| all || each.packets > 0);
            wanted.map(Reason::from).collect()
        };
        Self {
            ports: answer.ports.into_iter().map(Into::into).collect(),
            drops: reasons(answer.drops),
            punts: reasons(answer.punts),
            injected: reasons(answer.injected),
            consumed: reasons(answer.consumed),
            flow_misses: answer.flow_misses,
            flow_evictions: answer.flow_evictions,
        }
    }

    /// Tables of the ports and of the reasons; `wide` says what the reasons mean.
    fn write(&self, out: &mut impl Write, wide: bool) -> io::Result<()> {
        let mut ports = Table::new(["PORT", "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES"]);
        for port in &self.ports {
            let numbers = [port.rx_packets, port.rx_bytes, port.tx_packets, port.tx_bytes];
            let name = std::iter::once(port.port.clone());
            ports.push(name.chain(numbers.iter().map(ToString::to_string)).collect());
        }
        ports.write(out)?;
        let titles = ["WHAT", "REASON", "PACKETS"].into_iter().chain(wide.then_some("MEANING"));
        let mut reasons = Table::new(titles);
        let lists = [
            ("drop", &self.drops),
            ("punt", &self.punts),
            ("injected", &self.injected),
            ("consumed", &self.consumed),
        ];
        for (what, list) in lists {
            for Reason { reason, packets, sentence } in list {
                let mut row = vec![what.to_owned(), reason.clone(), packets.to_string()];
                row.extend(wide.then(|| sentence.clone()));
                reasons.push(row);
            }
        }
        if !reasons.is_empty() {
            writeln!(out)?;
            reasons.write(out)?;
        }
        writeln!(out, "\nflow misses {}, evictions {}", self.flow_misses, self.flow_evictions)
    }
}

// === impl From ===

impl From<proto::PortCounters> for Port {
    fn from(counters: proto::PortCounters) -> Self {
        let proto::PortCounters { port, rx_packets, tx_packets, rx_bytes, tx_bytes } = counters;
        Self { port, rx_packets, rx_bytes, tx_packets, tx_bytes }
    }
}

impl From<proto::ReasonCounter> for Reason {
    fn from(counter: proto::ReasonCounter) -> Self {
        let proto::ReasonCounter { reason, packets, sentence } = counter;
        Self { reason, packets, sentence }
    }
}
