//! `margayd`: the dataplane of a node.

use clap::Parser;
use margayd::config::{Config, Flags};

fn main() -> anyhow::Result<()> {
    let config = Config::load(Flags::parse())?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&config.log)?)
        .with_writer(std::io::stderr)
        .init();
    margayd::run(config)
}
