//! The packet generator: sends numbered packets through AF_XDP, and counts what arrives.
//!
//! - [`arguments`]: the command line; [`flows`]: the packets to send;
//! - [`probe`]: what each of them carries: its flow, its number in it and when it left;
//!   [`numbers`]: what those tell of loss and order;
//! - [`port`]: an interface, in whatever network namespace, with its socket;
//! - [`sender`] and [`sink`]: the two ends; [`run`]: their loop, on one thread that never sleeps;
//! - [`report`]: the figures.

mod arguments;
mod flows;

mod probe;
mod numbers;

mod port;

mod sender;
mod sink;
mod run;

mod report;

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::Context;
use clap::Parser;

use crate::{
    arguments::{Arguments, Command, Format, SendArguments, SinkArguments},
    flows::Flows,
    port::Port,
    report::Report,
    run::{Plan, run},
    sender::Sender,
    sink::Sink,
};

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Send(arguments) => send(&arguments),
        Command::Sink(arguments) => receive(&arguments),
    }
}

fn send(arguments: &SendArguments) -> anyhow::Result<()> {
    let plan = plan(arguments.cpu, Some(arguments.seconds), arguments.warm_up)?;
    let port = Port::open(&arguments.interface, arguments.netns.as_deref(), arguments.size)?;
    let src_mac = match arguments.src_mac {
        Some(mac) => mac,
        None => port.mac()?,
    };
    let flows = Flows::new(arguments, src_mac)?;
    let sink = match &arguments.sink_interface {
        Some(interface) => {
            let frame = arguments.size + arguments::LARGEST_OUTER;
            let mut port = Port::open(interface, arguments.sink_netns.as_deref(), frame)?;
            port.receive(arguments.sink_xdp)?;
            Some(Sink::new(port)?)
        }
        None => None,
    };
    let sender = Sender::new(port, flows, arguments.rate);
    print(&run(plan, Some(sender), sink)?, arguments.format)
}

fn receive(arguments: &SinkArguments) -> anyhow::Result<()> {
    let plan = plan(arguments.cpu, arguments.seconds, arguments.warm_up)?;
    let mut port = Port::open(&arguments.interface, arguments.netns.as_deref(), arguments.frame)?;
    port.receive(arguments.xdp)?;
    print(&run(plan, None, Some(Sink::new(port)?))?, arguments.format)
}

/// Pins the thread and takes the signals.
fn plan(cpu: Option<usize>, seconds: Option<f64>, warm_up: f64) -> anyhow::Result<Plan> {
    if let Some(cpu) = cpu {
        let mut cores = core_affinity::get_core_ids().unwrap_or_default().into_iter();
        let core = cores.find(|core| core.id == cpu);
        let pinned = core.is_some_and(core_affinity::set_for_current);
        anyhow::ensure!(pinned, "--cpu: cannot run on CPU {cpu}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot take signals")?;
    }
    Ok(Plan { seconds, warm_up, stop })
}

fn print(report: &Report, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string(report)?),
    }
    Ok(())
}
