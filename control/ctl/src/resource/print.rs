//! Objects in every form.

use std::io::{self, Write};

use margay_resources::{Kind, Resource};
use serde_json::{Value, json};

use super::columns::columns;
use super::name::word;
use crate::options::Form;
use crate::output::{Table, write_json, write_yaml};

/// Writes objects of one kind. `one` object that was asked for by name stands alone in JSON and
/// YAML, several are a list.
pub(super) fn print(
    out: &mut impl Write,
    form: Form,
    kind: Kind,
    documents: &[Value],
    one: bool,
) -> io::Result<()> {
    match (form, documents) {
        (Form::Json, [document]) if one => write_json(out, document),
        (Form::Yaml, [document]) if one => write_yaml(out, document),
        (Form::Json, _) => write_json(out, &list(kind, documents)),
        (Form::Yaml, _) => write_yaml(out, &list(kind, documents)),
        (Form::Name, _) => {
            documents.iter().try_for_each(|document| writeln!(out, "{}", name(kind, document)))
        }
        (Form::Table | Form::Wide, _) => {
            let columns: Vec<_> = columns(kind, form == Form::Wide).collect();
            let mut table = Table::new(columns.iter().map(|column| column.title));
            for document in documents {
                let document = with_defaults(document);
                table.push(columns.iter().map(|column| column.cell(&document)).collect());
            }
            table.write(out)
        }
    }
}

/// Writes objects of several kinds as one list, for programs.
pub(super) fn print_mixed(out: &mut impl Write, form: Form, documents: &[Value]) -> io::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": documents});
    if form == Form::Yaml { write_yaml(out, &list) } else { write_json(out, &list) }
}

/// `KIND/NAME`, as other commands take it.
fn name(kind: Kind, document: &Value) -> String {
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    format!("{}/{name}", word(kind))
}

fn list(kind: Kind, documents: &[Value]) -> Value {
    json!({
        "apiVersion": kind.api_version(),
        "kind": format!("{}List", kind.kind()),
        "items": documents,
    })
}

/// What the document means, for people; what cannot be read stays as it is.
fn with_defaults(document: &Value) -> Value {
    Resource::from_value(document).map_or_else(|_| document.clone(), |resource| resource.to_value())
}
