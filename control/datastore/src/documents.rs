//! The seam to whatever reads and checks the documents that people write.

use std::fmt;

use serde_json::Value;

use crate::object::Key;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One YAML document (never several: files are split before).
    Yaml,
    /// One JSON value.
    Json,
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1 at the beginning of the text that was read; 0 when it is not known.
    pub line: usize,
    /// Path of the field, e.g. `spec.ingress[0].from`; empty for the text as a whole.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// One object that was found in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Line on which it begins, counted from 1 at the beginning of the text.
    pub line: usize,
    /// What it is known by, where that much can be told.
    pub key: Option<Key>,
    /// The object with its defaults for namespace and the like, or what is wrong (never empty).
    pub object: Result<Value, Vec<Problem>>,
}

/// Reads documents and checks them.
pub trait Reader: Send + Sync {
    /// Reads the objects of one document: none where it is empty or of a kind that is of no
    /// concern here, several where it is a `kind: List`. Never fails as a whole: what cannot be
    /// read is a [`Parsed`] with its problems.
    fn read(&self, text: &str, format: Format) -> Vec<Parsed>;
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}
