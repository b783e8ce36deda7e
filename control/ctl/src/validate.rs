//! `margayctl validate`: are these documents good?

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use margay_datastore::Format;
use margay_resources::documents::{self, Entry, Finding, Outcome};
use serde::Serialize;

use crate::options::{Form, Options};

/// Arguments of `validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File, directory, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
}

/// What cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidateError {
    /// A file or directory.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot write the result")]
    Write(#[source] io::Error),
}

/// Something that is wrong, or that is ignored.
#[derive(Debug, Serialize)]
struct Remark {
    file: String,
    line: usize,
    column: usize,
    kind: Option<&'static str>,
    namespace: Option<String>,
    name: Option<String>,
    field: String,
    message: String,
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
    for path in &args.filename {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            read.map_err(|source| ValidateError::Read { path: path.clone(), source })?;
            report.add("-", &text, Format::Yaml);
            continue;
        }
        for (path, format) in files(path)? {
            let text = fs::read_to_string(&path)
                .map_err(|source| ValidateError::Read { path: path.clone(), source })?;
            report.add(&path.display().to_string(), &text, format);
        }
    }
    report.write(options.output).map_err(ValidateError::Write)?;
    Ok(if report.invalid == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The documents that a path stands for, in the order of their names. A file that is named is
/// read whatever it is called, in a directory only YAML and JSON.
fn files(path: &Path) -> Result<Vec<(PathBuf, Format)>, ValidateError> {
    let failed = |source| ValidateError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![(path.to_owned(), format_of(path).unwrap_or(Format::Yaml))]);
    }
    let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(failed)?.collect();
    let mut paths: Vec<_> = entries.map_err(failed)?.iter().map(|e| e.path()).collect();
    paths.retain(|p| p.file_name().is_some_and(|n| !n.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if let Some(format) = format_of(&path) {
            found.push((path, format));
        }
    }
    Ok(found)
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
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

// === impl Remark ===

impl Remark {
    fn new(file: &str, entry: &Entry, finding: &Finding) -> Self {
        let object = entry.object.as_ref();
        Self {
            file: file.to_owned(),
            line: finding.at.line,
            column: finding.at.column,
            kind: object.map(|(kind, ..)| kind.kind()),
            namespace: object.map(|(_, namespace, _)| namespace.clone()),
            name: object.map(|(.., name)| name.clone()),
            field: finding.field.clone(),
            message: finding.message.clone(),
        }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if let (Some(kind), Some(name)) = (self.kind, &self.name) {
            match self.namespace.as_deref().unwrap_or_default() {
                "" => write!(f, "{kind} {name}: ")?,
                namespace => write!(f, "{kind} {namespace}/{name}: ")?,
            }
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
