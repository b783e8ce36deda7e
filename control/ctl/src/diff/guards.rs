//! What changes about who is judged at all: host endpoints that come and go, and what nodes do with
//! their own pods' packets. No pair of endpoints shows that, as each has to be there before and after.

use std::collections::BTreeSet;
use std::sync::Arc;

use margay_compile::Compiler;

/// A sentence for each change.
pub(super) fn changes([before, after]: [&Compiler; 2]) -> Vec<String> {
    let (old, new) = (&before.state().hosts, &after.state().hosts);
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of_hosts = keys.into_iter().filter_map(|key| match (old.get(key), new.get(key)) {
        (None, Some(_)) => {
            Some(format!("host endpoint {key} comes: it decides on its node's own traffic"))
        }
        (Some(_), None) => {
            Some(format!("host endpoint {key} goes: its node's own traffic is free"))
        }
        (Some(old), Some(new)) if old.interface != new.interface => {
            Some(format!("host endpoint {key} stands for another interface"))
        }
        _ => None,
    });
    let addresses = before.node_addresses().chain(after.node_addresses());
    let nodes: BTreeSet<&Arc<str>> = addresses.map(|(node, _)| node).collect();
    let of_nodes = nodes.into_iter().filter_map(|node| {
        let action =
            |cluster: &Compiler| cluster.felix_settings_of(node).default_endpoint_to_host_action;
        let (old, new) = (action(before), action(after));
        (old != new).then(|| format!("pods to their own node {node}: {old:?} becomes {new:?}"))
    });
    of_hosts.chain(of_nodes).collect()
}
