//! The figures of a run, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::{port::Port, run::Stretch, sender::Sender, sink::Sink};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    sent: Option<Sent>,
    received: Option<Received>,
}

/// What the sending end did.
#[derive(Debug, Serialize)]
struct Sent {
    #[serde(flatten)]
    end: End,
    flows: u32,
    /// Bytes of each frame.
    size: usize,
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
    latency: Latency,
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

/// Time under way in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(
        sender: Option<&Sender>,
        sink: Option<&Sink>,
        sent: Stretch,
        received: Stretch,
    ) -> anyhow::Result<Self> {
        let offered = sender.map(|sender| sender.sent);
        let received = sink.map(|sink| Received::new(sink, received, offered)).transpose()?;
        let sent = sender.map(|sender| Sent {
            end: End::new(&sender.port, sender.sent, sent),
            flows: sender.flows.count(),
            size: sender.flows.size(),
            ring_full: sender.port.socket.counters().tx_ring_full,
        });
        Ok(Self { sent, received })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sent) = &self.sent {
            writeln!(f, "sent {}, {} bytes, {} flows", sent.end, sent.size, sent.flows)?;
        }
        let Some(received) = &self.received else { return Ok(()) };
        writeln!(f, "received {} ({} XDP), {} flows", received.end, received.xdp, received.flows)?;
        writeln!(
            f,
            "  {} lost ({} of them dropped at the sink), {} late, {} foreign",
            received.lost, received.dropped_by_kernel, received.late, received.foreign
        )?;
        let Latency { p50, p99, max } = received.latency;
        writeln!(f, "  under way {p50:.1} us (p50), {p99:.1} us (p99), {max:.1} us (max)")
    }
}

// === impl Received ===

impl Received {
    fn new(sink: &Sink, stretch: Stretch, offered: Option<u64>) -> anyhow::Result<Self> {
        let kernel = sink.port.socket.kernel_counters()?;
        let microseconds = |nanoseconds| nanoseconds as f64 / 1000.0;
        Ok(Self {
            end: End::new(&sink.port, sink.numbers.received, stretch),
            flows: sink.numbers.flows(),
            bytes: sink.bytes,
            lost: offered.map_or(sink.numbers.missing(), |offered| {
                offered.saturating_sub(sink.numbers.received)
            }),
            late: sink.numbers.late,
            foreign: sink.foreign,
            dropped_by_kernel: kernel.rx_dropped + kernel.rx_ring_full,
            xdp: sink.port.xdp.map_or(String::new(), |mode| mode.to_string()),
            latency: Latency {
                p50: microseconds(sink.latency.value_at_quantile(0.5)),
                p99: microseconds(sink.latency.value_at_quantile(0.99)),
                max: microseconds(sink.latency.max()),
            },
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
