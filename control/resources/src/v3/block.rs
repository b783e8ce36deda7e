//! The records of address management, which machines write.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::{Object, is_default};

/// A block of addresses and who has them.
pub type IpamBlock = Object<IpamBlockSpec>;
/// Which node a block belongs to.
pub type BlockAffinity = Object<BlockAffinitySpec>;
/// The addresses of one owner.
pub type IpamHandle = Object<IpamHandleSpec>;

/// A block of addresses. Ordinals count from the block's first address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamBlockSpec {
    /// The addresses.
    pub cidr: String,
    /// `host:NODE` or `virtual:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// When it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// For each ordinal the index of its attributes, or nothing if it is free.
    #[serde(default)]
    pub allocations: Vec<Option<i64>>,
    /// Free ordinals, the one that was freed first first.
    #[serde(default)]
    pub unallocated: Vec<i64>,
    /// Attributes of addresses.
    #[serde(default)]
    pub attributes: Vec<AllocationAttribute>,
    /// Counts the writes of the block.
    #[serde(default)]
    pub sequence_number: u64,
    /// For each ordinal that is in use, the sequence number at which it was assigned.
    #[serde(default)]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// The block is being deleted.
    #[serde(default)]
    pub deleted: bool,
    /// Not used; kept for other readers.
    #[serde(default)]
    pub strict_affinity: bool,
    /// When addresses were released, by ordinal; kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Value>,
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationAttribute {
    /// The handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// The owner: pod, namespace, node, type, timestamp.
    #[serde(default, rename = "secondary", skip_serializing_if = "Option::is_none")]
    pub active_owner: Option<BTreeMap<String, String>>,
    /// The owner that is to follow (migration of a virtual machine).
    #[serde(default, rename = "alternate", skip_serializing_if = "Option::is_none")]
    pub alternate_owner: Option<BTreeMap<String, String>>,
}

/// Which node a block belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAffinitySpec {
    /// `pending`, `confirmed` or `pendingDeletion`.
    pub state: String,
    /// The node.
    pub node: String,
    /// `host` or `virtual`; `host` when missing.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The block.
    pub cidr: String,
    /// The affinity is being deleted. A text in older records.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub deleted: Value,
}

/// The addresses of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamHandleSpec {
    /// The owner.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// For each block how many of its addresses.
    #[serde(default)]
    pub block: BTreeMap<String, i64>,
    /// The handle is being deleted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deleted: bool,
}
