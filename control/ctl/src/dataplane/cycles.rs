//! `margayctl counters --cycles`: what the workers do with their time.

use std::io::{self, Write};
use std::time::Duration;

use margay_protocol::proto;
use serde::Serialize;

use super::{Client, connect, in_time};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{Table, write_structured};

/// What happened in a span of time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cycles {
    seconds: f64,
    /// Of the clock that cycles are counted by.
    cycles_per_second: f64,
    workers: Vec<Worker>,
}

#[derive(Debug, Serialize)]
struct Worker {
    index: u32,
    stages: Vec<Stage>,
    turns: Vec<Turns>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    stage: String,
    calls: u64,
    packets: u64,
    cycles: u64,
    /// Of the worker's time, between 0 and 1.
    share: f64,
}

/// Turns of a worker by their length.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Turns {
    /// No turn took so long.
    below_ns: u64,
    turns: u64,
}

/// Asks the dataplane twice, so many seconds apart; with none, what was since its start.
pub(super) async fn run(options: &Options, seconds: f64) -> Result<(), Failure> {
    let mut client = connect(options).await?;
    let mut before = None;
    if seconds > 0.0 {
        before = Some(ask(&mut client).await?);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
    let cycles = Cycles::between(before, ask(&mut client).await?);
    if !write_structured(options.form(), &cycles)? {
        cycles.write(&mut io::stdout().lock())?;
    }
    Ok(())
}

async fn ask(client: &mut Client) -> Result<proto::Cycles, Failure> {
    Ok(in_time(client.get_cycles(proto::GetCyclesRequest {})).await??.into_inner())
}

// === impl Cycles ===

impl Cycles {
    /// What came between two answers, or before the only one.
    fn between(before: Option<proto::Cycles>, now: proto::Cycles) -> Self {
        let before = before.unwrap_or_default();
        let begun = if before.workers.is_empty() { now.since } else { before.now };
        let ticks = now.now.saturating_sub(begun) as f64;
        let mut earlier = before.workers.into_iter();
        let workers = now.workers.into_iter().map(|worker| {
            let earlier = earlier.next().unwrap_or_default();
            Worker::between(earlier, worker, now.ticks_per_second)
        });
        Self {
            workers: workers.collect(),
            seconds: ticks / now.ticks_per_second,
            cycles_per_second: now.ticks_per_second,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (seconds, megahertz) = (self.seconds, self.cycles_per_second / 1e6);
        writeln!(out, "{seconds:.1} s, {megahertz:.0} million cycles a second\n")?;
        let titles =
            ["WORKER", "STAGE", "CALLS", "PACKETS", "PACKETS/CALL", "CYCLES/PACKET", "SHARE"];
        let mut stages = Table::new(titles);
        let mut turns = Table::new(["WORKER", "TURNS BELOW", "TURNS"]);
        for worker in &self.workers {
            worker.stages.iter().for_each(|stage| stages.push(stage.row(worker.index)));
            worker.turns.iter().for_each(|each| turns.push(each.row(worker.index)));
        }
        stages.write(out)?;
        if !turns.is_empty() {
            writeln!(out)?;
            turns.write(out)?;
        }
        Ok(())
    }
}

// === impl Worker ===

impl Worker {
    fn between(
        before: proto::WorkerCycles,
        now: proto::WorkerCycles,
        ticks_per_second: f64,
    ) -> Self {
        let mut earlier = before.stages.into_iter();
        let stages: Vec<_> = (now.stages.into_iter())
            .map(|stage| Stage::between(earlier.next().unwrap_or_default(), stage))
            .collect();
        let all = stages.iter().map(|stage| stage.cycles).sum::<u64>().max(1) as f64;
        let share = |stage: Stage| Stage { share: stage.cycles as f64 / all, ..stage };
        let mut earlier = before.turns.into_iter();
        let turns = now.turns.into_iter().enumerate().map(|(n, turns)| Turns {
            below_ns: (2f64.powi(n as i32) / ticks_per_second * 1e9) as u64,
            turns: turns.saturating_sub(earlier.next().unwrap_or(0)),
        });
        Self {
            index: now.index,
            turns: turns.filter(|each| each.turns > 0).collect(),
            stages: stages.into_iter().map(share).collect(),
        }
    }
}

// === impl Stage ===

impl Stage {
    fn between(before: proto::StageCycles, now: proto::StageCycles) -> Self {
        Self {
            stage: now.stage,
            calls: now.calls.saturating_sub(before.calls),
            packets: now.packets.saturating_sub(before.packets),
            cycles: now.ticks.saturating_sub(before.ticks),
            share: 0.0,
        }
    }

    fn row(&self, worker: u32) -> Vec<String> {
        let per = |a: u64, b: u64, digits| match b {
            0 => String::new(),
            _ => format!("{:.digits$}", a as f64 / b as f64),
        };
        // Stages without packets have no cost for each.
        let batch = if self.packets > 0 { per(self.packets, self.calls, 1) } else { String::new() };
        vec![
            worker.to_string(),
            self.stage.clone(),
            self.calls.to_string(),
            self.packets.to_string(),
            batch,
            per(self.cycles, self.packets, 0),
            format!("{:.1} %", self.share * 100.0),
        ]
    }
}

// === impl Turns ===

impl Turns {
    fn row(&self, worker: u32) -> Vec<String> {
        let below = Duration::from_nanos(self.below_ns);
        vec![worker.to_string(), format!("{below:.1?}"), self.turns.to_string()]
    }
}
