//! Changes documents that people wrote, for the verbs of `margayctl`: only the document concerned
//! is rewritten, the file's other documents stay byte for byte.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::scan;
use super::split::{Chunk, split};
use crate::documents::{Format, Parsed, Reader};
use crate::error::Error;
use crate::object::Key;

/// Renders a document for a file of its own, as YAML.
pub(super) fn render(value: &Value) -> String {
    // A JSON value always has a YAML form: its keys are text.
    serde_yaml_ng::to_string(value).unwrap_or_else(|_| format!("{value}\n"))
}

/// Asks the reader whether it would take a document, and under which key.
///
/// # Errors
/// `Invalid`; `Unnamed` when it has no key; `Uneditable` when the reader has no use for it.
pub(super) fn check(reader: &dyn Reader, value: &Value) -> Result<Key, Error> {
    let named = Key::of(value)?;
    match reader.read(&render(value), Format::Yaml).into_iter().next() {
        Some(Parsed { object: Err(problems), .. }) => Err(Error::Invalid { key: named, problems }),
        Some(Parsed { key: Some(key), object: Ok(_), .. }) => Ok(key),
        _ => Err(Error::Uneditable {
            path: named.to_string().into(),
            reason: "this kind of object is not known here",
        }),
    }
}

/// Name for a file that holds one new object.
pub(super) fn file_name(key: &Key, attempt: u32) -> String {
    let mut parts = vec![key.kind.kind.to_lowercase()];
    if attempt > 0 {
        parts.push(key.kind.group.to_lowercase());
    }
    parts.extend([key.namespace.clone(), key.name.clone()]);
    if attempt > 1 {
        parts.push(attempt.to_string());
    }
    parts.retain(|part| !part.is_empty());
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '-' };
    let mut stem: String = parts.join("-").chars().map(plain).collect();
    // Leaves room for the extension in the 255 bytes of a name.
    stem.truncate(240);
    stem + ".yaml"
}

/// Puts `value` in the place of the object `key` in the file, or removes the object without one.
/// Returns the new content, nothing if no document is left.
///
/// # Errors
/// `Io`; `Uneditable` when the document cannot be found in the file.
pub(super) fn edit(
    reader: &dyn Reader,
    path: &Path,
    key: &Key,
    value: Option<&Value>,
) -> Result<Option<String>, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let format = path.file_name().and_then(scan::format_of).unwrap_or(Format::Yaml);
    let chunks = match format {
        Format::Yaml => split(&text),
        Format::Json => vec![Chunk { text: &text, lines_before: 0 }],
    };
    let mut edited = String::new();
    let mut is_found = false;
    for chunk in chunks {
        let parsed = if is_found { Vec::new() } else { reader.read(chunk.text, format) };
        if !parsed.iter().any(|p| p.key.as_ref() == Some(key)) {
            edited.push_str(chunk.text);
            continue;
        }
        is_found = true;
        if !edited.is_empty() && !edited.ends_with('\n') {
            edited.push('\n');
        }
        let objects = parsed.len();
        let Some(chunk) = edit_chunk(reader, chunk.text, format, objects, key, value) else {
            let reason = "the object cannot be told from the others of its list, mend it by hand";
            return Err(Error::Uneditable { path: path.to_owned(), reason });
        };
        edited.push_str(&chunk);
    }
    if !is_found {
        let reason = "the document cannot be found in the file as it is now, mend it by hand";
        return Err(Error::Uneditable { path: path.to_owned(), reason });
    }
    let is_empty = edited.lines().all(|line| line.trim().is_empty() || line.trim() == "---");
    Ok((!is_empty).then_some(edited))
}

/// One document of so many objects with the one exchanged or removed; `None` when it is a list in
/// which that cannot be found.
fn edit_chunk(
    reader: &dyn Reader,
    text: &str,
    format: Format,
    objects: usize,
    key: &Key,
    value: Option<&Value>,
) -> Option<String> {
    let list = serde_yaml_ng::from_str(text).ok().filter(|list: &Value| list["items"].is_array());
    match list {
        Some(list) => Some(finish(text, format, edit_list(reader, list, key, value)?.as_ref())),
        None if objects > 1 => None,
        None => Some(finish(text, format, value)),
    }
}

/// The list with the item exchanged or removed, nothing if it is empty now; `None` when no item is
/// the object to the reader, to which the list says what an item leaves out.
fn edit_list(
    reader: &dyn Reader,
    mut list: Value,
    key: &Key,
    value: Option<&Value>,
) -> Option<Option<Value>> {
    let mut items = std::mem::take(list["items"].as_array_mut()?);
    let is_it = |item: &Value| {
        let mut alone = list.clone();
        alone["items"] = vec![item.clone()].into();
        let parsed = reader.read(&render(&alone), Format::Yaml);
        parsed.iter().any(|parsed| parsed.key.as_ref() == Some(key))
    };
    let at = items.iter().position(is_it)?;
    match value {
        Some(value) => items[at] = value.clone(),
        None => drop(items.remove(at)),
    }
    let is_empty = items.is_empty();
    list["items"] = items.into();
    Some((!is_empty).then_some(list))
}

/// The text of a document with the marker, comments and directives that preceded it.
fn finish(before: &str, format: Format, value: Option<&Value>) -> String {
    let Some(value) = value else { return String::new() };
    if format == Format::Json {
        return format!("{value:#}\n");
    }
    let is_prelude = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line == "---" || line.starts_with(['#', '%'])
    };
    let prelude: String = before.split_inclusive('\n').take_while(is_prelude).collect();
    let marker = if prelude.is_empty() && before.starts_with("---") { "---\n" } else { "" };
    format!("{prelude}{marker}{}", render(value))
}
