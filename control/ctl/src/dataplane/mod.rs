//! What a running `margayd` says of itself.
//!
//! - [`status`]: `node status`: what runs, in which mode, and what does not;
//! - [`flows`]: the connections; [`names`]: what names resolved to; [`counters`]: what was counted;
//!   [`cycles`]: what the workers do with their time; [`hits`]: what rules have decided;
//! - [`trace`]: packets on their way, and what would become of those that nobody sends.

mod status;

pub(crate) mod flows;
pub(crate) mod names;
mod counters;
mod cycles;
pub(crate) mod hits;

mod trace;

use std::time::Duration;

use clap::Subcommand;
use margay_protocol::socket::{self, UnixAddress};
use margay_protocol::{DEFAULT_SOCKET, DataplaneClient, proto};
use tonic::transport::Channel;

use crate::failure::Failure;
use crate::options::Options;

/// Asks a dataplane.
type Client = DataplaneClient<Channel>;

/// A dataplane that is silent for so long is reported instead of waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Commands that ask the dataplane.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The node, its dataplane and its agent
    #[command(subcommand)]
    Node(Node),
    /// The connections that the dataplane knows
    Flows(flows::Args),
    /// Which addresses the names in policies have resolved to, for how long and by which policies
    Dns(names::Args),
    /// What the dataplane has counted
    Counters(counters::Args),
    /// Shows packets' ways: what every stage found and decided
    Trace(trace::Args),
    /// Writes packets to a pcapng file, with what became of them
    Capture(trace::capture::Args),
}

/// Subcommands of `node`.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Tells what runs: ports and their modes, workers, the state in force, what is not up
    Status,
}

/// Runs a command.
pub(crate) async fn run(options: &Options, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Node(Node::Status) => status::run(options).await,
        Command::Flows(args) => flows::run(options, args).await,
        Command::Dns(args) => names::run(options, args).await,
        Command::Counters(args) => counters::run(options, args).await,
        Command::Trace(args) => trace::run(options, args).await,
        Command::Capture(args) => trace::capture::run(options, args).await,
    }
}

/// Connects to the dataplane.
async fn connect(options: &Options) -> Result<Client, Failure> {
    let address = match &options.dataplane {
        Some(address) => address.clone(),
        None => DEFAULT_SOCKET.parse::<UnixAddress>()?,
    };
    Ok(in_time(socket::connect(&address)).await??)
}

/// What the dataplane is and does.
pub(crate) async fn status(options: &Options) -> Result<proto::Status, Failure> {
    let mut client = connect(options).await?;
    let answer = in_time(client.get_status(proto::GetStatusRequest {})).await??;
    Ok(answer.into_inner())
}

/// Waits for an answer, but not for ever.
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| Failure::Silent(PATIENCE))
}
