//! `margayctl patch`: a few fields of one object.

use clap::ValueEnum;
use margay_datastore::Datastore;
use serde_json::Value;

use super::get::{namespace_of, what};
use super::write::exchange;
use crate::failure::Failure;
use crate::options::Form;

/// Arguments of `patch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The patch, as JSON
    #[arg(short, long, value_name = "JSON")]
    patch: String,
    /// What the patch is
    #[arg(short = 't', long = "type", value_enum, default_value_t = Type::Strategic)]
    of_type: Type,
    /// Namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
}

/// What a patch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// As merge: no list of these objects has a merge key
    Strategic,
    /// JSON Merge Patch (RFC 7396)
    Merge,
    /// JSON Patch (RFC 6902)
    Json,
}

/// Patches an object.
pub(super) async fn run(store: &dyn Datastore, form: Form, args: &Args) -> Result<(), Failure> {
    let (kind, names) = what(&args.kind, args.name.as_slice())?;
    let [name] = names.as_slice() else {
        return Err(Failure::Usage("name the object to patch"));
    };
    let key = kind.key(namespace_of(kind, args.namespace.as_deref()), name);
    let found = store.get(&key).await?;
    let mut value = found.value.clone();
    apply(&mut value, &args.patch, args.of_type)
        .map_err(|reason| Failure::Patch { object: Box::new(key), reason })?;
    exchange(store, form, &found, value, "patched").await
}

fn apply(value: &mut Value, patch: &str, of_type: Type) -> Result<(), String> {
    let bad = |error: &dyn std::fmt::Display| error.to_string();
    match of_type {
        Type::Strategic | Type::Merge => {
            let patch: Value = serde_json::from_str(patch).map_err(|e| bad(&e))?;
            json_patch::merge(value, &patch);
            Ok(())
        }
        Type::Json => {
            let patch: json_patch::Patch = serde_json::from_str(patch).map_err(|e| bad(&e))?;
            json_patch::patch(value, &patch).map_err(|e| bad(&e))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_kinds_of_patch_change_what_they_name() {
        let mut value = json!({"spec": {"order": 1, "types": ["Ingress"]}});
        apply(&mut value, r#"{"spec":{"order":2,"selector":"all()"}}"#, Type::Strategic).unwrap();
        assert_eq!(value, json!({"spec": {"order": 2, "types": ["Ingress"], "selector": "all()"}}));
        apply(&mut value, r#"{"spec":{"order":null}}"#, Type::Merge).unwrap();
        let add = r#"[{"op":"add","path":"/spec/types/-","value":"Egress"}]"#;
        apply(&mut value, add, Type::Json).unwrap();
        assert_eq!(value, json!({"spec": {"types": ["Ingress", "Egress"], "selector": "all()"}}));
    }

    #[test]
    fn a_patch_that_does_not_fit_says_why() {
        let mut value = json!({});
        assert!(apply(&mut value, "{", Type::Merge).is_err());
        let remove = r#"[{"op":"remove","path":"/spec/order"}]"#;
        assert!(apply(&mut value, remove, Type::Json).is_err());
    }
}
