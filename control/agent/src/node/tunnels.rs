//! Which tunnels the pools want, and this node's addresses in them.

use std::sync::Arc;

use margay_datastore::Object;
use margay_ipam::{Error, Ipam, TunnelKind};
use margay_resources::Resource;
use margay_resources::v3::EncapMode;
use tracing::warn;

use super::object::{Tunnel, Tunnels};

/// The tunnels that any of the pools wants. A disabled pool counts: it gives out no more
/// addresses, but packets to those that it gave still travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    ipip: bool,
    vxlan_v4: bool,
    vxlan_v6: bool,
}

// === impl Wanted ===

impl Wanted {
    /// What these IPPools want; objects that are none want nothing.
    pub(super) fn by(pools: &[Arc<Object>]) -> Self {
        let mut wanted = Self::default();
        for object in pools {
            let Ok(Resource::IpPool(pool)) = Resource::from_value(&object.value) else { continue };
            let on = |mode: Option<EncapMode>| mode.unwrap_or_default() != EncapMode::Never;
            let v6 = pool.spec.cidr.as_ref().is_some_and(|cidr| cidr.net().addr().is_ipv6());
            wanted.ipip |= on(pool.spec.ipip_mode) && !v6;
            wanted.vxlan_v4 |= on(pool.spec.vxlan_mode) && !v6;
            wanted.vxlan_v6 |= on(pool.spec.vxlan_mode) && v6;
        }
        wanted
    }
}

/// Sees to it that the node has an address for each tunnel, and none for those that no pool needs; and
/// why it could not be done. A tunnel without an address carries the pods' packets all the same.
pub(super) async fn ensure(
    ipam: &Ipam,
    node: &str,
    wanted: Wanted,
) -> (Tunnels, Result<(), Error>) {
    let mut outcome = Ok(());
    let mut one = async |kind, wanted| match ipam.ensure_tunnel_address(node, kind).await {
        Ok(address) if wanted => Tunnel::Wanted(address),
        Ok(_) => Tunnel::Unwanted,
        Err(error) => {
            warn!(node, ?kind, %error, "the node has no address for its own traffic in the tunnel");
            outcome = Err(error);
            if wanted { Tunnel::Unknown } else { Tunnel::Unwanted }
        }
    };
    let tunnels = Tunnels {
        ipip: one(TunnelKind::Ipip, wanted.ipip).await,
        vxlan_v4: one(TunnelKind::Vxlan, wanted.vxlan_v4).await,
        vxlan_v6: one(TunnelKind::VxlanV6, wanted.vxlan_v6).await,
    };
    (tunnels, outcome)
}

#[cfg(test)]
mod tests {
    use margay_datastore::{Key, Revision};
    use serde_json::json;

    use super::*;

    fn pool(cidr: &str, ipip: &str, vxlan: &str, disabled: bool) -> Arc<Object> {
        let value = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": "p"},
            "spec": {"cidr": cidr, "ipipMode": ipip, "vxlanMode": vxlan, "disabled": disabled},
        });
        let key = Key::of(&value).unwrap();
        Arc::new(Object { key, revision: Revision("1".into()), value })
    }

    #[test]
    fn a_pool_wants_the_tunnel_of_its_mode_and_family_also_when_disabled() {
        let none = Wanted::default();
        for (cidr, ipip, vxlan, disabled, expected) in [
            ("10.0.0.0/16", "Never", "Never", false, none),
            ("10.0.0.0/16", "Always", "Never", false, Wanted { ipip: true, ..none }),
            ("10.0.0.0/16", "Never", "CrossSubnet", true, Wanted { vxlan_v4: true, ..none }),
            ("fd00::/48", "Never", "Always", false, Wanted { vxlan_v6: true, ..none }),
        ] {
            assert_eq!(Wanted::by(&[pool(cidr, ipip, vxlan, disabled)]), expected);
        }
        assert_eq!(Wanted::by(&[]), none);
    }
}
