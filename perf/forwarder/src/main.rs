//! The yardstick: a bare AF_XDP forwarder that touches no header.
//!
//! Frames of one interface leave by the other, both ways, on one thread that never sleeps, with the
//! rings, the memory and the batches of the dataplane's workers. What it does not reach, they cannot.
//! The two interfaces have sockets of their own, or are those of pods behind a trunk: the two kinds of
//! ports that the dataplane gives pods.
//!
//! - [`side`]: an interface, its sockets and its program; [`trunk`]: pods' interfaces behind one;
//!   [`forward`]: the loop; [`report`]: the figures.

mod side;
mod trunk;

mod forward;

mod report;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use margay_xsk::{Binder, ChunkSize, Region, RegionConfig, UmemOptions};

use crate::{
    forward::{Between, forward},
    report::Report,
    side::Side,
    trunk::Trunk,
};

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
    /// They are pods' host ends: what they send comes and goes by a veth pair, this one, as behind
    /// margayd. Neither end is to have segmentation offload; sockets are at the second.
    #[arg(long, num_args = 2, value_names = ["KERNEL-END", "FAR-END"])]
    trunk: Option<Vec<String>>,
    /// Only --in is behind the trunk; --out has sockets of its own, as the uplink of a node.
    #[arg(long, requires = "trunk")]
    uplink: bool,
    /// Receive queues to serve of each interface with sockets.
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
    let Arguments { input, output, .. } = &arguments;
    let side = |name| Side::open(&binder, name, arguments.queues);
    let mut between = match arguments.trunk.as_deref() {
        Some([kernel_end, far_end]) => {
            let near = side(far_end)?;
            let far = arguments.uplink.then(|| side(output)).transpose()?;
            let pods: &[&str] = if arguments.uplink { &[input] } else { &[input, output] };
            Between { near, far, trunk: Some(Trunk::open(kernel_end, pods)?) }
        }
        _ => Between { near: side(input)?, far: Some(side(output)?), trunk: None },
    };

    let limit = arguments.seconds.map(Duration::from_secs);
    let run = forward(&mut between, region, limit, &stop);
    let report = Report::new(run, &between)?;
    match arguments.format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string(&report)?),
    }
    Ok(())
}
