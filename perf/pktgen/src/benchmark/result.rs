//! The figures of a benchmark, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::{
    arguments::BenchmarkArguments,
    benchmark::{
        Procedure, Standard,
        bench::Bench,
        bursts::BackToBack,
        latency::{DelayVariation, Latency},
        loss::Loss,
        throughput::Throughput,
    },
    port::Port,
    report,
};

/// All of them.
#[derive(Debug, Serialize)]
pub(crate) struct Benchmark {
    standard: Standard,
    /// Seconds of a trial, where not the RFC's.
    seconds: Option<f64>,
    resolution: f64,
    /// Share of packets that may be lost.
    tolerance: f64,
    flows: u32,
    both_directions: bool,
    /// Bytes that the tunnel adds to each frame.
    overhead: usize,
    ends: Vec<Reading>,
    pub(crate) rows: Vec<Row>,
    /// What must be known to read the figures.
    notes: Vec<String>,
}

/// An end: how it ran, and what it lost itself.
#[derive(Debug, Serialize)]
pub(crate) struct Reading {
    interface: String,
    mode: String,
    xdp: Option<String>,
    /// Frames that this end's socket dropped, in all trials.
    dropped_by_kernel: u64,
}

/// The figures of a frame size.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    /// Bytes of the frame, checksum included.
    pub(crate) size: usize,
    pub(crate) throughput: Option<Throughput>,
    pub(crate) latency: Option<Latency>,
    pub(crate) variation: Option<DelayVariation>,
    pub(crate) loss: Option<Vec<Loss>>,
    pub(crate) back_to_back: Option<BackToBack>,
}

// === impl Benchmark ===

impl Benchmark {
    pub(crate) fn new(
        standard: Standard,
        arguments: &BenchmarkArguments,
        procedures: &[Procedure],
        bench: &Bench,
    ) -> Self {
        let mut notes = Vec::from_iter(report::ALONE.map(str::to_owned));
        notes.extend(bench.notes.iter().cloned());
        for procedure in procedures {
            notes.extend(departures(standard, *procedure, bench));
        }
        if bench.asked.tolerance > 0.0 {
            notes.push(format!(
                "throughput may lose {} of the packets; {} allows none",
                bench.asked.tolerance,
                standard.name()
            ));
        }
        Self {
            standard,
            seconds: arguments.seconds,
            resolution: arguments.resolution,
            tolerance: bench.asked.tolerance,
            flows: arguments.traffic.flows,
            both_directions: arguments.both.is_some(),
            overhead: bench.overhead,
            ends: Vec::new(),
            rows: Vec::new(),
            notes,
        }
    }

    /// Adds what is known only at the end.
    pub(crate) fn finish(&mut self, bench: &Bench) {
        match bench.ends() {
            Ok(ends) => self.ends = ends,
            Err(error) => self.notes.push(format!("the sockets' counters are missing: {error:#}")),
        }
        let dropped: u64 = self.ends.iter().map(|end| end.dropped_by_kernel).sum();
        if dropped > 0 {
            self.notes.push(format!(
                "{dropped} frames reached a sink and were dropped there: part of the loss is this \
                 program's"
            ));
        }
        for row in self.rows.iter().filter(|row| !row.rate_kept()) {
            self.notes.push(format!(
                "{} bytes: not every rate asked for could be sent: the rates told are those that were",
                row.size
            ));
        }
        if self.rows.iter().filter_map(|row| row.throughput).any(|found| !found.limited_by_device) {
            self.notes.push(
                "≥: nothing was lost at the highest rate offered, the device may do more".into(),
            );
        }
    }
}

/// Where a procedure is not measured with the RFC's own values.
fn departures(standard: Standard, procedure: Procedure, bench: &Bench) -> Vec<String> {
    let (seconds, repeats) = bench.measure(procedure);
    let (wanted, often) = (procedure.seconds(), procedure.repeats());
    let name = format!("{procedure:?}").to_lowercase();
    let mut notes = Vec::new();
    if seconds < wanted {
        let rfc = standard.name();
        notes.push(format!("{name}: trials of {seconds} s; {rfc} wants {wanted} s"));
    }
    if often > 1 && repeats < often {
        let rfc = standard.name();
        notes.push(format!("{name}: {repeats} times; {rfc} wants {often}"));
    }
    notes
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { standard, flows, overhead, resolution, .. } = self;
        write!(f, "{}, {flows} flows, resolution {resolution}", standard.name())?;
        if *overhead > 0 {
            write!(f, ", overhead {overhead} bytes")?;
        }
        writeln!(f, "{}", if self.both_directions { ", both directions" } else { "" })?;
        for Reading { interface, mode, xdp, .. } in &self.ends {
            let xdp = xdp.as_ref().map_or(String::new(), |xdp| format!(", {xdp} XDP"));
            writeln!(f, "{interface}: {mode} mode{xdp}")?;
        }
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

// === impl Row ===

impl Row {
    /// Whether all packets were sent at the rates asked for.
    fn rate_kept(&self) -> bool {
        self.throughput.is_none_or(|throughput| throughput.rate_kept)
            && self.latency.is_none_or(|latency| latency.rate_kept)
            && self.variation.is_none_or(|variation| variation.rate_kept)
            && self.loss.iter().flatten().all(|point| point.rate_kept)
            && self.back_to_back.is_none_or(|bursts| bursts.rate_kept)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} bytes", self.size)?;
        if let Some(found) = &self.throughput {
            let bound = if found.limited_by_device { "" } else { "≥ " };
            let (rate, gigabits) = (found.packets_per_second, found.gigabits_per_second);
            write!(f, " | throughput {bound}{rate:.0} pps, {gigabits:.3} Gb/s")?;
        }
        if let Some(Latency { delay, rate, .. }) = &self.latency {
            write!(
                f,
                " | latency at {rate:.0} pps: {:.1} us mean, {:.1} p50, {:.1} p99, {:.1} p99.9, {:.1} max",
                delay.mean, delay.p50, delay.p99, delay.p999, delay.max
            )?;
        }
        if let Some(DelayVariation { variation, .. }) = &self.variation {
            write!(
                f,
                " | PDV {:.1} us, IPDV {:.1} p50, {:.1} p99.9, {:.1} max",
                variation.pdv, variation.ipdv_p50, variation.ipdv_p999, variation.ipdv_max
            )?;
        }
        if let Some(points) = &self.loss {
            let points = points.iter().map(|point| {
                let (percent, rate) = (point.percent, point.rate);
                format!("{percent} % ({rate:.0} pps): {:.3} %", point.lost * 100.0)
            });
            write!(f, " | loss at {}", points.collect::<Vec<_>>().join(", "))?;
        }
        if let Some(found) = &self.back_to_back {
            let bound = if found.limited_by_device { "" } else { "≥ " };
            write!(f, " | back to back {bound}{:.0} frames, {:.3} s", found.frames, found.seconds)?;
        }
        Ok(())
    }
}

// === impl Reading ===

impl Reading {
    pub(crate) fn new(port: &Port) -> anyhow::Result<Self> {
        Ok(Self {
            interface: port.interface.clone(),
            mode: port.socket.mode().to_string(),
            xdp: port.xdp.map(|mode| mode.to_string()),
            dropped_by_kernel: port.dropped()?,
        })
    }
}
