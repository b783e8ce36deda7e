//! The figures of a run, for people and for programs.

use std::fmt;

use margay_xsk::KernelCounters;
use serde::Serialize;

use crate::forward::{Between, Run};
use crate::side::Side;

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Seconds in which frames came.
    seconds: f64,
    /// Frames forwarded, whatever way.
    packets: u64,
    /// Frames forwarded a second.
    packets_per_second: f64,
    /// What a frame took, in nanoseconds, the looks at empty rings left out.
    nanoseconds_per_packet: f64,
    ways: Vec<Way>,
}

/// Frames from one interface: one direction, or both, where that is the trunk of both pods.
#[derive(Debug, Serialize)]
struct Way {
    from: String,
    mode: String,
    xdp: String,
    fallback: Option<String>,
    packets: u64,
    /// The tx ring that they leave by was full.
    dropped_tx_ring_full: u64,
    /// The kernel found no room in the rx ring, or no free frame.
    dropped_by_kernel: u64,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(run: Run, between: &Between) -> anyhow::Result<Self> {
        let seconds = run.busy.as_secs_f64();
        let packets = run.forwarded.iter().sum::<u64>();
        let packets_per_second = if packets == 0 { 0.0 } else { packets as f64 / seconds };
        let nanoseconds_per_packet = run.at_work.as_nanos() as f64 / packets.max(1) as f64;
        let sides = std::iter::once(&between.near).chain(&between.far).enumerate();
        let ways = sides.map(|(way, side)| Way::new(&run, way, side)).collect::<Result<_, _>>()?;
        Ok(Self { seconds, packets, packets_per_second, nanoseconds_per_packet, ways })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} packets in {:.2} s: {:.3} Mpps, {:.0} ns of work each",
            self.packets,
            self.seconds,
            self.packets_per_second / 1e6,
            self.nanoseconds_per_packet
        )?;
        self.ways.iter().try_for_each(|way| writeln!(f, "{way}"))
    }
}

// === impl Way ===

impl Way {
    fn new(run: &Run, way: usize, side: &Side) -> anyhow::Result<Self> {
        let mut dropped_by_kernel = 0;
        for socket in &side.sockets {
            let KernelCounters { rx_dropped, rx_ring_full, .. } = socket.kernel_counters()?;
            dropped_by_kernel += rx_dropped + rx_ring_full;
        }
        Ok(Self {
            from: side.name.clone(),
            mode: side.sockets.first().map_or(String::new(), |socket| socket.mode().to_string()),
            xdp: side.attached.mode.to_string(),
            fallback: side.fallback.as_ref().map(ToString::to_string),
            packets: run.forwarded[way],
            dropped_tx_ring_full: run.dropped[way],
            dropped_by_kernel,
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  from {}: {} forwarded, {} dropped (tx ring full), {} dropped by the kernel; {} XDP, \
             {} mode",
            self.from,
            self.packets,
            self.dropped_tx_ring_full,
            self.dropped_by_kernel,
            self.xdp,
            self.mode
        )?;
        self.fallback.iter().try_for_each(|reason| write!(f, " ({reason})"))
    }
}
