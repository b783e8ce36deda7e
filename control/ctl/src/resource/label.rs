//! `margayctl label`: one label of one object.

use margay_datastore::Datastore;
use serde_json::{Value, json};

use super::get::{namespace_of, what};
use super::write::exchange;
use crate::failure::Failure;
use crate::options::Form;

/// Arguments of `label`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kind
    #[arg(value_name = "KIND")]
    kind: String,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// KEY=VALUE, or KEY with --remove
    #[arg(value_name = "LABEL")]
    label: String,
    /// Change the label if it is there with another value
    #[arg(long, conflicts_with = "remove")]
    overwrite: bool,
    /// Remove the label
    #[arg(long)]
    remove: bool,
    /// Namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Sets or removes a label.
pub(super) async fn run(store: &dyn Datastore, form: Form, args: &Args) -> Result<(), Failure> {
    let (kind, _) = what(&args.kind, &[])?;
    let key = kind.key(namespace_of(kind, args.namespace.as_deref()), &args.name);
    let found = store.get(&key).await?;
    let mut value = found.value.clone();
    let done = match args.label.split_once('=') {
        Some((label, text)) if !args.remove => set(&mut value, label, text, args.overwrite),
        None if args.remove => remove(&mut value, &args.label),
        _ => {
            return Err(Failure::Usage(
                "write KEY=VALUE to set a label, --remove KEY to remove one",
            ));
        }
    };
    let done = done.map_err(|reason| Failure::Label { object: Box::new(key), reason })?;
    exchange(store, form, &found, value, done).await
}

fn set(
    document: &mut Value,
    label: &str,
    text: &str,
    overwrite: bool,
) -> Result<&'static str, String> {
    let labels = labels(document).ok_or("the object has no metadata that labels fit in")?;
    match labels.get(label).and_then(Value::as_str) {
        Some(old) if old != text && !overwrite => {
            return Err(format!(
                "the label {label} is there with the value {old:?}; use --overwrite"
            ));
        }
        _ => labels.insert(label.to_owned(), text.into()),
    };
    Ok("labelled")
}

fn remove(document: &mut Value, label: &str) -> Result<&'static str, String> {
    let removed = labels(document).and_then(|labels| labels.remove(label));
    removed.map(|_| "unlabelled").ok_or_else(|| format!("the object has no label {label}"))
}

/// The labels of a document, made if it has none.
fn labels(document: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let metadata = document.get_mut("metadata")?.as_object_mut()?;
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    labels.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_set_kept_overwritten_and_removed() {
        let mut value = json!({"metadata": {"name": "a"}});
        assert_eq!(set(&mut value, "k", "1", false), Ok("labelled"));
        assert_eq!(set(&mut value, "k", "1", false), Ok("labelled"));
        assert!(set(&mut value, "k", "2", false).unwrap_err().contains("--overwrite"));
        assert_eq!(set(&mut value, "k", "2", true), Ok("labelled"));
        assert_eq!(value["metadata"]["labels"], json!({"k": "2"}));
        assert_eq!(remove(&mut value, "k"), Ok("unlabelled"));
        assert!(remove(&mut value, "k").is_err());
    }
}
