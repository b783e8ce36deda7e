//! What a flow log tells apart, and what it counts: Calico's flow key and statistics.

use serde::Serialize;

/// What makes flows one: all that share this are one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowKey {
    /// Which end saw it.
    pub(super) reporter: Reporter,
    /// What became of it at that end.
    pub(super) action: Verdict,
    #[serde(flatten, serialize_with = "as_source")]
    pub(super) source: Party,
    #[serde(flatten, serialize_with = "as_dest")]
    pub(super) dest: Party,
    /// After service translation; 0 without ports.
    pub(super) dest_port: u16,
    #[serde(flatten)]
    pub(super) service: ServicePort,
    /// By name, or by number where it has none.
    pub(super) proto: String,
    pub(super) policies: Policies,
}

/// The end that reports a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) enum Reporter {
    /// The source's node.
    Src,
    /// The destination's node.
    Dst,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) enum Verdict {
    Allow,
    Deny,
}

/// What an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) enum PartyKind {
    /// A pod.
    WorkloadEndpoint,
    /// A node of the cluster.
    Node,
    /// A network set.
    NetworkSet,
    /// None of these; the name is `pvt` for private addresses, else `pub`.
    Network,
}

/// An end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Party {
    pub(super) kind: PartyKind,
    /// Empty for what has none.
    pub(super) namespace: String,
    /// Pods that one template made are one: `NAME-*`.
    pub(super) name: String,
}

/// The service that was asked; all empty where none was.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct ServicePort {
    #[serde(rename = "destServiceNamespace")]
    pub(super) namespace: String,
    #[serde(rename = "destServiceName")]
    pub(super) name: String,
    #[serde(rename = "destServicePortName")]
    pub(super) port_name: String,
    #[serde(rename = "destServicePort")]
    pub(super) port: u16,
}

/// What decided, and what would if staged policies were enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Policies {
    pub(super) enforced: Vec<PolicyHit>,
    /// Empty where no staged policy concerns the end.
    pub(super) pending: Vec<PolicyHit>,
}

/// A policy's word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyHit {
    /// As Calico names it; `EndOfTier` where a tier's default action decided, `None` where nothing
    /// did.
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) tier: String,
    pub(super) action: Verdict,
    /// The rule's place in its document, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule_index: Option<u32>,
}

/// What was counted; in and out are the reporter's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Connections that began, or attempts that were denied.
    pub(super) num_connections_started: u64,
    /// Connections that ended.
    pub(super) num_connections_completed: u64,
}

/// A line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'l> {
    /// RFC 3339.
    pub(super) start_time: &'l str,
    pub(super) end_time: &'l str,
    pub(super) node: &'l str,
    #[serde(flatten)]
    pub(super) key: &'l FlowKey,
    #[serde(flatten)]
    pub(super) stats: Stats,
}

// === impl Party ===

fn as_source<S: serde::Serializer>(party: &Party, to: S) -> Result<S::Ok, S::Error> {
    named(party, to, ["sourceType", "sourceNamespace", "sourceName"])
}

fn as_dest<S: serde::Serializer>(party: &Party, to: S) -> Result<S::Ok, S::Error> {
    named(party, to, ["destType", "destNamespace", "destName"])
}

fn named<S: serde::Serializer>(
    party: &Party,
    to: S,
    [kind, namespace, name]: [&'static str; 3],
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = to.serialize_map(Some(3))?;
    map.serialize_entry(kind, &party.kind)?;
    map.serialize_entry(namespace, &party.namespace)?;
    map.serialize_entry(name, &party.name)?;
    map.end()
}

// === impl Stats ===

impl Stats {
    /// Adds what another flow of the key carried.
    pub(super) fn add(&mut self, more: Self) {
        self.packets_in += more.packets_in;
        self.packets_out += more.packets_out;
        self.bytes_in += more.bytes_in;
        self.bytes_out += more.bytes_out;
        self.num_connections_started += more.num_connections_started;
        self.num_connections_completed += more.num_connections_completed;
    }
}
