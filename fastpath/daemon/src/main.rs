//! `margayd`: the dataplane of a node.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::Parser;
use margayd::config::{Config, Flags};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margayd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    // Colours are for people; programs look for `uplink=` and the like.
    let colours = stderr().is_terminal();
    let filter = EnvFilter::try_new(&config.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(stderr).init();
    margayd::run(config)
}
