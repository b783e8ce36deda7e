//! Options that all commands share.

use std::io;

use clap::{Args, ValueEnum};
use margay_datastore::Url;
use tracing_subscriber::EnvFilter;

/// Options that all commands share.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Datastore, e.g. dir:PATH
    #[arg(long, global = true, env = "MARGAY_DATASTORE", value_name = "URL")]
    pub(crate) datastore: Option<Url>,
    /// Socket of the agent, unix:PATH
    #[arg(long, global = true, env = "MARGAY_AGENT", value_name = "unix:PATH")]
    pub(crate) agent: Option<String>,
    /// Socket of the dataplane, unix:PATH
    #[arg(long, global = true, env = "MARGAY_DATAPLANE", value_name = "unix:PATH")]
    pub(crate) dataplane: Option<String>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, value_name = "FORM")]
    pub(crate) output: Option<Form>,
    /// What is logged to standard error, e.g. debug or margay_datastore=trace
    #[arg(long, global = true, env = "RUST_LOG", default_value = "warn", value_name = "FILTER")]
    pub(crate) log: String,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Columns
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Names only
    Name,
}

/// An option that the command needs is missing.
#[derive(Debug, thiserror::Error)]
#[error("no {what} is given: use {option} or the environment variable {variable}")]
pub(crate) struct Missing {
    what: &'static str,
    option: &'static str,
    variable: &'static str,
}

// === impl Options ===

impl Options {
    /// The datastore.
    pub(crate) fn datastore(&self) -> Result<&Url, Missing> {
        let (option, variable) = ("--datastore dir:PATH", "MARGAY_DATASTORE");
        self.datastore.as_ref().ok_or(Missing { what: "datastore", option, variable })
    }

    /// Sends log lines to standard error; a filter that cannot be read counts as `warn`.
    pub(crate) fn start_logging(&self) {
        let filter = EnvFilter::try_new(&self.log).unwrap_or_else(|_| EnvFilter::new("warn"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        lines.with_ansi(false).init();
    }
}
