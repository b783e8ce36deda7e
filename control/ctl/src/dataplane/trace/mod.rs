//! `margayctl trace`: what every stage found and decided, of packets that go by or, with
//! `--dry-run`, of packets that nobody sends.
//!
//! - [`filter`]: which packets are wanted; [`frames`]: those of a dry run;
//! - [`show`]: a packet's way for people and programs; [`layers`]: what a frame holds;
//! - [`capture`]: `margayctl capture`, the same packets as a file.

mod filter;
mod frames;

mod show;
mod layers;

pub(super) mod capture;

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use margay_protocol::proto;
use tonic::Streaming;

use super::{connect, in_time};
use crate::failure::Failure;
use crate::options::{Form, Options};

/// Arguments of `trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    filter: filter::Filter,
    /// Ends after so many packets; 0 for no end
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    count: u64,
    /// Ends after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Tells what would become of a packet that nobody sends, as the first of its connection: give
    /// --src, --dst, --protocol and ports, or --pcap
    #[arg(long, conflicts_with_all = ["pod", "net", "port", "to", "drops"])]
    dry_run: bool,
    #[command(flatten)]
    frames: frames::Described,
}

/// Shows packets' ways.
pub(super) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let write = match options.form() {
        Form::Json => show::json,
        Form::Table | Form::Wide => show::text,
        Form::Yaml | Form::Name => return Err(Failure::Usage("use -o table or json")),
    };
    let sightings = if args.dry_run {
        let frames = frames::read(&args.frames, args.filter.protocol, args.filter.from.as_deref())?;
        let mut client = connect(options).await?;
        in_time(client.probe(proto::ProbeRequest { frames })).await??.into_inner()
    } else {
        args.frames.forbid()?;
        open(options, &args.filter, args.count).await?
    };
    let mut out = BufWriter::new(io::stdout());
    each(sightings, args.timeout, |sighting| {
        write(&mut out, sighting)?;
        Ok(out.flush()?)
    })
    .await
}

/// Asks for packets that go by.
async fn open(
    options: &Options,
    filter: &filter::Filter,
    limit: u64,
) -> Result<Streaming<proto::Sighting>, Failure> {
    let mut client = connect(options).await?;
    Ok(in_time(client.trace(filter.request(limit)?)).await??.into_inner())
}

/// Hands on packets until there are no more, the time is over or somebody interrupts.
async fn each(
    mut sightings: Streaming<proto::Sighting>,
    timeout: Option<u64>,
    mut take: impl FnMut(proto::Sighting) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let over = tokio::time::sleep(Duration::from_secs(timeout.unwrap_or(u32::MAX.into())));
    tokio::pin!(over);
    let mut missed = 0;
    loop {
        let sighting = tokio::select! {
            sighting = sightings.message() => sighting?,
            () = &mut over => None,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(sighting) = sighting else { break };
        missed = sighting.missed;
        take(sighting)?;
    }
    if missed > 0 {
        eprintln!("margayctl: {missed} more packets matched and came too fast to be shown");
    }
    Ok(())
}
