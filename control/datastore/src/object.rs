//! What is stored: a JSON value, its key and its revision.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// The longest name that Kubernetes has (RFC 1123 §2.1).
const LONGEST_NAME: usize = 253;

/// What sort of object: the API group without the version, and the kind.
///
/// The group is part of it, so that the NetworkPolicy of Kubernetes and that of Calico differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// Kind as the documents write it, e.g. `NetworkPolicy`.
    pub kind: Cow<'static, str>,
}

/// What an object is known by. Namespace is empty for what has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Group and kind.
    pub kind: Kind,
    /// Namespace, empty for what lives in none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// One version of one object, for compare-and-swap. Opaque: only equality means anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision(pub Arc<str>);

/// A place in the stream of changes of one kind in one backend. Later places are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(pub u64);

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is known by.
    pub key: Key,
    /// Which version this is.
    pub revision: Revision,
    /// The document, without `metadata.resourceVersion`: that is `revision`.
    pub value: Value,
}

/// The document lacks something without which it cannot be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object has no {field}")]
pub struct Unnamed {
    /// The missing field.
    pub field: &'static str,
}

// === impl Kind ===

impl Kind {
    /// A kind of the group `projectcalico.org`.
    pub const fn calico(kind: &'static str) -> Self {
        Self::new("projectcalico.org", kind)
    }

    /// A kind of any group; the core group is the empty text.
    pub const fn new(group: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), kind: Cow::Borrowed(kind) }
    }

    /// Takes the group off an `apiVersion`: `projectcalico.org/v3` → `projectcalico.org`, `v1` →
    /// the core group.
    pub fn of_api_version(api_version: &str, kind: &str) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self { group: group.to_owned().into(), kind: kind.to_owned().into() }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_ref() {
            "" => f.write_str(&self.kind),
            group => write!(f, "{}.{group}", self.kind),
        }
    }
}

// === impl Key ===

impl Key {
    /// Names an object; `namespace` is empty for what lives in none.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Reads the key out of a document.
    ///
    /// # Errors
    /// Names the first of `apiVersion`, `kind`, `metadata.name` that is missing or no text.
    pub fn of(value: &Value) -> Result<Self, Unnamed> {
        let text = |pointer: &str, field| {
            let found = value.pointer(pointer).and_then(Value::as_str);
            found.filter(|t| !t.is_empty()).ok_or(Unnamed { field })
        };
        let api_version = text("/apiVersion", "apiVersion")?;
        let kind = text("/kind", "kind")?;
        let name = text("/metadata/name", "metadata.name")?;
        let namespace = text("/metadata/namespace", "metadata.namespace").unwrap_or_default();
        Ok(Self::new(Kind::of_api_version(api_version, kind), namespace, name))
    }
}

/// Of a name that is longer than one can be, the beginning.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |text: &str| match text.char_indices().nth(LONGEST_NAME) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text.to_owned(),
        };
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, name(&self.name)),
            namespace => write!(f, "{} {}/{}", self.kind, name(namespace), name(&self.name)),
        }
    }
}

// === impl Revision ===

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Cursor ===

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Object ===

impl Object {
    /// The document as people and tools see it, with `metadata.resourceVersion`.
    pub fn document(&self) -> Value {
        let mut value = self.value.clone();
        set_resource_version(&mut value, &self.revision);
        value
    }
}

/// Writes the revision where Kubernetes tools look for it.
pub(crate) fn set_resource_version(value: &mut Value, revision: &Revision) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), Value::from(revision.0.as_ref()));
    }
}

/// Takes `metadata.resourceVersion` out of a document.
pub(crate) fn take_resource_version(value: &mut Value) -> Option<Revision> {
    let metadata = value.get_mut("metadata")?.as_object_mut()?;
    let found = metadata.remove("resourceVersion")?;
    found.as_str().map(|text| Revision(text.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_of_kubernetes_and_calico_with_one_name_have_different_keys() {
        let of = |api: &str| {
            let metadata = json!({"name": "a", "namespace": "b"});
            Key::of(&json!({"apiVersion": api, "kind": "NetworkPolicy", "metadata": metadata}))
        };
        assert_ne!(of("networking.k8s.io/v1"), of("projectcalico.org/v3"));
        assert_eq!(of("projectcalico.org/v3"), of("projectcalico.org/v4"));
    }

    #[test]
    fn a_document_without_a_name_says_which_field_is_missing() {
        let unnamed = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": ""}});
        assert_eq!(Key::of(&unnamed), Err(Unnamed { field: "metadata.name" }));
        assert_eq!(Key::of(&json!(["no object"])), Err(Unnamed { field: "apiVersion" }));
    }
}
