//! `margayctl ipam`: who has which address.
//!
//! - [`show`]: how full pools and blocks are, who has an address;
//! - [`check`]: whether the records agree; [`release`]: what `check` found is given back;
//! - [`change`]: settings, and a pool cut into parts.

mod show;
mod check;
mod release;

mod change;

use std::sync::Arc;

use clap::Subcommand;
use margay_datastore::Datastore;
use margay_ipam::Ipam;

use crate::failure::Failure;
use crate::options::{Form, Options};

/// Subcommands of `ipam`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How full the pools are, or who has an address
    Show(show::Args),
    /// Whether blocks, handles, affinities and endpoints agree; fails if they do not
    Check(check::Args),
    /// Gives addresses back that nobody uses
    Release(release::Args),
    /// Cuts a pool into equal parts; addresses in use stay as they are
    Split(change::Split),
    /// Changes how addresses are assigned
    Configure(change::Configure),
}

/// What the subcommands work on.
struct Context {
    store: Arc<dyn Datastore>,
    ipam: Ipam,
    form: Form,
}

/// Runs a subcommand.
pub(crate) async fn run(options: &Options, command: &Command) -> Result<(), Failure> {
    let store = options.open().await?;
    let context = Context { ipam: Ipam::new(store.clone()), store, form: options.form() };
    match command {
        Command::Show(args) => show::run(&context, args).await,
        Command::Check(args) => check::run(&context, args).await,
        Command::Release(args) => release::run(&context, args).await,
        Command::Split(args) => change::split(&context, args).await,
        Command::Configure(args) => change::configure(&context, args).await,
    }
}
