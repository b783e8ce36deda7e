//! `margayctl`: the operator's tool.
//!
//! - [`options`]: what all commands share;
//! - [`objects`]: reads everything that a datastore holds;
//! - [`simulate`]: `policy simulate`, the verdict on flows that nobody sends;
//! - [`validate`]: `validate`, documents checked without a datastore.

mod options;

mod objects;

mod simulate;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// What policy would say
    #[command(subcommand)]
    Policy(Policy),
    /// Checks documents without a datastore
    Validate(validate::Args),
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Tells the verdict on flows, by the datastore's content and without any running process
    Simulate(simulate::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.options.start_logging();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("margayctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    Ok(match &cli.command {
        Command::Policy(Policy::Simulate(args)) => simulate::run(&cli.options, args)?,
        Command::Validate(args) => validate::run(&cli.options, args)?,
    })
}
