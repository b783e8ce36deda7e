//! The datastore's reader of documents.

use margay_datastore::{Format, Key, Parsed, Problem, Reader};

use super::entry::{Entry, Finding, Outcome, read};
use crate::kind::Kind;

/// Reads and checks every kind of object. Objects of other kinds are passed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct DocumentReader;

impl Reader for DocumentReader {
    fn read(&self, text: &str, format: Format) -> Vec<Parsed> {
        read(text, format).into_iter().filter_map(parsed).collect()
    }
}

fn parsed(entry: Entry) -> Option<Parsed> {
    let object = match entry.outcome {
        Outcome::Foreign => return None,
        Outcome::Object { value, .. } => Ok(value),
        Outcome::Bad(findings) => Err(findings.into_iter().map(problem).collect()),
    };
    let key = entry.object.map(|(kind, namespace, name)| kind.key(&namespace, &name));
    Some(Parsed { line: entry.at.line, key, object })
}

fn problem(finding: Finding) -> Problem {
    Problem { line: finding.at.line, field: finding.field, message: finding.message }
}

// === impl Kind ===

impl Kind {
    /// The kind as the datastore knows it.
    pub fn stored(self) -> margay_datastore::Kind {
        margay_datastore::Kind::new(self.group(), self.kind())
    }

    /// The key of an object of the kind; the namespace is empty for what lives in none.
    pub fn key(self, namespace: &str, name: &str) -> Key {
        Key::new(self.stored(), namespace, name)
    }

    /// The kind that the datastore calls so.
    pub fn of_stored(stored: &margay_datastore::Kind) -> Option<Self> {
        let is_it = |kind: &&Self| kind.group() == stored.group && kind.kind() == stored.kind;
        Self::ALL.iter().find(is_it).copied()
    }
}
