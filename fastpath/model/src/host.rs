//! Host endpoints: interfaces of this node that policy applies to.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::limit::Dscp;
use crate::policy::{PolicyKey, TierPolicies};

/// Name of a HostEndpoint object.
pub type HostKey = Arc<str>;

/// A host endpoint of this node. Its lists are asked in the order of the fields: a packet that an
/// earlier one allows is not shown to the later ones of the same interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Its name.
    pub key: HostKey,
    /// Which interfaces it stands for.
    pub interface: HostInterface,
    /// Asked for each packet, before connections are looked at; what no rule decides goes on. The
    /// end of a tier decides nothing.
    pub untracked: Arc<[TierPolicies]>,
    /// Asked for each connection that arrives, before services are translated; what no rule decides
    /// goes on, as with `untracked`. Ingress only.
    pub pre_dnat: Arc<[TierPolicies]>,
    /// Asked for connections that pass through the node. A direction without policies allows all.
    pub forward: Arc<[TierPolicies]>,
    /// Asked for the node's own connections.
    pub tiers: Arc<[TierPolicies]>,
    /// Profiles in order, behind `tiers`; the first that decides wins, none deciding means drop.
    pub profiles: Arc<[PolicyKey]>,
    /// What packets are marked with that the node itself sends out of the cluster by these interfaces.
    pub dscp: Option<Dscp>,
}

/// The interfaces that a host endpoint stands for. Of several host endpoints that fit an interface
/// by name or address the first by name counts; one for all interfaces only where none does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostInterface {
    /// All of them, tunnels included.
    All,
    /// The one of this name.
    Named(Arc<str>),
    /// The one that has one of these addresses.
    With(Vec<IpAddr>),
}

/// A port that no policy of a host endpoint can close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port in host byte order.
    pub port: u16,
    /// Where the far end has to be; `None` for anywhere.
    pub net: Option<IpNet>,
}

// === impl Failsafe ===

impl Failsafe {
    /// Whether a packet with this protocol and destination port, exchanged with `far`, is one that
    /// is always let through.
    pub fn admits(&self, protocol: u8, port: u16, far: IpAddr) -> bool {
        (self.protocol, self.port) == (protocol, port)
            && self.net.is_none_or(|net| net.contains(&far))
    }
}
