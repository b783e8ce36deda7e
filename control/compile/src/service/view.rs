//! What people ask of services: every endpoint, usable or not.

use std::net::IpAddr;
use std::sync::Arc;

use super::{ServiceEndpoint, Services};
use crate::name::ObjectName;

/// An endpoint of a port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// Address.
    pub addr: IpAddr,
    /// Port in host byte order.
    pub port: u16,
    /// The node that it is on.
    pub node: Option<Arc<str>>,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, ready or not.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
    /// The nodes and zones that it is meant for; empty for all.
    pub meant_for: Vec<Arc<str>>,
}

// === impl Services ===

impl Services {
    /// The endpoints of an emitted service, ordered by address and port.
    pub(crate) fn backends(&self, key: &str) -> Vec<BackendView> {
        let endpoints = || {
            let (name, _) = key.split_once(':')?;
            let (namespace, name) = name.split_once('/')?;
            let services = self.published.get(&ObjectName::new(namespace, name))?;
            Some(&services.get(key)?.endpoints)
        };
        endpoints().into_iter().flatten().map(BackendView::from).collect()
    }
}

impl From<&ServiceEndpoint> for BackendView {
    fn from(endpoint: &ServiceEndpoint) -> Self {
        Self {
            addr: endpoint.addr,
            port: endpoint.port,
            node: endpoint.node.clone(),
            ready: endpoint.conditions.ready,
            serving: endpoint.conditions.serving,
            terminating: endpoint.conditions.terminating,
            meant_for: endpoint.hints.nodes.iter().chain(&endpoint.hints.zones).cloned().collect(),
        }
    }
}
