//! `margay-agent`: the Margay control plane of one node.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use margay_agent::config::{Config, Given};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let given = Given::parse().with_file()?;
    log_to_stderr(given.log.as_deref())?;
    let config = Config::resolve(given)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    margay_agent::run(config, async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await?;
    Ok(())
}

/// The filter that was given, else RUST_LOG, else `info`.
fn log_to_stderr(given: Option<&str>) -> anyhow::Result<()> {
    let from_env = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = given.map(str::to_owned).or(from_env).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&filter)
        .with_context(|| format!("--log {filter:?}: write error, warn, info, debug or trace"))?;
    // Colours are for people; programs look for `file=` and the like.
    let colours = stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(stderr).init();
    Ok(())
}
