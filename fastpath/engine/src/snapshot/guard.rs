//! Host endpoints in force: which interface has which, and what they say.

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{HostEndpoint, HostInterface, State};
use margay_tables::classifier::HostLists;

use super::underlay::{PortInfo, Underlay};

/// A host endpoint with its compiled policies.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What the control plane said.
    pub endpoint: Arc<HostEndpoint>,
    /// Its policies.
    pub lists: HostLists,
}

/// The host endpoint of an uplink with these addresses: the first by name that names the interface or has one of its
/// addresses, else the first for all interfaces.
pub fn host_endpoint<'s>(
    state: &'s State,
    uplink: &str,
    has: &[IpAddr],
) -> Option<&'s Arc<HostEndpoint>> {
    let is_meant = |host: &&Arc<HostEndpoint>| match &host.interface {
        HostInterface::All => false,
        HostInterface::Named(name) => **name == *uplink,
        HostInterface::With(addresses) => addresses.iter().any(|address| has.contains(address)),
    };
    state.hosts.values().find(is_meant).or_else(|| everywhere(state))
}

/// The host endpoint of what is no interface of its own: the tunnels.
pub(super) fn everywhere(state: &State) -> Option<&Arc<HostEndpoint>> {
    state.hosts.values().find(|host| host.interface == HostInterface::All)
}

/// The host endpoint of an uplink's port.
pub(super) fn of_port<'s>(state: &'s State, port: &PortInfo) -> Option<&'s Arc<HostEndpoint>> {
    host_endpoint(state, &port.name, &port.addresses)
}

/// The host endpoints of uplinks.
pub(super) fn of_uplinks<'s>(
    state: &'s State,
    underlay: &'s Underlay,
) -> impl Iterator<Item = &'s Arc<HostEndpoint>> {
    let uplinks = underlay.ports.iter().filter(|port| port.uplink);
    uplinks.filter_map(|port| of_port(state, port))
}

// === impl Guard ===

impl Guard {
    /// Whether some of its policies look at every single packet.
    pub fn is_untracked(&self) -> bool {
        self.endpoint.untracked.iter().any(|t| !t.ingress.is_empty() || !t.egress.is_empty())
    }
}

/// Whether a port that no policy can close is meant.
pub(crate) fn is_failsafe(
    ports: &[margay_model::Failsafe],
    protocol: u8,
    port: u16,
    far: IpAddr,
) -> bool {
    ports.iter().any(|open| open.admits(protocol, port, far))
}
