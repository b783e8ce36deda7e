//! The two ends of the device under test, and a trial between them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::bail;

use crate::{
    arguments::{BenchmarkArguments, Traffic},
    benchmark::{
        FCS, Procedure, Standard,
        result::{Reading, Row},
    },
    delay::{Delay, Variation},
    flows::Flows,
    outer::Macs,
    port::{self, Port},
    probe, report,
    run::{Plan, Station, run},
    sender::Sender,
    sink::Sink,
    sizes::Sizes,
};

/// Before the first trial every connection sends one packet, so many a second at least.
const LEARNING: f64 = 10_000.0;
/// Longest time that this may take.
const LEARNING_SECONDS: f64 = 2.0;
/// Bytes of a frame on the medium beside it: preamble, delimiter and gap (IEEE 802.3).
const ON_THE_WIRE: f64 = 20.0;

/// Both ends, and how trials are made.
pub(crate) struct Bench {
    pub(crate) standard: Standard,
    /// Frame sizes to measure, checksum included.
    pub(crate) sizes: Vec<usize>,
    /// What must be known to read the figures.
    pub(crate) notes: Vec<String>,
    /// Bytes that a tunnel adds, at either side.
    pub(crate) overhead: usize,
    pub(crate) asked: Asked,
    stations: [Station; 2],
    there: Flows,
    back: Option<Flows>,
    stop: Arc<AtomicBool>,
}

/// Of the command line, what trials need.
pub(crate) struct Asked {
    max_rate: Option<f64>,
    line: Option<f64>,
    seconds: Option<f64>,
    repeats: Option<u32>,
    settle: f64,
    pause: f64,
    pub(crate) rate: Option<f64>,
    pub(crate) resolution: f64,
    pub(crate) tolerance: f64,
}

/// What is offered in a trial, by each sender.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Packets a second; as many as possible if none.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: Option<f64>,
    /// Packets in all.
    pub(crate) packets: Option<u64>,
    /// Whether differences between delays are kept.
    pub(crate) variation: bool,
}

/// What came of a trial, over all directions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Packets a second that each sender sent.
    pub(crate) rate: f64,
    /// Whether that is what was asked for.
    pub(crate) kept: bool,
    /// Of the forward direction.
    pub(crate) delay: Delay,
    pub(crate) variation: Option<Variation>,
}

// === impl Trial ===

impl Trial {
    /// Share that was lost.
    pub(crate) fn loss(&self) -> f64 {
        self.sent.saturating_sub(self.received) as f64 / self.sent.max(1) as f64
    }
}

// === impl Bench ===

impl Bench {
    /// Opens both ends and makes sure that packets arrive.
    pub(crate) fn open(
        standard: Standard,
        arguments: &BenchmarkArguments,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let place = &arguments.place;
        let ends = [
            (&place.interface, place.netns.as_deref()),
            (&arguments.sink_interface, arguments.sink_netns.as_deref()),
        ];
        let mut most = port::LARGEST;
        for (interface, netns) in ends {
            most = most.min(port::largest_frame(interface, netns)?);
        }
        let [mut near, mut far] =
            [Port::open(ends[0].0, ends[0].1, most)?, Port::open(ends[1].0, ends[1].1, most)?];
        far.receive(arguments.sink_xdp)?;
        let there = Flows::new(&arguments.traffic, source(&near, &arguments.traffic)?)?;
        let back = match arguments.both {
            Some(dst) => {
                near.receive(arguments.sink_xdp)?;
                let macs = Macs { src: far.mac()?, dst };
                Some(there.clone().back(&arguments.traffic, macs)?)
            }
            None => None,
        };
        let overhead = arguments.overhead.unwrap_or(0).max(there.overhead());
        let mut bench = Self {
            standard,
            sizes: Vec::new(),
            notes: Vec::new(),
            overhead,
            asked: Asked::new(arguments),
            stations: [near, far].map(|port| Station::new(port, None, None)),
            there,
            back,
            stop,
        };
        bench.choose_sizes(&arguments.sizes, most - arguments.overhead.unwrap_or(0))?;
        Ok(bench)
    }

    /// The sizes that have room for a probe and fit both interfaces; the notes tell of the others.
    fn choose_sizes(&mut self, asked: &[usize], most: usize) -> anyhow::Result<()> {
        let sizes = if asked.is_empty() { self.standard.sizes() } else { asked };
        let least = self.there.least() + FCS;
        let (fitting, large): (Vec<usize>, Vec<usize>) =
            sizes.iter().partition(|size| **size <= most + FCS);
        if !large.is_empty() {
            self.notes.push(format!(
                "frames of {large:?} bytes left out: the interfaces and this program take {} with the \
                 device's overhead",
                most + FCS
            ));
        }
        if fitting.iter().any(|size| *size < least) {
            self.notes.push(format!(
                "frames below {least} bytes are of {least}: headers and the probe need that"
            ));
        }
        self.sizes = fitting.into_iter().map(|size| size.max(least)).collect();
        self.sizes.dedup();
        anyhow::ensure!(!self.sizes.is_empty(), "--sizes: none fits: {}", self.notes.join("; "));
        Ok(())
    }

    /// Measures all that is asked for at a frame size.
    pub(crate) fn row(&mut self, size: usize, procedures: &[Procedure]) -> anyhow::Result<Row> {
        self.learn(size)?;
        let mut row = Row { size, ..Row::default() };
        for procedure in procedures {
            match procedure {
                Procedure::Throughput => row.throughput = Some(self.throughput(size)?),
                Procedure::Latency => row.latency = Some(self.latency(size, &row)?),
                Procedure::DelayVariation => row.variation = Some(self.variation(size, &row)?),
                Procedure::Loss => row.loss = Some(self.loss(size)?),
                Procedure::BackToBack => row.back_to_back = Some(self.bursts(size)?),
                Procedure::All => {}
            }
        }
        Ok(row)
    }

    /// A packet of every connection, slowly: the device learns addresses and connections (RFC 2544
    /// §23). If not one arrives there is nothing to measure.
    fn learn(&mut self, size: usize) -> anyhow::Result<()> {
        let flows = f64::from(self.there.count());
        let load = Load {
            rate: Some(LEARNING.max(flows / LEARNING_SECONDS)),
            packets: Some(self.there.count().max(10).into()),
            ..Load::default()
        };
        let trial = self.attempt(size, load)?;
        if trial.received == 0 {
            bail!("frames of {size} bytes: {}", report::NOTHING);
        }
        Ok(())
    }

    /// One trial; then the device rests.
    ///
    /// # Errors
    /// An interface is lost, or a signal came.
    pub(crate) fn trial(&mut self, size: usize, load: Load) -> anyhow::Result<Trial> {
        let trial = self.attempt(size, load)?;
        let asked =
            load.rate.map_or("all that is possible".into(), |rate| format!("{rate:.0} pps"));
        eprintln!(
            "  {size} bytes, {asked}: {:.0} pps sent, {} of {} lost",
            trial.rate,
            trial.sent.saturating_sub(trial.received),
            trial.sent
        );
        thread::sleep(Duration::from_secs_f64(self.asked.pause));
        Ok(trial)
    }

    fn attempt(&mut self, size: usize, load: Load) -> anyhow::Result<Trial> {
        let since = probe::now();
        let [near, far] = &mut self.stations;
        let both = self.back.is_some();
        let sender = |flows: &Flows| {
            let mut sender = Sender::new(flows.clone(), Sizes::one(size - FCS), load.rate, both);
            sender.limit = load.packets;
            sender
        };
        near.sender = Some(sender(&self.there));
        far.sender = self.back.as_ref().map(sender);
        far.sink = Some(Sink::new(since, load.variation)?);
        near.sink = both.then(|| Sink::new(since, false)).transpose()?;
        let plan = Plan {
            seconds: load.seconds,
            warm_up: 0.0,
            settle: self.asked.settle,
            stop: Arc::clone(&self.stop),
        };
        run(&plan, &mut self.stations)?;
        if self.stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(self.summary())
    }

    fn summary(&self) -> Trial {
        let [near, far] = &self.stations;
        let senders = || [near, far].into_iter().filter_map(|end| end.sender.as_ref());
        let sinks = || [near, far].into_iter().filter_map(|end| end.sink.as_ref());
        let delays = far.sink.as_ref().map(|sink| &sink.delays);
        let rates = [near, far].into_iter().filter(|end| end.sender.is_some());
        Trial {
            sent: senders().map(|sender| sender.sent).sum(),
            received: sinks().map(|sink| sink.numbers.received).sum(),
            rate: rates.map(|end| end.sent.rate()).fold(f64::INFINITY, f64::min),
            kept: senders().all(Sender::kept_rate),
            delay: delays.map(|delays| delays.delay()).unwrap_or_default(),
            variation: delays.and_then(|delays| delays.variation()),
        }
    }

    /// The rate where a search begins: that of the medium, or what the generator can do.
    pub(crate) fn max_rate(&mut self, size: usize) -> anyhow::Result<Option<f64>> {
        let line =
            self.asked.line.map(|gigabits| gigabits * 1e9 / 8.0 / (size as f64 + ON_THE_WIRE));
        Ok(self.asked.max_rate.or(line))
    }

    /// Seconds of a procedure's trials, and how often it is repeated.
    pub(crate) fn measure(&self, procedure: Procedure) -> (f64, u32) {
        (
            self.asked.seconds.unwrap_or_else(|| procedure.seconds()),
            self.asked.repeats.unwrap_or_else(|| procedure.repeats()),
        )
    }

    /// The rate of latency and delay variation.
    pub(crate) fn rate_for(&mut self, size: usize, row: &Row) -> anyhow::Result<f64> {
        match (self.asked.rate, &row.throughput) {
            (Some(rate), _) => Ok(rate),
            (None, Some(throughput)) => Ok(throughput.packets_per_second),
            (None, None) => Ok(self.throughput(size)?.packets_per_second),
        }
    }

    /// Interfaces and modes of both ends, and what their sockets dropped.
    pub(crate) fn ends(&self) -> anyhow::Result<Vec<Reading>> {
        self.stations.iter().map(|station| Reading::new(&station.port)).collect()
    }
}

fn source(port: &Port, traffic: &Traffic) -> anyhow::Result<[u8; 6]> {
    traffic.src_mac.map_or_else(|| port.mac(), Ok)
}

// === impl Asked ===

impl Asked {
    fn new(arguments: &BenchmarkArguments) -> Self {
        Self {
            max_rate: arguments.max_rate,
            line: arguments.line,
            seconds: arguments.seconds,
            repeats: arguments.repeats,
            settle: arguments.settle,
            pause: arguments.pause,
            rate: arguments.rate,
            resolution: arguments.resolution,
            tolerance: arguments.tolerance.unwrap_or(0.0),
        }
    }
}
