//! `margayctl apply`, `create`, `replace`: objects as documents say.

use std::sync::Arc;

use margay_datastore::{Datastore, Error, Key, Revision};
use serde_json::Value;

use super::input::Files;
use super::report::Report;
use crate::failure::Failure;
use crate::options::Form;

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,
}

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    files: Files,
    /// Leave objects alone that exist, and do not fail because of them
    #[arg(long)]
    skip_exists: bool,
}

/// Arguments of `replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    #[command(flatten)]
    files: Files,
}

/// Makes objects that are missing and replaces those that are there.
pub(crate) async fn apply(
    store: Arc<dyn Datastore>,
    form: Form,
    args: &Apply,
) -> Result<(), Failure> {
    let mut report = Report::default();
    for value in args.files.read()? {
        let key = key_of(&value)?;
        let result = match store.get(&key).await {
            Ok(found) if found.value == value => Ok("unchanged"),
            Ok(_) => update(&*store, value).await.map(|()| "replaced"),
            Err(error) if error.is_not_found() => store.create(value).await.map(|_| "created"),
            Err(error) => Err(error),
        };
        report.note(key, result);
    }
    report.finish(form)
}

/// Makes objects, none of which may be there.
pub(crate) async fn create(
    store: Arc<dyn Datastore>,
    form: Form,
    args: &Create,
) -> Result<(), Failure> {
    let mut report = Report::default();
    for value in args.files.read()? {
        let key = key_of(&value)?;
        let result = match store.create(value).await {
            Ok(_) => Ok("created"),
            Err(Error::AlreadyExists(_)) if args.skip_exists => Ok("exists"),
            Err(error) => Err(error),
        };
        report.note(key, result);
    }
    report.finish(form)
}

/// Replaces objects, all of which have to be there.
pub(crate) async fn replace(
    store: Arc<dyn Datastore>,
    form: Form,
    args: &Replace,
) -> Result<(), Failure> {
    let mut report = Report::default();
    for value in args.files.read()? {
        let key = key_of(&value)?;
        report.note(key, update(&*store, value).await.map(|()| "replaced"));
    }
    report.finish(form)
}

/// Replaces an object; where the document names a revision, only that one.
async fn update(store: &dyn Datastore, value: Value) -> Result<(), Error> {
    let revision = value.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let revision = revision.map(|text| Revision(text.into()));
    store.update(value, revision.as_ref()).await.map(drop)
}

fn key_of(value: &Value) -> Result<Key, Failure> {
    Ok(Key::of(value).map_err(Error::from)?)
}
