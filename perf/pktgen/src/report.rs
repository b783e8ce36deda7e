//! The figures of a run, for people and for programs.

use std::{fmt, sync::LazyLock};

use serde::Serialize;

use crate::{
    delay::Delay,
    port::Port,
    run::{Station, Stretch},
    sender::Sender,
    sink::Sink,
};

/// The result of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    sent: Option<Sent>,
    received: Option<Received>,
    /// Packets that came back, where answers were asked for.
    answers: Option<u64>,
    /// What must be known to read the figures.
    notes: Vec<String>,
}

/// What the sending end did.
#[derive(Debug, Serialize)]
struct Sent {
    #[serde(flatten)]
    end: End,
    flows: u32,
    /// Bytes of a frame, in the mean.
    size: f64,
    bytes: u64,
    /// Packets a second asked for.
    rate: Option<f64>,
    /// Whether they were sent.
    rate_kept: bool,
    /// Times that the tx ring was full: the kernel, not this program, was the limit.
    ring_full: u64,
}

/// What the receiving end saw.
#[derive(Debug, Serialize)]
struct Received {
    #[serde(flatten)]
    end: End,
    flows: usize,
    bytes: u64,
    /// How many never came: of those sent by this process, else by the gaps in the numbers.
    lost: u64,
    late: u64,
    foreign: u64,
    /// Of those lost, dropped at this very socket: the sink was too slow.
    dropped_by_kernel: u64,
    xdp: String,
    latency: Delay,
}

/// Either end.
#[derive(Debug, Serialize)]
struct End {
    interface: String,
    mode: String,
    fallback: Option<String>,
    /// In the whole run.
    packets: u64,
    /// Without the warm-up.
    seconds: f64,
    /// In those seconds.
    packets_per_second: f64,
}

// === impl Report ===

impl Report {
    /// Of stations that have run: one that sends, one that receives, or both; answers go from the
    /// second to the first.
    pub(crate) fn new(stations: &[Station]) -> anyhow::Result<Self> {
        let mut report = Self::default();
        if let Some(Station { port, sender: Some(sender), sink, sent, .. }) = stations.first() {
            report.sent = Some(Sent::new(port, sender, *sent));
            report.answers = sink.as_ref().map(|sink| sink.numbers.received);
        }
        let offered = report.sent.as_ref().map(|sent| sent.end.packets);
        if let Some(Station { port, sink: Some(sink), received, .. }) = stations.last() {
            report.received = Some(Received::new(port, sink, *received, offered)?);
        }
        report.notes = report.remarks();
        Ok(report)
    }

    fn remarks(&self) -> Vec<String> {
        let mut notes = Vec::from_iter(ALONE.map(str::to_owned));
        if let Some(sent) = &self.sent
            && let (Some(rate), false) = (sent.rate, sent.rate_kept)
        {
            let limit = match sent.ring_full {
                0 => "this CPU, on which sending and receiving share a thread",
                _ => "the kernel or the device: the tx ring was full",
            };
            notes.push(format!(
                "the rate of {rate} packets a second was not kept: {:.0} were sent; the limit was \
                 {limit}",
                sent.end.packets_per_second
            ));
        }
        if let (Some(sent), Some(received)) = (&self.sent, &self.received)
            && sent.end.packets > 0
            && received.end.packets == 0
        {
            notes.push(NOTHING.to_owned());
        } else if self.answers == Some(0) {
            notes.push(
                "no answer came back: does the device let them pass, and does XDP run at --interface as \
                 --answers says?"
                    .into(),
            );
        }
        notes
    }
}

/// Said where packets are sent and none comes.
pub(crate) const NOTHING: &str = "nothing arrived: does a device own the Ethernet address of \
    --dst-mac, does it have a route to --dst and let --src pass, and is that the way to the sink's \
    interface?";

/// Said where the generator and the device are in each other's way; asked for before a thread is pinned.
pub(crate) static ALONE: LazyLock<Option<&str>> = LazyLock::new(|| {
    let alone = core_affinity::get_core_ids().is_some_and(|cores| cores.len() == 1);
    alone.then_some("this process has one CPU: the device may have to share that")
});

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sent) = &self.sent {
            writeln!(f, "sent {}, {:.0} bytes, {} flows", sent.end, sent.size, sent.flows)?;
        }
        if let Some(received) = &self.received {
            let Received { end, xdp, flows, .. } = received;
            writeln!(f, "received {end} ({xdp} XDP), {flows} flows")?;
            writeln!(
                f,
                "  {} lost ({} of them dropped at the sink), {} late, {} foreign",
                received.lost, received.dropped_by_kernel, received.late, received.foreign
            )?;
            let Delay { p50, p99, p999, max, .. } = received.latency;
            writeln!(
                f,
                "  under way {p50:.1} us (p50), {p99:.1} us (p99), {p999:.1} us (p99.9), {max:.1} us \
                 (max)"
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

// === impl Sent ===

impl Sent {
    fn new(port: &Port, sender: &Sender, stretch: Stretch) -> Self {
        Self {
            end: End::new(port, sender.sent, stretch),
            flows: sender.flows.count(),
            size: sender.sizes.mean(),
            bytes: sender.bytes,
            rate: sender.rate,
            rate_kept: sender.kept_rate(),
            ring_full: port.socket.counters().tx_ring_full,
        }
    }
}

// === impl Received ===

impl Received {
    fn new(
        port: &Port,
        sink: &Sink,
        stretch: Stretch,
        offered: Option<u64>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            end: End::new(port, sink.numbers.received, stretch),
            flows: sink.numbers.flows(),
            bytes: sink.bytes,
            lost: offered.map_or(sink.numbers.missing(), |offered| {
                offered.saturating_sub(sink.numbers.received)
            }),
            late: sink.numbers.late,
            foreign: sink.foreign,
            dropped_by_kernel: port.dropped()?,
            xdp: port.xdp.map_or(String::new(), |mode| mode.to_string()),
            latency: sink.delays.delay(),
        })
    }
}

// === impl End ===

impl End {
    fn new(port: &Port, packets: u64, stretch: Stretch) -> Self {
        Self {
            interface: port.interface.clone(),
            mode: port.socket.mode().to_string(),
            fallback: port.fallback.as_ref().map(ToString::to_string),
            packets,
            seconds: stretch.nanoseconds as f64 / 1e9,
            packets_per_second: stretch.rate(),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets, {:.3} Mpps over {:.2} s, {}, {} mode",
            self.packets,
            self.packets_per_second / 1e6,
            self.seconds,
            self.interface,
            self.mode
        )
    }
}
