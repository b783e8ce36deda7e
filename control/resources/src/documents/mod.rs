//! What people write: YAML and JSON texts with objects in them, checked, with lines.
//!
//! - [`place`] keeps where each field of a document stands;
//! - [`yaml`] and [`json`] make values and places of a text, [`scalar`] decides what a plain word
//!   of YAML is;
//! - [`entry`] finds the objects in a text, also those of lists, and checks them;
//! - [`reader`] offers that to the datastore.

mod place;
mod scalar;
mod yaml;
mod json;
mod entry;
mod reader;

pub use entry::{Entry, Finding, Outcome, read, read_into};
pub use place::{Place, Position};
pub use reader::DocumentReader;

use serde_json::Value;

use crate::field::FieldPath;

/// A document of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// Where it says it.
    pub place: Place,
}

/// A document that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {message}", .at.line, .at.column)]
pub struct SyntaxError {
    /// Where reading stopped.
    pub at: Position,
    /// Where the document begins.
    pub begin: Position,
    /// Why.
    pub message: String,
}

/// Reads the documents of a YAML text; empty ones are left out. A document that cannot be read
/// does not take the others with it.
///
/// Plain words are what YAML 1.2's core schema says: `yes` and `on` are texts. A key that occurs
/// twice is an error. Aliases and merge keys (`<<`) are resolved, up to a total size.
pub fn read_yaml(text: &str) -> Vec<Result<Document, SyntaxError>> {
    yaml::read(text)
}

/// Reads a JSON text, which holds one value. A key that occurs twice is an error.
///
/// # Errors
/// It is no JSON.
pub fn read_json(text: &str) -> Result<Document, SyntaxError> {
    json::read(text)
}

// === impl Document ===

impl Document {
    /// Where a field stands; where it is missing, what should contain it.
    pub fn locate(&self, field: &FieldPath) -> Position {
        self.place.locate(field)
    }
}

#[cfg(test)]
mod tests;
