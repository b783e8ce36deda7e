//! What a load balancer outside is told: whether this node serves a service itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::name::ObjectName;

/// The health check of a service whose clients outside are served on the node that they reach
/// (`healthCheckNodePort`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it is asked for, on the node's addresses.
    pub port: u16,
    /// Namespace of the service.
    pub namespace: Arc<str>,
    /// Name of the service.
    pub name: Arc<str>,
    /// Ready endpoints on this node, of the family that has more of them.
    pub local_endpoints: usize,
}

/// The health checks of a node by port. Of two services that claim one port the first name has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    ports: BTreeMap<ObjectName, u16>,
    checks: BTreeMap<(u16, ObjectName), HealthCheck>,
    /// Grows with each change.
    revision: u64,
}

// === impl HealthCheck ===

impl HealthCheck {
    pub(super) fn new(
        port: u16,
        service: &ObjectName,
        endpoints: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let (v4, v6): (BTreeSet<_>, BTreeSet<_>) = endpoints.partition(IpAddr::is_ipv4);
        Self {
            port,
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            local_endpoints: v4.len().max(v6.len()),
        }
    }
}

// === impl HealthChecks ===

impl HealthChecks {
    pub(super) fn set(&mut self, service: &ObjectName, check: Option<HealthCheck>) {
        let old = self.ports.remove(service);
        let old = old.and_then(|port| self.checks.remove(&(port, service.clone())));
        self.revision += u64::from(old != check);
        if let Some(check) = check {
            self.ports.insert(service.clone(), check.port);
            self.checks.insert((check.port, service.clone()), check);
        }
    }

    /// A number that is another one after each change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The check that is served on a port.
    pub fn at(&self, port: u16) -> Option<&HealthCheck> {
        let first = self.checks.range((port, ObjectName::default())..).next();
        first.map(|(_, check)| check).filter(|check| check.port == port)
    }

    /// All ports that something is served on.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.ports.values().copied().collect()
    }
}
