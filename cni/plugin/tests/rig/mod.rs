//! A node and its containers in network namespaces, an agent without a dataplane, and the built
//! plugins between them.
//!
//! - [`agent`]: the agent; [`netns`]: namespaces and what is seen in them; [`call`]: one call of a
//!   plugin.

#![allow(dead_code, reason = "every test file takes the part of the rig that it needs")]

pub(crate) mod netns;

pub(crate) mod agent;

pub(crate) mod call;

use std::path::Path;

use serde_json::{Value, json};

pub(crate) use agent::{Agent, Fault};
pub(crate) use call::Call;
pub(crate) use netns::Netns;

/// A node with its agent.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) agent: Agent,
    folder: tempfile::TempDir,
}

// === impl Node ===

impl Node {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let agent = Agent::start(&folder.path().join("agent.sock"));
        Self { netns: Netns::new("node"), agent, folder }
    }

    /// A folder that goes with the node.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The contract's network configuration.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "margay", "type": "margay-cni",
            "agentSocket": self.agent.socket(), "mtu": 0, "ipam": {"type": "margay-ipam"},
        })
    }

    /// A call of `margay-cni` for a container.
    pub(crate) fn call(&self, verb: &str, container: &str, netns: &str) -> Call {
        Call::new(&self.netns, verb)
            .variable("CNI_CONTAINERID", container)
            .variable("CNI_NETNS", netns)
            .variable("CNI_IFNAME", "eth0")
            .variable(
                "CNI_ARGS",
                &format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME={container}"),
            )
            .config(self.config())
    }

    /// Names of the host ends that exist.
    pub(crate) fn host_ends(&self) -> Vec<String> {
        let names = self.netns.links().into_iter().map(|link| text(&link["ifname"]));
        names.filter(|name| name.starts_with("cali")).collect()
    }

    /// Nothing of any container is left, anywhere.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.host_ends(), Vec::<String>::new(), "host ends");
        assert_eq!(self.agent.endpoints(), Vec::<String>::new(), "endpoints");
        assert_eq!(self.agent.leases(), Vec::<String>::new(), "leases");
    }
}

/// A string of a JSON answer.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}
