//! The objects of a text.

use margay_datastore::Format;
use serde_json::{Map, Value};

use super::place::{Place, Position};
use super::{Document, SyntaxError, read_json, read_yaml};
use crate::field::{Problem, Step};
use crate::kind::{Kind, Recognised};
use crate::resource::{Checked, Resource};

/// Something found while reading a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub at: Position,
    /// Which field; empty for the document as a whole.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// An object of a text, or what should have been one.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it begins.
    pub at: Position,
    /// Kind, namespace and name, as far as they can be told.
    pub object: Option<(Kind, String, String)>,
    /// What it is.
    pub outcome: Outcome,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// An object of ours.
    Object {
        /// With its defaults.
        resource: Box<Resource>,
        /// As it was written, but with its namespace, and Calico's group by its public name.
        value: Value,
        /// Fields that are ignored.
        warnings: Vec<Finding>,
    },
    /// An object of a kind that is of no concern.
    Foreign,
    /// Not what it should be: everything that is wrong, never empty.
    Bad(Vec<Finding>),
}

/// Finds and checks the objects of a text. Lists are taken apart. What names no namespace and
/// lives in one is in `default`.
pub fn read(text: &str, format: Format) -> Vec<Entry> {
    read_into("default", text, format)
}

/// As [`read`], but what names no namespace and lives in one is in `namespace`.
pub fn read_into(namespace: &str, text: &str, format: Format) -> Vec<Entry> {
    let documents = match format {
        Format::Yaml => read_yaml(text),
        Format::Json => vec![read_json(text)],
    };
    let mut entries = Vec::new();
    for document in documents {
        match document {
            Ok(document) => {
                let objects = objects(document).into_iter();
                entries.extend(objects.map(|object| check(put_into(namespace, object))));
            }
            Err(SyntaxError { at, begin, message }) => {
                let outcome = Outcome::Bad(vec![Finding { at, field: String::new(), message }]);
                entries.push(Entry { at: begin, object: None, outcome });
            }
        }
    }
    entries
}

/// The objects of a document: itself, or the items of the list that it is.
fn objects(mut document: Document) -> Vec<Document> {
    let text = |key: &str| document.value.get(key).and_then(Value::as_str).unwrap_or_default();
    let Some(item_kind) = text("kind").strip_suffix("List").map(str::to_owned) else {
        return vec![document];
    };
    let api_version = text("apiVersion").to_owned();
    let Some(Value::Array(items)) = document.value.get_mut("items").map(Value::take) else {
        return vec![document];
    };
    let place = |index| {
        let items = document.place.child(&Step::Key("items".to_owned()));
        let item = items.and_then(|items| items.child(&Step::Index(index)));
        item.cloned().unwrap_or_else(|| Place::new(document.place.at))
    };
    let item = |(index, mut value): (usize, Value)| {
        // The items of a `TierList` need not say that they are tiers.
        if let (false, Some(map)) = (item_kind.is_empty(), value.as_object_mut()) {
            map.entry("kind").or_insert_with(|| item_kind.clone().into());
            map.entry("apiVersion").or_insert_with(|| api_version.clone().into());
        }
        Document { value, place: place(index) }
    };
    items.into_iter().enumerate().map(item).collect()
}

/// Names the namespace of an object that lives in one and names none.
fn put_into(namespace: &str, mut document: Document) -> Document {
    let text = |key: &str| document.value.get(key).and_then(Value::as_str).unwrap_or_default();
    let recognised = Kind::recognise(text("apiVersion"), text("kind"));
    let lives_in_one = matches!(recognised, Recognised::Kind(kind) if kind.is_namespaced());
    let metadata = document.value.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata.filter(|_| lives_in_one) {
        let named = metadata.entry("namespace").or_insert(Value::Null);
        if named.is_null() || named == "" {
            *named = namespace.into();
        }
    }
    document
}

/// Checks an object.
fn check(document: Document) -> Entry {
    let at = document.place.at;
    let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str);
    let api_version = text("/apiVersion").unwrap_or_default();
    let kind = text("/kind").unwrap_or_default();
    let recognised = Kind::recognise(api_version, kind);
    if recognised == Recognised::Foreign && !api_version.is_empty() && !kind.is_empty() {
        return Entry { at, object: None, outcome: Outcome::Foreign };
    }
    let finding = |problem: Problem| Finding {
        at: document.locate(&problem.field),
        field: problem.field.to_string(),
        message: problem.message,
    };
    let (object, outcome) = match Resource::check(&document.value) {
        Ok(Checked { resource, warnings }) => {
            let object = (resource.kind(), resource.namespace().into(), resource.name().into());
            let warnings = warnings.into_iter().map(finding).collect();
            let value = named(document.value.clone(), &resource);
            (Some(object), Outcome::Object { resource: Box::new(resource), value, warnings })
        }
        Err(error) => {
            let mut findings: Vec<_> = error.problems.into_iter().map(finding).collect();
            findings.sort_by_key(|finding| finding.at);
            (name_of(&document.value, recognised), Outcome::Bad(findings))
        }
    };
    Entry { at, object, outcome }
}

/// Kind, namespace and name of an object that is not as it should be.
fn name_of(value: &Value, recognised: Recognised) -> Option<(Kind, String, String)> {
    let Recognised::Kind(kind) = recognised else { return None };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").filter(|name| !name.is_empty())?;
    let namespace = match text("/metadata/namespace") {
        None | Some("") if kind.is_namespaced() => "default",
        found => found.unwrap_or_default(),
    };
    Some((kind, namespace.to_owned(), name.to_owned()))
}

/// Writes into a document what its key is made of.
fn named(mut value: Value, resource: &Resource) -> Value {
    let Some(map) = value.as_object_mut() else { return value };
    map.insert("apiVersion".to_owned(), resource.kind().api_version().into());
    map.insert("kind".to_owned(), resource.kind().kind().into());
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let (Some(metadata), false) = (metadata.as_object_mut(), resource.namespace().is_empty()) {
        metadata.insert("namespace".to_owned(), resource.namespace().into());
    }
    value
}
