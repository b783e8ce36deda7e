//! The yardstick: a bare AF_XDP forwarder that touches no header.
//!
//! Frames of one interface leave by the other, both ways, on one thread that never sleeps, with the
//! rings, the memory and the batches of the dataplane's workers. What it does not reach, they cannot.
//!
//! - [`side`]: an interface, its sockets and its program; [`forward`]: the loop; [`report`]: the
//!   figures.

mod side;

mod forward;

mod report;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use margay_xsk::{Binder, ChunkSize, Region, RegionConfig, UmemOptions};

use crate::{forward::forward, report::Report, side::Side};

/// Forwards every frame between two interfaces, and tells how many a second.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// One interface. It loses its traffic to the forwarder while this runs.
    #[arg(long = "in", value_name = "IF")]
    input: String,
    /// The other interface.
    #[arg(long = "out", value_name = "IF")]
    output: String,
    /// Receive queues of each interface to serve.
    #[arg(long, value_name = "N", default_value_t = 1)]
    queues: u32,
    /// CPU to run on.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Stop after that time; otherwise on SIGINT or SIGTERM.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Frames in packet memory.
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    chunks: u32,
    /// The largest frame that must fit, Ethernet header included.
    #[arg(long, value_name = "BYTES", default_value_t = 1518)]
    frame: usize,
    /// Form of the result.
    #[arg(short = 'o', value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    if let Some(cpu) = arguments.cpu {
        let mut cores = core_affinity::get_core_ids().unwrap_or_default().into_iter();
        let core = cores.find(|core| core.id == cpu);
        let pinned = core.is_some_and(core_affinity::set_for_current);
        anyhow::ensure!(pinned, "--cpu: cannot run on CPU {cpu}");
    }

    let chunk_size = ChunkSize::for_frame(arguments.frame)
        .with_context(|| format!("frames of {} bytes are too large", arguments.frame))?;
    let region =
        Region::new(RegionConfig { chunks: arguments.chunks, chunk_size, hugepages: true })?;
    let binder = Binder::new(region, UmemOptions::default());
    let mut input = Side::open(&binder, &arguments.input, arguments.queues)?;
    let mut output = Side::open(&binder, &arguments.output, arguments.queues)?;

    let limit = arguments.seconds.map(Duration::from_secs);
    let run = forward(&mut input, &mut output, region, limit, &stop);
    let report = Report::new(run, &input, &output)?;
    match arguments.format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string(&report)?),
    }
    Ok(())
}
