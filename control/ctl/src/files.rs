//! The documents that people hand over: files, folders, standard input.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use margay_datastore::Format;
use margay_resources::documents::{Entry, Finding};
use margay_resources::field::readable;
use serde::Serialize;

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", .path.display())]
pub(crate) struct ReadError {
    /// The file or folder; `-` is standard input.
    pub(crate) path: PathBuf,
    /// Why.
    #[source]
    pub(crate) source: io::Error,
}

/// A text with documents in it.
pub(crate) struct Text {
    /// File, as it was named.
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) format: Format,
}

/// Something that is wrong with a document, or that is ignored.
#[derive(Debug, Serialize)]
pub(crate) struct Remark {
    file: String,
    line: usize,
    column: usize,
    kind: Option<&'static str>,
    namespace: Option<String>,
    name: Option<String>,
    field: String,
    message: String,
}

/// Reads files, folders and standard input (`-`), in the order given; in a folder, in the order of
/// names. A file that is named is read whatever it is called, in a folder only YAML and JSON.
pub(crate) fn read(paths: &[PathBuf], recursive: bool) -> Result<Vec<Text>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        let is_folder = path.as_os_str() != "-"
            && fs::metadata(path).map_err(|source| failed(path, source))?.is_dir();
        match is_folder {
            true => walk(path, recursive, &mut files)?,
            false => files.push((path.clone(), format_of(path).unwrap_or(Format::Yaml))),
        }
    }
    let texts = files.into_iter().map(|(path, format)| {
        let text = text_of(&path).map_err(|source| failed(&path, source))?;
        Ok(Text { file: path.display().to_string(), text, format })
    });
    texts.collect()
}

fn walk(
    folder: &Path,
    recursive: bool,
    files: &mut Vec<(PathBuf, Format)>,
) -> Result<(), ReadError> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder).and_then(Iterator::collect);
    let entries = entries.map_err(|source| failed(folder, source))?;
    let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    paths.retain(|p| p.file_name().is_some_and(|n| !n.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if recursive {
                walk(&path, recursive, files)?;
            }
        } else if let Some(format) = format_of(&path) {
            files.push((path, format));
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> io::Result<String> {
    if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) }
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

fn failed(path: &Path, source: io::Error) -> ReadError {
    ReadError { path: path.to_owned(), source }
}

// === impl Remark ===

impl Remark {
    /// What was found in an entry of a file.
    pub(crate) fn new(file: &str, entry: &Entry, finding: &Finding) -> Self {
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

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if let (Some(kind), Some(name)) = (self.kind, &self.name) {
            match self.namespace.as_deref().unwrap_or_default() {
                "" => write!(f, "{kind} {}: ", readable(name))?,
                namespace => write!(f, "{kind} {}/{}: ", readable(namespace), readable(name))?,
            }
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
