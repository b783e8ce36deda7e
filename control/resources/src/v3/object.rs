//! What all objects have in common.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An object with metadata, a specification and perhaps a status, which is kept as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object<Spec> {
    /// Name, namespace, labels, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: Spec,
    /// What is, as a machine reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// Whether a number or a flag has the value that it has when it is missing.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// === impl Object ===

impl<Spec: Default> Object<Spec> {
    /// An object without labels; `namespace` is empty for what lives in none.
    pub fn named(namespace: &str, name: &str, spec: Spec) -> Self {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        let metadata = ObjectMeta { name: Some(name.to_owned()), namespace, ..Default::default() };
        Self { metadata, spec, status: None }
    }
}

impl<Spec> Object<Spec> {
    /// The name; empty when it is missing.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace; empty for what lives in none.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}
