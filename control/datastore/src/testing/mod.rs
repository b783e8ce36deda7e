//! For tests: what every backend has to fulfil, a backend that injects faults, and a reader that
//! takes any document.

mod faulty;
mod suite;

pub use faulty::{Faults, Faulty};
pub use suite::run as run_suite;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::dir::Dir;
use crate::documents::{Format, Parsed, Problem, Reader};
use crate::object::Key;

/// Takes every document that has a name, unless it has a field `spec.bad`.
pub struct PlainReader;

// === impl PlainReader ===

impl Reader for PlainReader {
    fn read(&self, text: &str, _format: Format) -> Vec<Parsed> {
        let value: Value = match serde_yaml_ng::from_str(text) {
            Ok(Value::Null) => return Vec::new(),
            Ok(value) => value,
            Err(error) => {
                let line = error.location().map_or(1, |l| l.line());
                return vec![bad(None, line, "", &error.to_string())];
            }
        };
        match value.get("items").and_then(Value::as_array) {
            Some(items) => items.iter().map(|item| check(item.clone(), text)).collect(),
            None => vec![check(value, text)],
        }
    }
}

fn check(value: Value, text: &str) -> Parsed {
    let line_of = |needle: &str| text.lines().position(|l| l.contains(needle)).map_or(1, |n| n + 1);
    match Key::of(&value) {
        Err(unnamed) => bad(None, 1, unnamed.field, "is missing"),
        Ok(key) if value.pointer("/spec/bad").is_some() => {
            bad(Some(key), line_of("bad"), "spec.bad", "is not allowed")
        }
        Ok(key) => Parsed { line: line_of("kind:"), key: Some(key), object: Ok(value) },
    }
}

fn bad(key: Option<Key>, line: usize, field: &str, message: &str) -> Parsed {
    let problem = Problem { line, field: field.to_owned(), message: message.to_owned() };
    Parsed { line, key, object: Err(vec![problem]) }
}

/// Opens a directory datastore that takes any document.
///
/// # Panics
/// When it cannot be opened.
pub async fn open_dir(root: &std::path::Path) -> Arc<Dir> {
    Arc::new(Dir::open(root, Arc::new(PlainReader)).await.expect("the directory opens"))
}

/// Waits until `probe` answers, at most `limit`; what it answered last.
pub async fn eventually<T>(
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        let found = probe().await;
        if found.is_some() || tokio::time::Instant::now() > end {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
