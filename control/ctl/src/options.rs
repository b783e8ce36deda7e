//! Options that all commands share.

use std::io;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use margay_datastore::{Datastore, Url};
use margay_protocol::socket::UnixAddress;
use margay_resources::documents::DocumentReader;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// Options that all commands share.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Datastore, e.g. dir:PATH
    #[arg(long, global = true, env = "MARGAY_DATASTORE", value_name = "URL")]
    pub(crate) datastore: Option<Url>,
    /// Socket of the agent [default: unix:/run/margay/agent.sock]
    #[arg(long, global = true, env = "MARGAY_AGENT", value_name = "unix:PATH")]
    pub(crate) agent: Option<UnixAddress>,
    /// Socket of the dataplane [default: unix:/run/margay/margayd.sock]
    #[arg(long, global = true, env = "MARGAY_DATAPLANE", value_name = "unix:PATH")]
    pub(crate) dataplane: Option<UnixAddress>,
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
#[error("no datastore is given: use --datastore dir:PATH or the variable MARGAY_DATASTORE")]
pub(crate) struct NoDatastore;

// === impl Options ===

impl Options {
    /// The datastore's address.
    pub(crate) fn datastore(&self) -> Result<&Url, NoDatastore> {
        self.datastore.as_ref().ok_or(NoDatastore)
    }

    /// Opens the datastore.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Datastore>, Failure> {
        Ok(margay_datastore::open(self.datastore()?, Arc::new(DocumentReader)).await?)
    }

    /// The form of the output; a table unless another is asked for.
    pub(crate) fn form(&self) -> Form {
        self.output.unwrap_or(Form::Table)
    }

    /// Sends log lines to standard error; a filter that cannot be read counts as `warn`.
    pub(crate) fn start_logging(&self) {
        let filter = EnvFilter::try_new(&self.log).unwrap_or_else(|_| EnvFilter::new("warn"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        lines.with_ansi(false).init();
    }
}
