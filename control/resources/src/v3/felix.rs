//! Settings of the dataplane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::Object;

/// Settings of the dataplane: of all nodes (`default`), of one (`node.NAME`), or of those that
/// `nodeSelector` picks.
pub type FelixConfiguration = Object<FelixConfigurationSpec>;

/// Settings by name, as they are written.
///
/// There are more than two hundred, most of which concern Calico's own dataplanes; they are all
/// kept. [`crate::conf`] reads those that mean something here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FelixConfigurationSpec(pub BTreeMap<String, Value>);

// === impl FelixConfigurationSpec ===

impl FelixConfigurationSpec {
    /// The nodes that the settings are for, where the object is neither `default` nor of a node.
    pub fn node_selector(&self) -> Option<&str> {
        self.0.get("nodeSelector").and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}
