//! What a verb did to each object.

use std::io::{self, Write};

use margay_datastore::Key;
use margay_resources::Kind;
use serde_json::{Value, json};

use super::name::word;
use crate::failure::{Failure, with_mend};
use crate::options::Form;
use crate::output::{write_json, write_yaml};

/// Collects what became of each object.
#[derive(Debug, Default)]
pub(super) struct Report {
    done: Vec<(Key, &'static str)>,
    failed: Vec<String>,
}

// === impl Report ===

impl Report {
    /// Notes what was done to an object, or what went wrong.
    pub(super) fn note(&mut self, key: Key, result: Result<&'static str, margay_datastore::Error>) {
        match result {
            Ok(what) => self.done.push((key, what)),
            Err(error) => self.failed.push(with_mend(&error)),
        }
    }

    /// Notes why nothing was done to an object.
    pub(super) fn refuse(&mut self, key: &Key, reason: &str) {
        self.failed.push(format!("{key}: {reason}"));
    }

    /// Tells what was done.
    ///
    /// # Errors
    /// `Partly` when something failed.
    pub(super) fn finish(self, form: Form) -> Result<(), Failure> {
        self.write(&mut io::stdout().lock(), form)?;
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(Failure::Partly { done: self.done.len(), failed: self.failed })
    }

    fn write(&self, out: &mut impl Write, form: Form) -> io::Result<()> {
        let object = |(key, what): &(Key, &'static str)| {
            json!({
                "kind": key.kind.kind,
                "namespace": key.namespace,
                "name": key.name,
                "result": what,
            })
        };
        let all = || Value::Array(self.done.iter().map(object).collect());
        match form {
            Form::Json => write_json(out, &all()),
            Form::Yaml => write_yaml(out, &all()),
            Form::Name => self.done.iter().try_for_each(|(key, _)| {
                let kind = Kind::of_stored(&key.kind).map(word).unwrap_or_default();
                writeln!(out, "{kind}/{}", key.name)
            }),
            Form::Table | Form::Wide => {
                self.done.iter().try_for_each(|(key, what)| writeln!(out, "{key} {what}"))
            }
        }
    }
}
