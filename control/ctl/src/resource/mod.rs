//! The verbs for objects of the datastore: `get`, `apply`, `create`, `replace`, `patch`, `delete`,
//! `label`.
//!
//! - [`name`]: what people call a kind;
//! - [`input`]: objects out of files;
//! - [`columns`]: the columns of each kind's table; [`print`]: objects in every form;
//! - [`qos`]: what workload endpoints may use;
//! - [`get`], [`write`], [`patch`], [`delete`], [`label`]: a verb each;
//! - [`report`]: what a verb did to each object.

pub(crate) mod name;

pub(crate) mod input;

mod columns;
mod print;

mod report;

mod qos;

mod get;
mod write;
mod patch;
mod delete;
mod label;

use clap::Subcommand;

use crate::failure::Failure;
use crate::options::Options;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Prints objects
    Get(get::Args),
    /// Makes objects that are missing and replaces those that are there
    Apply(write::Apply),
    /// Makes objects, none of which may be there
    Create(write::Create),
    /// Replaces objects, all of which have to be there
    Replace(write::Replace),
    /// Changes a few fields of an object
    Patch(patch::Args),
    /// Deletes objects
    Delete(delete::Args),
    /// Sets or removes a label of an object
    Label(label::Args),
}

/// Runs a verb.
pub(crate) async fn run(options: &Options, verb: &Verb) -> Result<(), Failure> {
    let (store, form) = (options.open().await?, options.form());
    let store = &*store;
    match verb {
        Verb::Get(args) => get::run(store, form, args).await,
        Verb::Apply(args) => write::apply(store, form, args).await,
        Verb::Create(args) => write::create(store, form, args).await,
        Verb::Replace(args) => write::replace(store, form, args).await,
        Verb::Patch(args) => patch::run(store, form, args).await,
        Verb::Delete(args) => delete::run(store, form, args).await,
        Verb::Label(args) => label::run(store, form, args).await,
    }
}
