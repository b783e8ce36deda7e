//! How large a pod's packets may be: the uplink's MTU less what encapsulation adds to them.

use margay_model::Encap;
use margay_resources::v3::{EncapMode, IpPoolSpec};

/// What encryption adds, by the family of the underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encryption {
    /// WireGuard over IPv4.
    pub(super) v4: bool,
    /// WireGuard over IPv6.
    pub(super) v6: bool,
}

/// Bytes that WireGuard adds over IPv4 and over IPv6: 20 or 40 of IP, 8 of UDP, 32 of its own.
const WIREGUARD: (u32, u32) = (60, 80);

/// The MTU of a pod's interface: `uplink` less the largest overhead of what the pools enable.
pub(super) fn of_pods<'a>(
    uplink: u32,
    pools: impl Iterator<Item = &'a IpPoolSpec>,
    encryption: Encryption,
) -> u32 {
    let encapsulation = pools.filter(|pool| !pool.disabled).map(overhead).max().unwrap_or(0);
    let wireguard = match encryption {
        Encryption { v6: true, .. } => WIREGUARD.1,
        Encryption { v4: true, .. } => WIREGUARD.0,
        _ => 0,
    };
    uplink.saturating_sub(encapsulation.max(wireguard))
}

/// A pool's encapsulation goes over an underlay of the pool's own family.
fn overhead(pool: &IpPoolSpec) -> u32 {
    let v6 = pool.cidr.as_ref().is_some_and(|cidr| cidr.net().addr().is_ipv6());
    let on = |mode: Option<EncapMode>| mode.unwrap_or_default() != EncapMode::Never;
    let enabled = [
        (on(pool.ipip_mode), Encap::Ipip.overhead(v6)),
        (on(pool.vxlan_mode), Encap::Vxlan.overhead(v6)),
    ];
    enabled.iter().filter(|(on, _)| *on).map(|(_, bytes)| u32::from(*bytes)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mtu(pools: &[Value], encryption: Encryption) -> u32 {
        let pools: Vec<IpPoolSpec> = pools
            .iter()
            .map(|pool| serde_json::from_value(pool.clone()).expect("a pool"))
            .collect();
        of_pods(1500, pools.iter(), encryption)
    }

    #[test]
    fn the_largest_overhead_of_the_enabled_pools_counts() {
        let plain = json!({"cidr": "10.0.0.0/16"});
        let ipip = json!({"cidr": "10.1.0.0/16", "ipipMode": "Always"});
        let vxlan = json!({"cidr": "10.2.0.0/16", "vxlanMode": "CrossSubnet"});
        let vxlan6 = json!({"cidr": "fd00::/48", "vxlanMode": "Always"});
        let off = json!({"cidr": "10.3.0.0/16", "vxlanMode": "Always", "disabled": true});
        let none = Encryption::default();
        assert_eq!(mtu(&[], none), 1500);
        assert_eq!(mtu(&[plain.clone(), off], none), 1500);
        assert_eq!(mtu(&[plain.clone(), ipip.clone()], none), 1480);
        assert_eq!(mtu(&[ipip, vxlan.clone()], none), 1450);
        assert_eq!(mtu(&[vxlan.clone(), vxlan6], none), 1430);
        assert_eq!(mtu(std::slice::from_ref(&plain), Encryption { v4: true, v6: false }), 1440);
        assert_eq!(mtu(&[vxlan], Encryption { v4: true, v6: true }), 1420);
    }
}
