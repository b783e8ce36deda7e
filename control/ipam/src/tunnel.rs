//! The addresses that a node's own traffic carries into its tunnels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_resources::v3::{AllowedUse, EncapMode};

use crate::Ipam;
use crate::assign::AutoAssign;
use crate::error::Error;
use crate::names::Owner;
use crate::pool::{Demand, Family, Pool, select};
use crate::release::Release;

/// A tunnel that needs an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IP in IP.
    Ipip,
    /// VXLAN, inner IPv4.
    Vxlan,
    /// VXLAN, inner IPv6.
    VxlanV6,
    /// WireGuard, inner IPv4.
    Wireguard,
    /// WireGuard, inner IPv6.
    WireguardV6,
}

// === impl TunnelKind ===

impl TunnelKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Ipip, Self::Vxlan, Self::VxlanV6, Self::Wireguard, Self::WireguardV6];

    /// Beginning of the handle, and the type that is noted at the address.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Ipip => ("ipip-tunnel-addr", "ipipTunnelAddress"),
            Self::Vxlan => ("vxlan-tunnel-addr", "vxlanTunnelAddress"),
            Self::VxlanV6 => ("vxlan-v6-tunnel-addr", "vxlanV6TunnelAddress"),
            Self::Wireguard => ("wireguard-tunnel-addr", "wireguardTunnelAddress"),
            Self::WireguardV6 => ("wireguard-v6-tunnel-addr", "wireguardV6TunnelAddress"),
        }
    }

    /// The handle of a node's address.
    pub fn handle(self, node: &str) -> String {
        format!("{}-{node}", self.words().0)
    }

    /// The family of the inner packets.
    pub const fn family(self) -> Family {
        match self {
            Self::Ipip | Self::Vxlan | Self::Wireguard => Family::V4,
            Self::VxlanV6 | Self::WireguardV6 => Family::V6,
        }
    }

    /// Whether packets to the pool may take this tunnel. WireGuard serves any pool.
    fn serves(self, pool: &Pool) -> bool {
        let mode = match self {
            Self::Ipip => pool.spec.ipip_mode,
            Self::Vxlan | Self::VxlanV6 => pool.spec.vxlan_mode,
            Self::Wireguard | Self::WireguardV6 => return true,
        };
        mode.unwrap_or_default() != EncapMode::Never
    }
}

// === impl Ipam ===

impl Ipam {
    /// Sees to it that a node has an address for a tunnel as long as a pool needs it, out of a pool
    /// that does, and none otherwise. Returns the address. Asking again gives the same.
    ///
    /// # Errors
    /// As [`Ipam::auto_assign`].
    pub async fn ensure_tunnel_address(
        &self,
        node: &str,
        kind: TunnelKind,
    ) -> Result<Option<IpAddr>, Error> {
        let pools = self.pools_of_tunnel(node, kind).await?;
        let handle = kind.handle(node);
        let mut kept = None;
        for allocation in self.ips_by_handle(&handle).await? {
            let ip = allocation.ip;
            if kept.is_none() && pools.iter().any(|pool| pool.cidr.contains(&ip)) {
                kept = Some(ip);
                continue;
            }
            let sequence = Some(allocation.sequence);
            self.release_ips(&[Release { ip, handle: Some(&handle), sequence }]).await?;
        }
        if kept.is_some() || pools.is_empty() {
            return Ok(kept);
        }
        let names: Vec<String> = pools.into_iter().map(|pool| pool.name).collect();
        let attributes = [("node", node), ("type", kind.words().1)];
        let attributes: BTreeMap<_, _> =
            attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let mut request = AutoAssign {
            wanted: AllowedUse::Tunnel,
            ..AutoAssign::workload(node, &handle, attributes)
        };
        match kind.family() {
            Family::V4 => (request.v4, request.v4_pools) = (1, names),
            Family::V6 => (request.v6, request.v6_pools) = (1, names),
        }
        let assigned = self.auto_assign(&request).await?;
        Ok(assigned.v4.iter().chain(&assigned.v6).map(|net| net.addr()).next())
    }

    async fn pools_of_tunnel(&self, node: &str, kind: TunnelKind) -> Result<Vec<Pool>, Error> {
        let labels = self.labels_of(&Owner::host(node)).await?;
        let demand = Demand {
            family: kind.family(),
            pools: &[],
            wanted: AllowedUse::Tunnel,
            node: labels.as_ref(),
            namespace: None,
        };
        // A pool for certain namespaces is for their pods; it needs the tunnel all the same.
        let mut all = self.records.pools().await?;
        all.iter_mut().for_each(|pool| pool.spec.namespace_selector.clear());
        let mut pools = select(&all, &demand)?;
        pools.retain(|pool| kind.serves(pool));
        Ok(pools)
    }
}
