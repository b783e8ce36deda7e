//! Objects out of files.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use margay_datastore::Format;
use margay_resources::documents::{Finding, Outcome, read};
use serde_json::Value;

use crate::failure::Failure;

/// Where objects are read from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Files {
    /// A file of YAML or JSON documents, a folder of such files, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Look into the folders of folders too.
    #[arg(short = 'R', long)]
    recursive: bool,
}

// === impl Files ===

impl Files {
    /// The documents of all files, see [`read_files`].
    pub(super) fn read(&self) -> Result<Vec<Value>, Failure> {
        read_files(&self.filename, self.recursive)
    }
}

/// Reads and checks all objects of files and folders. Fields that are ignored are told on standard
/// error.
///
/// # Errors
/// A file that cannot be read; otherwise everything that is wrong with any document, at once.
pub(super) fn read_files(paths: &[PathBuf], recursive: bool) -> Result<Vec<Value>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, recursive, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    let (mut objects, mut bad) = (Vec::new(), Vec::new());
    for file in files {
        take_in(&file, &mut objects, &mut bad)?;
    }
    if bad.is_empty() { Ok(objects) } else { Err(Failure::BadDocuments(bad)) }
}

fn take_in(file: &Path, objects: &mut Vec<Value>, bad: &mut Vec<String>) -> Result<(), Failure> {
    let text = text_of(file)?;
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    for entry in read(&text, if is_json { Format::Json } else { Format::Yaml }) {
        let line = entry.at.line;
        match entry.outcome {
            Outcome::Object { value, warnings, .. } => {
                for warning in &warnings {
                    eprintln!("warning: {}", sentence(file, warning));
                }
                objects.push(value);
            }
            Outcome::Foreign => {
                eprintln!("warning: {}:{line}: left out, its kind is not known here", file.display());
            }
            Outcome::Bad(findings) => {
                bad.extend(findings.iter().map(|finding| sentence(file, finding)));
            }
        }
    }
    Ok(())
}

fn walk(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |source| Failure::Read { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_dir() {
            if recursive {
                walk(&path, recursive, files)?;
            }
        } else if ["yaml", "yml", "json"].contains(&extension) {
            files.push(path);
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|source| Failure::Read { path: path.to_owned(), source })
}

fn sentence(path: &Path, finding: &Finding) -> String {
    let Finding { at, field, message } = finding;
    let separator = if field.is_empty() { "" } else { ": " };
    format!("{}:{}: {field}{separator}{message}", path.display(), at.line)
}
