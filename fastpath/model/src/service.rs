//! Services, one value for each port of a Kubernetes Service and IP family.
//!
//! The control plane has already chosen the usable endpoints (readiness, termination, topology);
//! the dataplane only decides by scope: cluster or local.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// `NAMESPACE/NAME:PORT/PROTOCOL/FAMILY`: one key for each service port, protocol and family.
pub type ServiceKey = Arc<str>;

/// Which backends a client may be sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficPolicy {
    /// All of the cluster.
    #[default]
    Cluster,
    /// Those on the node that the packet is on.
    Local,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selection {
    /// By a hash that is this node's secret. A changed list of backends moves most hashes.
    #[default]
    Even,
    /// By a Maglev table over client, port and service: every node that has the same list chooses
    /// alike, and a changed list moves few hashes.
    Maglev,
}

/// An address and port that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address.
    pub addr: IpAddr,
    /// Port in host byte order.
    pub port: u16,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// IP protocol number.
    pub protocol: u8,
    /// Port on the cluster, external and load-balancer addresses, in host byte order.
    pub port: u16,
    /// Cluster addresses (of one family).
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses.
    pub external_ips: Vec<IpAddr>,
    /// Load-balancer addresses.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Sources that may use the load-balancer addresses; empty for all.
    pub load_balancer_sources: Vec<IpNet>,
    /// Port on the node's addresses.
    pub node_port: Option<u16>,
    /// Traffic policy for clients that use the cluster addresses.
    pub internal: TrafficPolicy,
    /// Traffic policy for clients outside that use the other addresses.
    pub external: TrafficPolicy,
    /// Seconds for which a client stays with its backend; `None` without affinity.
    pub affinity: Option<u32>,
    /// How a backend is chosen.
    pub selection: Selection,
    /// Usable backends of the whole cluster, ordered.
    pub cluster_backends: Vec<Backend>,
    /// Usable backends on this node, ordered; chosen independently of the cluster's.
    pub local_backends: Vec<Backend>,
    /// Backends that serve the connections they have and are for no new ones: they drain, or
    /// another place is nearer. Ordered; none of them is in the other lists.
    pub kept_backends: Vec<Backend>,
}

// === impl Service ===

impl Service {
    /// Its own addresses, on which its port is: cluster, external and load-balancer addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let Self { cluster_ips, external_ips, load_balancer_ips, .. } = self;
        cluster_ips.iter().chain(external_ips).chain(load_balancer_ips).copied()
    }
}
