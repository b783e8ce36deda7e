//! Network sets: addresses with labels.

use serde::{Deserialize, Serialize};

use super::object::Object;
use super::value::Net;

/// Addresses that rules select by label, in a namespace.
pub type NetworkSet = Object<NetworkSetSpec>;
/// Addresses that rules select by label, in no namespace.
pub type GlobalNetworkSet = Object<NetworkSetSpec>;

/// Addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSetSpec {
    /// Addresses and networks; bits beyond a network's length are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Net>,
}
