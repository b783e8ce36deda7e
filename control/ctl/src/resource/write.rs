//! `margayctl apply`, `create`, `replace`: objects as documents say.

use margay_datastore::{Datastore, Error, Key, Object, Revision};
use margay_resources::Resource;
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
    #[arg(short = 'u', long)]
    skip_exists: bool,
}

/// Arguments of `replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    #[command(flatten)]
    files: Files,
}

/// Makes objects that are missing and replaces those that are there.
pub(super) async fn apply(store: &dyn Datastore, form: Form, args: &Apply) -> Result<(), Failure> {
    let mut report = Report::default();
    for value in args.files.read()? {
        let key = key_of(&value)?;
        let result = match store.get(&key).await {
            Ok(found) if found.value == value || found.document() == value => Ok("unchanged"),
            Ok(_) => update(store, value).await.map(|()| "replaced"),
            Err(error) if error.is_not_found() => store.create(value).await.map(|_| "created"),
            Err(error) => Err(error),
        };
        report.note(key, result);
    }
    report.finish(form)
}

/// Makes objects, none of which may be there.
pub(super) async fn create(
    store: &dyn Datastore,
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
pub(super) async fn replace(
    store: &dyn Datastore,
    form: Form,
    args: &Replace,
) -> Result<(), Failure> {
    let mut report = Report::default();
    for value in args.files.read()? {
        let key = key_of(&value)?;
        report.note(key, update(store, value).await.map(|()| "replaced"));
    }
    report.finish(form)
}

/// Puts a changed version in the place of the one that was found, and tells what was `done`.
/// Somebody else's change in between fails it.
///
/// # Errors
/// Also when the new version is not as it should be, or is of another object.
pub(super) async fn exchange(
    store: &dyn Datastore,
    form: Form,
    found: &Object,
    value: Value,
    done: &'static str,
) -> Result<(), Failure> {
    let mut report = Report::default();
    let key = found.key.clone();
    if value == found.value {
        report.note(key, Ok("unchanged"));
        return report.finish(form);
    }
    Resource::check(&value)?;
    if key_of(&value)? != key {
        return Err(Failure::Renamed(Box::new(key)));
    }
    report.note(key, store.update(value, Some(&found.revision)).await.map(|_| done));
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
