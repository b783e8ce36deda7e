//! Where addresses of the pools live.

use std::sync::Arc;

use ipnet::IpNet;

use crate::node::Encap;

/// A route of the control plane. Addresses of local pods need none: their endpoints are routes.
/// Routes to the world outside are the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; the longest prefix wins.
    pub dst: IpNet,
    /// Where to.
    pub target: RouteTarget,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// To another node.
    Node {
        /// Name of a [`RemoteNode`](crate::RemoteNode).
        node: Arc<str>,
        /// How to get there.
        encap: Encap,
    },
    /// Into a block of this node: an address that no pod has is unreachable.
    LocalBlock,
}
