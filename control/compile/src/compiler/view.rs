//! What people ask of a compiler: who is who, and why.

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{Encap, HostInterface, SetId};

use super::{Compiler, ItemKey};
use crate::label::{ItemId, Unmet};
use crate::policy::view::TierView;
use crate::service::view::BackendView;
use crate::sets::SetMeaning;

/// A label and its value.
pub type Label = (Arc<str>, Arc<str>);

/// A port of an endpoint that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Its name.
    pub name: Arc<str>,
    /// IP protocol number.
    pub protocol: u8,
    /// Port in host byte order.
    pub port: u16,
}

// === impl Compiler ===

impl Compiler {
    /// The tiers that have policies, in the order of evaluation, with all of their policies.
    pub fn tiers(&self) -> Vec<TierView<'_>> {
        self.policies.view()
    }

    /// Everything that selectors see of an endpoint of the state, ordered by key: its own labels,
    /// those that the network adds, and those of its namespace and service account.
    pub fn labels_of(&self, endpoint: &str) -> Vec<Label> {
        let labels = self.item(endpoint).and_then(|id| self.policies.labels(id));
        let labels = labels.into_iter().flat_map(|labels| labels.iter());
        labels.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The named ports of an endpoint of the state.
    pub fn named_ports_of(&self, endpoint: &str) -> Vec<PortView> {
        let item = self.item(endpoint).and_then(|id| self.sets.contribution(id));
        let ports = item.into_iter().flat_map(|item| &item.ports);
        ports
            .map(|p| PortView { name: p.name.clone(), protocol: p.protocol, port: p.port })
            .collect()
    }

    /// Why a policy does not select an endpoint; `None` if it does.
    pub fn unmet(&self, policy: &str, endpoint: &str) -> Option<Unmet> {
        self.policies.unmet(policy, self.item(endpoint)?)
    }

    /// What a set of the state holds.
    pub fn meaning_of(&self, set: &SetId) -> Option<SetMeaning<'_>> {
        self.sets.meaning(set)
    }

    /// Why an endpoint is not in a set of the state that a selector fills; `None` if it is, or if the
    /// set is of another kind.
    pub fn unmet_by_set(&self, set: &SetId, endpoint: &str) -> Option<Unmet> {
        self.sets.unmet(set, self.item(endpoint)?)
    }

    /// The endpoints of a service of the state, usable or not, ordered by address and port.
    pub fn backends_of(&self, service: &str) -> Vec<BackendView> {
        self.services.backends(service)
    }

    /// A node's address of a family, which stands for the node.
    pub fn main_address(&self, node: &str, v4: bool) -> Option<IpAddr> {
        let node = self.network.node(node)?;
        if v4 { node.v4.map(|(a, _)| a.into()) } else { node.v6.map(|(a, _)| a.into()) }
    }

    /// How packets to `dst`, an address on the node `to`, travel from the node `from`.
    pub fn encap_between(&self, from: &str, to: &str, dst: IpAddr) -> Encap {
        self.network.encap_between(from, to, dst)
    }

    /// Whether the addresses of a host endpoint are a guess: it names an interface, and nothing says
    /// which addresses that has.
    pub fn guesses_addresses(&self, host: &str) -> bool {
        let host = self.hosts.get(host);
        host.is_some_and(|host| {
            host.addresses.is_empty() && matches!(host.interface(), HostInterface::Named(_))
        })
    }

    fn item(&self, endpoint: &str) -> Option<ItemId> {
        // Host endpoints have keys without a namespace, and their name between two bars.
        let key = match endpoint.strip_prefix('/') {
            Some(name) => ItemKey::Host(name.trim_end_matches('/').into()),
            None => ItemKey::Interface(endpoint.into()),
        };
        self.items.ids.get(&key).copied()
    }
}
