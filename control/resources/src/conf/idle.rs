//! Settings about packets that Calico's dataplanes follow and this one does not.

use serde_json::Value;

use crate::field::{FieldPath, Problem};
use crate::v3::FelixConfigurationSpec;

/// By name: what is so without the setting, as it is written (in any case), and what happens instead
/// of what another value asks for.
const IDLE: [(&str, &str, &str); 8] = [
    ("natOutgoingAddress", "", "masqueraded packets carry the node's own address"),
    ("natOutgoingExclusions", "IPPoolsOnly", "packets of pods to other nodes are masqueraded"),
    ("externalNodesList", "", "tunnels are accepted from the cluster's nodes alone"),
    ("floatingIPs", "Disabled", "pods have no floating addresses"),
    ("bpfExcludeCIDRsFromNAT", "", "services at these addresses are translated"),
    ("bpfEnforceRPF", "Loose", "asymmetric ways at the uplink are accepted"),
    ("wireguardEnabled", "false", "packets between nodes are not encrypted"),
    ("wireguardEnabledV6", "false", "packets between nodes are not encrypted"),
];

/// The settings that ask for something that does not happen, and what does.
pub fn without_effect(spec: &FelixConfigurationSpec) -> Vec<Problem> {
    let asks = |name: &str, usual: &str| {
        spec.0.get(name).is_some_and(|value| !word(value).eq_ignore_ascii_case(usual))
    };
    let idle = IDLE.iter().filter(|(name, usual, _)| asks(name, usual));
    let problem = |(name, _, instead): &(&str, &str, &str)| {
        Problem::new(FieldPath::of_keys(&["spec", name]), format!("has no effect here: {instead}"))
    };
    idle.map(problem).collect()
}

/// A value as a word; nothing at all, and an empty list, are the empty one.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => String::new(),
        other => other.to_string(),
    }
}
