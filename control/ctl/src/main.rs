//! `margayctl`: the operator's tool.
//!
//! - [`options`]: what all commands share; [`output`]: how results are written; [`failure`]: how
//!   a command fails;
//! - [`files`]: the documents that people hand over; [`ports`]: ports and protocols as they write
//!   them;
//! - [`resource`]: the verbs for objects of the datastore; [`validate`]: documents checked without
//!   a datastore;
//! - [`ipam`]: who has which address;
//! - [`objects`]: reads everything that a datastore holds; [`court`]: who decides on flows that
//!   nobody sends; [`simulate`]: `policy simulate`, the verdicts; [`explain`]: `policy explain`, the
//!   reasons;
//! - [`reach`]: every pair of pods and every port; [`matrix`]: `policy matrix`, who may talk to whom;
//!   [`diff`]: `policy diff`, what documents would change;
//! - [`dataplane`]: what a running `margayd` says of itself;
//! - [`version`] and [`completion`]: of the tool itself.

mod options;

mod output;

mod failure;

mod files;

mod ports;

mod resource;
mod validate;

mod ipam;

mod objects;

mod court;
mod simulate;
mod explain;

mod reach;
mod matrix;
mod diff;

mod dataplane;

mod version;
mod completion;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Failure, with_sources};
use options::Options;

/// Looks into Margay and changes what it is told.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Resource(resource::Verb),
    /// Checks documents without a datastore
    Validate(validate::Args),
    /// Who has which address
    #[command(subcommand)]
    Ipam(ipam::Command),
    /// What policy would say
    #[command(subcommand)]
    Policy(Policy),
    #[command(flatten)]
    Dataplane(dataplane::Command),
    /// The releases of this tool, and of the dataplane and the cluster where they can be asked
    Version,
    /// Prints the completion script of a shell
    Completion(completion::Args),
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Tells the verdict on flows, by the datastore's content and without any running process.
    ///
    /// What domain names resolve to is known to running dataplanes alone: here, rules with domains
    /// match nothing by them. `policy explain` asks the dataplane where there is one.
    Simulate(simulate::Args),
    /// Tells step by step why a flow is allowed or denied
    Explain(explain::Args),
    /// Tells who may talk to whom
    Matrix(matrix::Args),
    /// Tells which verdicts would change if documents were applied
    Diff(diff::Args),
    /// Tells what rules have decided: connections, packets and bytes of each
    Hits(dataplane::hits::Args),
}

/// A cluster's documents are millions of small pieces: they are read and compiled in little more than
/// half of the time that the C library's allocator takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.options.start_logging();
    match run(&cli) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margayctl: {}", with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let options = &cli.options;
    match &cli.command {
        Command::Resource(verb) => wait(resource::run(options, verb))?,
        Command::Validate(args) => return Ok(validate::run(options, args)?),
        Command::Ipam(command) => wait(ipam::run(options, command))?,
        Command::Policy(Policy::Simulate(args)) => return Ok(simulate::run(options, args)?),
        Command::Policy(Policy::Explain(args)) => explain::run(options, args)?,
        Command::Policy(Policy::Matrix(args)) => matrix::run(options, args)?,
        Command::Policy(Policy::Diff(args)) => return Ok(diff::run(options, args)),
        Command::Policy(Policy::Hits(args)) => wait(dataplane::hits::run(options, args))?,
        Command::Dataplane(command) => wait(dataplane::run(options, command))?,
        Command::Version => wait(version::run(options))?,
        Command::Completion(args) => completion::run::<Cli>(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that waits for others.
fn wait<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// Whether whoever read the output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_failure = match error.downcast_ref::<Failure>() {
        Some(Failure::Io(io)) => Some(io),
        _ => None,
    };
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    of_failure.into_iter().chain(causes).any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_command_has_two_options_of_one_name() {
        super::Cli::command().debug_assert();
    }
}
