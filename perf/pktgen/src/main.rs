//! The packet generator: sends numbered packets through AF_XDP, and counts what arrives.
//!
//! - [`arguments`] and [`values`]: the command line;
//! - [`sizes`]: how long the frames are; [`flows`]: the packets to send, in [`outer`] headers;
//! - [`probe`]: what each of them carries: its flow, its number in it and when it left;
//!   [`numbers`] and [`delay`]: what those tell of loss, order and time;
//! - [`link`] and [`port`]: an interface, in whatever network namespace, with its socket;
//! - [`sender`] and [`sink`]: the two ends, with [`answers`]; [`run`]: their loop, on one thread that never
//!   sleeps;
//! - [`report`]: the figures of a run;
//! - [`capture`] and [`replay`]: packets of a file in place of those made here;
//! - [`benchmark`]: RFC 2544 and RFC 8219, runs between the two sides of a device.

mod arguments;
mod values;

mod sizes;
mod flows;
mod outer;

mod probe;
mod numbers;
mod delay;

mod link;
mod port;

mod sender;
mod sink;
mod answers;
mod run;
mod report;

mod capture;
mod replay;

mod benchmark;

use std::{
    fmt::Display,
    sync::{Arc, LazyLock, atomic::AtomicBool},
};

use anyhow::Context;
use clap::Parser;
use serde::Serialize;

use crate::{
    arguments::{Arguments, Command, Format, Place, SendArguments, SinkArguments},
    benchmark::{Standard, benchmark},
    flows::Flows,
    port::Port,
    replay::replay,
    report::Report,
    run::{Plan, Station, run},
    sender::Sender,
    sink::Sink,
};

/// After the last packet was sent, a quiet time of this many seconds ends a run.
const SETTLE: f64 = 0.1;

fn main() -> anyhow::Result<()> {
    let done = match Arguments::parse().command {
        Command::Send(arguments) => send(&arguments),
        Command::Sink(arguments) => receive(&arguments),
        Command::Replay(arguments) => begin(&arguments.place)
            .and_then(|stop| print(&replay(&arguments, &stop)?, arguments.format)),
        Command::Rfc2544(arguments) => begin(&arguments.place).and_then(|stop| {
            print(&benchmark(Standard::Rfc2544, &arguments, stop)?, arguments.format)
        }),
        Command::Rfc8219(arguments) => begin(&arguments.place).and_then(|stop| {
            print(&benchmark(Standard::Rfc8219, &arguments, stop)?, arguments.format)
        }),
    };
    match rustix::process::geteuid().is_root() {
        true => done,
        false => done.context(
            "not run as root: AF_XDP needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF, other namespaces \
             CAP_SYS_ADMIN",
        ),
    }
}

fn send(arguments: &SendArguments) -> anyhow::Result<()> {
    let SendArguments { place, traffic, .. } = arguments;
    let plan = plan(place, Some(arguments.seconds), arguments.warm_up)?;
    let mut sizes = arguments.size.clone();
    let port = Port::open(&place.interface, place.netns.as_deref(), sizes.largest())?;
    let src_mac = traffic.src_mac.map_or_else(|| port.mac(), Ok)?;
    let flows = Flows::new(traffic, src_mac)?;
    flows.fit(&mut sizes)?;
    port.must_carry(sizes.largest())?;
    let frame = (sizes.largest() + outer::LARGEST).min(port::LARGEST);
    let rate = arguments.rate.map(|rate| rate as f64);
    let sender = Sender::new(flows, sizes, rate, arguments.answers.is_some());
    let mut stations = vec![Station::new(port, Some(sender), None)];
    if let Some(interface) = &arguments.sink_interface {
        let mut port = Port::open(interface, arguments.sink_netns.as_deref(), frame)?;
        port.receive(arguments.sink_xdp)?;
        let mut sink = Sink::new(probe::now(), false)?;
        if let (Some(xdp), [near]) = (arguments.answers, &mut stations[..]) {
            near.port.receive(xdp)?;
            near.sink = Some(Sink::new(probe::now(), false)?);
            sink = sink.answering();
        }
        stations.push(Station::new(port, None, Some(sink)));
    }
    run(&plan, &mut stations)?;
    print(&Report::new(&stations)?, arguments.format)
}

fn receive(arguments: &SinkArguments) -> anyhow::Result<()> {
    let place = &arguments.place;
    let plan = plan(place, arguments.seconds, arguments.warm_up)?;
    let mut port = Port::open(&place.interface, place.netns.as_deref(), arguments.frame)?;
    port.receive(arguments.xdp)?;
    let mut stations = [Station::new(port, None, Some(Sink::new(0, false)?))];
    run(&plan, &mut stations)?;
    print(&Report::new(&stations)?, arguments.format)
}

fn plan(place: &Place, seconds: Option<f64>, warm_up: f64) -> anyhow::Result<Plan> {
    Ok(Plan { seconds, warm_up, settle: SETTLE, stop: begin(place)? })
}

/// Pins the thread and takes the signals, which set what is returned.
fn begin(place: &Place) -> anyhow::Result<Arc<AtomicBool>> {
    LazyLock::force(&report::ALONE);
    if let Some(cpu) = place.cpu {
        let mut cores = core_affinity::get_core_ids().unwrap_or_default().into_iter();
        let core = cores.find(|core| core.id == cpu);
        let pinned = core.is_some_and(core_affinity::set_for_current);
        anyhow::ensure!(pinned, "--cpu: cannot run on CPU {cpu}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot take signals")?;
    }
    Ok(stop)
}

fn print<T: Display + Serialize>(figures: &T, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Text => print!("{figures}"),
        Format::Json => println!("{}", serde_json::to_string(figures)?),
    }
    Ok(())
}
