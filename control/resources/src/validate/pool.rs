//! Pools and the settings of address management.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::text;
use crate::field::Report;
use crate::v3::{AllowedUse, EncapMode, IpPoolSpec, IpamConfigurationSpec, Net};

/// Checks a pool with its defaults.
pub(super) fn pool(spec: &IpPoolSpec, report: &mut Report<'_>) {
    match &spec.cidr {
        None => report.wrong_at("cidr", "is missing"),
        Some(cidr) => check_cidr(cidr, spec, report),
    }
    let enabled = |mode: Option<EncapMode>| mode.is_some_and(|mode| mode != EncapMode::Never);
    let (ipip, vxlan) = (enabled(spec.ipip_mode), enabled(spec.vxlan_mode));
    let is_v6 = spec.cidr.as_ref().is_some_and(Net::is_v6);
    report.wrong_if(ipip && is_v6, "ipipMode", "is Never for an IPv6 pool; use vxlanMode");
    report.wrong_if(
        ipip && vxlan,
        "vxlanMode",
        "and ipipMode exclude each other; set one to Never",
    );
    text::selector(report, "nodeSelector", &spec.node_selector);
    text::selector(report, "namespaceSelector", &spec.namespace_selector);
    if spec.allowed_uses.contains(&AllowedUse::LoadBalancer) {
        load_balancer(spec, ipip, vxlan, report);
    }
}

fn check_cidr(cidr: &Net, spec: &IpPoolSpec, report: &mut Report<'_>) {
    let net = cidr.net();
    if !cidr.is_canonical() {
        report.wrong_at("cidr", format!("{cidr} has bits beyond its length; write {net}"));
    }
    let (least, most) = if cidr.is_v6() { (116, 128) } else { (20, 32) };
    text::within(report, "blockSize", spec.block_size, least, most);
    let block = spec.block_size.unwrap_or(most);
    if !spec.disabled && i64::from(net.prefix_len()) > block {
        let why = format!(
            "{cidr} is smaller than one block (/{block}); widen the pool or raise blockSize"
        );
        report.wrong_at("cidr", why);
    }
    let link_local = match net {
        IpNet::V4(net) => overlaps_v4(net).then_some("169.254.0.0/16"),
        IpNet::V6(net) => overlaps_v6(net).then_some("fe80::/10"),
    };
    if let Some(link_local) = link_local {
        report.wrong_at("cidr", format!("{cidr} overlaps the link-local addresses {link_local}"));
    }
}

fn overlaps_v4(net: Ipv4Net) -> bool {
    let link_local = Ipv4Net::new_assert([169, 254, 0, 0].into(), 16);
    net.contains(&link_local) || link_local.contains(&net)
}

fn overlaps_v6(net: Ipv6Net) -> bool {
    let link_local = Ipv6Net::new_assert([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10);
    net.contains(&link_local) || link_local.contains(&net)
}

/// A pool for load balancers is for nothing else.
fn load_balancer(spec: &IpPoolSpec, ipip: bool, vxlan: bool, report: &mut Report<'_>) {
    let others = spec.allowed_uses.iter().any(|each| *each != AllowedUse::LoadBalancer);
    report.wrong_if(others, "allowedUses", "LoadBalancer excludes every other use");
    let why = "is Never for a pool of load balancers";
    report.wrong_if(ipip, "ipipMode", why);
    report.wrong_if(vxlan, "vxlanMode", why);
    let why = "is not for a pool of load balancers, whose addresses are advertised by service";
    report.wrong_if(spec.disable_bgp_export, "disableBGPExport", why);
    let everywhere = spec.node_selector == "all()";
    report.wrong_if(!everywhere, "nodeSelector", "is all() for a pool of load balancers");
}

/// Checks the settings of address management.
pub(super) fn configuration(spec: &IpamConfigurationSpec, report: &mut Report<'_>) {
    text::within(report, "maxBlocksPerHost", Some(spec.max_blocks_per_host), 0, i64::MAX);
    text::within(report, "ipCooldownSeconds", spec.ip_cooldown_seconds, 0, 1200);
    if !spec.strict_affinity {
        let why = "must be true unless strictAffinity is true: nodes would find no addresses";
        report.wrong_if(spec.auto_allocate_blocks == Some(false), "autoAllocateBlocks", why);
        let why = "needs strictAffinity true: without it nodes borrow from other nodes' blocks";
        report.wrong_if(spec.max_blocks_per_host > 0, "maxBlocksPerHost", why);
    }
}
