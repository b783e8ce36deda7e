//! Objects out of files.

use std::path::PathBuf;

use clap::Args;
use margay_resources::documents::{Finding, Outcome, read_into};
use serde_json::Value;

use crate::failure::Failure;
use crate::files::{self, Remark, Text};

/// Where objects are read from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Files {
    /// A file of YAML or JSON documents, a folder of such files, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Look into the folders of folders too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Namespace of objects that name none and live in one.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

// === impl Files ===

impl Files {
    /// The documents of all files, see [`read_files`].
    pub(super) fn read(&self) -> Result<Vec<Value>, Failure> {
        read_files(&self.filename, self.recursive, &self.namespace)
    }
}

/// Reads and checks all objects of files and folders. Fields that are ignored are told on standard
/// error.
///
/// # Errors
/// A file that cannot be read; otherwise everything that is wrong with any document, at once.
pub(crate) fn read_files(
    paths: &[PathBuf],
    recursive: bool,
    namespace: &str,
) -> Result<Vec<Value>, Failure> {
    let (mut objects, mut bad) = (Vec::new(), Vec::new());
    for Text { file, text, format } in files::read(paths, recursive)? {
        for entry in read_into(namespace, &text, format) {
            let remark = |finding: &Finding| Remark::new(&file, &entry, finding).to_string();
            match &entry.outcome {
                Outcome::Object { value, warnings, .. } => {
                    warnings.iter().for_each(|warning| eprintln!("{} (warning)", remark(warning)));
                    objects.push(value.clone());
                }
                Outcome::Foreign => {
                    eprintln!("{file}:{}: left out, its kind is not known here", entry.at.line);
                }
                Outcome::Bad(findings) => bad.extend(findings.iter().map(remark)),
            }
        }
    }
    if bad.is_empty() { Ok(objects) } else { Err(Failure::BadDocuments(bad)) }
}
