//! `margayctl validate`: are these documents good?

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use margay_datastore::Format;
use margay_resources::documents::{self, Finding, Outcome};
use serde::Serialize;

use crate::files::{self, ReadError, Remark, Text};
use crate::options::{Form, Options};

/// Arguments of `validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File, directory, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
}

/// Nothing could be validated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidateError {
    /// A file or folder.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Standard output.
    #[error("cannot write the result")]
    Write(#[source] io::Error),
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Good objects.
    valid: usize,
    /// Objects of kinds that are of no concern.
    foreign: usize,
    /// Bad objects.
    invalid: usize,
    errors: Vec<Remark>,
    warnings: Vec<Remark>,
}

/// Checks the documents; fails if one is bad.
pub(crate) fn run(options: &Options, args: &Args) -> Result<ExitCode, ValidateError> {
    let mut report = Report::default();
    for Text { file, text, format } in files::read(&args.filename, true)? {
        report.add(&file, &text, format);
    }
    report.write(options.output).map_err(ValidateError::Write)?;
    Ok(if report.invalid == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// === impl Report ===

impl Report {
    fn add(&mut self, file: &str, text: &str, format: Format) {
        for entry in documents::read(text, format) {
            let remarks = |findings: &[Finding]| -> Vec<_> {
                findings.iter().map(|finding| Remark::new(file, &entry, finding)).collect()
            };
            match &entry.outcome {
                Outcome::Foreign => self.foreign += 1,
                Outcome::Object { warnings, .. } => {
                    self.valid += 1;
                    self.warnings.extend(remarks(warnings));
                }
                Outcome::Bad(findings) => {
                    self.invalid += 1;
                    self.errors.extend(remarks(findings));
                }
            }
        }
    }

    /// Remarks go to standard error, the count to standard output; as JSON or YAML all of it goes
    /// to standard output.
    fn write(&self, form: Option<Form>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if matches!(form, Some(Form::Json | Form::Yaml)) {
            // JSON is YAML.
            serde_json::to_writer_pretty(&mut out, self)?;
            return writeln!(out);
        }
        for warning in &self.warnings {
            eprintln!("{warning} (warning)");
        }
        for error in &self.errors {
            eprintln!("{error}");
        }
        writeln!(out, "{} valid, {} invalid", self.valid, self.invalid)?;
        if self.foreign > 0 {
            writeln!(out, "{} of other kinds were not checked", self.foreign)?;
        }
        Ok(())
    }
}
