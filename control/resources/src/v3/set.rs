//! Network sets: addresses and domain names with labels.

use serde::{Deserialize, Serialize};

use super::object::Object;
use super::value::Net;

/// Addresses that rules select by label, in a namespace.
pub type NetworkSet = Object<NetworkSetSpec>;
/// Addresses that rules select by label, in no namespace.
pub type GlobalNetworkSet = Object<NetworkSetSpec>;

/// Addresses, networks and domain names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSetSpec {
    /// Addresses and networks; bits beyond a network's length are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Net>,
    /// Domain names, or patterns with one `*`, whose addresses belong to the set where the
    /// destination of an egress rule that allows selects it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_egress_domains: Vec<String>,
}
