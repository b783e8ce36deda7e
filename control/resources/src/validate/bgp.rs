//! BGP: settings, peers, filters.

use std::net::{IpAddr, SocketAddr};

use super::text;
use crate::field::Report;
use crate::v3::{
    BgpConfiguration, BgpFilterRule, BgpFilterSpec, BgpPeerSpec, CidrBlock, FilterAction,
    FilterOperation, Net,
};

/// Checks settings of BGP.
pub(super) fn configuration(object: &BgpConfiguration, report: &mut Report<'_>) {
    let spec = &object.spec;
    let levels = ["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
    text::one_of(report, "logSeverityScreen", spec.log_severity_screen.as_deref(), &levels);
    let aggregation = spec.service_load_balancer_aggregation.as_deref();
    text::one_of(report, "serviceLoadBalancerAggregation", aggregation, &["Enabled", "Disabled"]);
    text::one_of(report, "bindMode", spec.bind_mode.as_deref(), &["None", "NodeIP"]);
    text::address(
        report,
        "localWorkloadPeeringIPV4",
        &spec.local_workload_peering_ipv4,
        Some(false),
    );
    text::address(
        report,
        "localWorkloadPeeringIPV6",
        &spec.local_workload_peering_ipv6,
        Some(true),
    );
    for (key, blocks) in [
        ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
        ("serviceExternalIPs", &spec.service_external_ips),
        ("serviceClusterIPs", &spec.service_cluster_ips),
    ] {
        report.each(key, blocks, |report, CidrBlock { cidr }| canonical(cidr, report));
    }
    report.each("ignoredInterfaces", &spec.ignored_interfaces, |report, name| {
        if name == "*" || !text::is_interface(name, true) {
            report
                .wrong(format!("`{name}` is not an interface, nor a pattern of one such as eth*"));
        }
    });
    communities(object, report);
    let mesh_off = spec.node_to_node_mesh_enabled == Some(false);
    let mesh_of_node = object.name() != "default";
    for (key, given) in [
        ("nodeMeshPassword", spec.node_mesh_password.is_some()),
        ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.is_some()),
    ] {
        report.wrong_if(given && mesh_off, key, "is for the mesh, which is off");
        report.wrong_if(given && mesh_of_node, key, "is for the configuration called default only");
    }
    let restart = spec.node_mesh_max_restart_time.as_deref().unwrap_or_default();
    text::duration(report, "nodeMeshMaxRestartTime", restart);
    for (key, priority) in [
        ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority),
        ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority),
    ] {
        text::within(report, key, priority, 1, 2_147_483_646);
    }
}

fn communities(object: &BgpConfiguration, report: &mut Report<'_>) {
    let spec = &object.spec;
    report.each("communities", &spec.communities, |report, community| {
        report.wrong_if(community.name.is_empty(), "name", "is missing");
        let fits = text::is_community(&community.value);
        report.wrong_if(!fits, "value", not_a_community(&community.value));
    });
    if spec.prefix_advertisements.is_empty() && !spec.communities.is_empty() {
        report.wrong_at("communities", "are used by no prefixAdvertisements");
    }
    let is_named = |text: &str| spec.communities.iter().any(|c| c.name == text);
    report.each("prefixAdvertisements", &spec.prefix_advertisements, |report, advertised| {
        report.wrong_if(advertised.communities.is_empty(), "communities", "is empty");
        report.within("cidr", |report| canonical_here(&advertised.cidr, report));
        report.each("communities", &advertised.communities, |report, text| {
            if !text::is_community(text) && !is_named(text) {
                report.wrong(format!("`{text}` is neither a community nor the name of one"));
            }
        });
    });
}

fn not_a_community(text: &str) -> String {
    format!("`{text}` is not a community: aa:nn of 16 bits each, or aa:nn:mm of 32 bits each")
}

fn canonical(cidr: &Net, report: &mut Report<'_>) {
    report.within("cidr", |report| canonical_here(cidr, report));
}

fn canonical_here(cidr: &Net, report: &mut Report<'_>) {
    if !cidr.is_canonical() {
        report.wrong(format!("{cidr} has bits beyond its length; write {}", cidr.net()));
    }
}

/// Checks a peer.
pub(super) fn peer(spec: &BgpPeerSpec, report: &mut Report<'_>) {
    text::object_name(report, "node", &spec.node);
    for (key, selector) in [
        ("nodeSelector", &spec.node_selector),
        ("peerSelector", &spec.peer_selector),
        ("localWorkloadSelector", &spec.local_workload_selector),
    ] {
        text::selector(report, key, selector);
    }
    exclusions(spec, report);
    let address = address_of(&spec.peer_ip);
    if !spec.peer_ip.is_empty() && address.is_none() {
        let why = format!("`{}` is not an address, nor IPv4:port, nor [IPv6]:port", spec.peer_ip);
        report.wrong_at("peerIP", why);
    }
    text::address(report, "reachableBy", &spec.reachable_by, None);
    if let Ok(gateway) = spec.reachable_by.parse::<IpAddr>() {
        match address {
            None => report.wrong_at("reachableBy", "needs a peerIP"),
            Some(peer) if peer.is_ipv4() != gateway.is_ipv4() => {
                report.wrong_at("reachableBy", "is of another family than peerIP");
            }
            Some(_) => {}
        }
    }
    text::one_of(report, "nextHopMode", spec.next_hop_mode.as_deref(), &["Auto", "Self", "Keep"]);
    text::one_of(report, "sourceAddress", spec.source_address.as_deref(), &["UseNodeIP", "None"]);
    text::one_of(report, "reversePeering", spec.reverse_peering.as_deref(), &["Auto", "Manual"]);
    text::duration(report, "maxRestartTime", spec.max_restart_time.as_deref().unwrap_or_default());
    text::duration(report, "keepaliveTime", spec.keepalive_time.as_deref().unwrap_or_default());
    text::within(report, "ttlSecurity", spec.ttl_security, 0, 255);
    text::within(
        report,
        "numAllowedLocalASNumbers",
        spec.num_allowed_local_as_numbers,
        0,
        i64::from(i32::MAX),
    );
}

/// Which fields of a peer exclude which.
fn exclusions(spec: &BgpPeerSpec, report: &mut Report<'_>) {
    let given = |text: &str| !text.is_empty();
    let number = spec.as_number.0 != 0;
    let both = given(&spec.node) && given(&spec.node_selector);
    report.wrong_if(both, "node", "and nodeSelector exclude each other");
    if given(&spec.peer_selector) {
        report.wrong_if(given(&spec.peer_ip), "peerIP", "and peerSelector exclude each other");
        report.wrong_if(
            number,
            "asNumber",
            "comes from the nodes that peerSelector picks; remove it",
        );
    }
    if given(&spec.local_workload_selector) {
        let why = "and localWorkloadSelector exclude each other";
        report.wrong_if(given(&spec.peer_ip), "peerIP", why);
        report.wrong_if(given(&spec.peer_selector), "peerSelector", why);
        report.wrong_if(!number, "asNumber", "is needed with localWorkloadSelector");
    }
    let both = spec.keep_original_next_hop && spec.next_hop_mode.is_some();
    report.wrong_if(both, "keepOriginalNextHop", "is the old form of nextHopMode Keep; remove it");
}

/// The address in `A`, `A4:port` or `[A6]:port`; port 0 is none.
fn address_of(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().filter(|a| a.port() != 0).map(|a| a.ip());
    text.parse().ok().or_else(with_port)
}

/// Checks a filter.
pub(super) fn filter(spec: &BgpFilterSpec, report: &mut Report<'_>) {
    for (key, rules, v6) in [
        ("exportV4", &spec.export_v4, false),
        ("importV4", &spec.import_v4, false),
        ("exportV6", &spec.export_v6, true),
        ("importV6", &spec.import_v6, true),
    ] {
        report.each(key, rules, |report, rule| filter_rule(rule, v6, report));
    }
}

fn filter_rule(rule: &BgpFilterRule, v6: bool, report: &mut Report<'_>) {
    match (&rule.cidr, rule.match_operator) {
        (Some(_), None) => report.wrong_at("matchOperator", "is missing beside cidr"),
        (None, Some(_)) => report.wrong_at("cidr", "is missing beside matchOperator"),
        _ => {}
    }
    if let Some(cidr) = &rule.cidr {
        canonical(cidr, report);
        let family = if v6 { "IPv6" } else { "IPv4" };
        report.wrong_if(cidr.is_v6() != v6, "cidr", format!("{cidr} is not of {family}"));
    }
    if let Some(length) = rule.prefix_length {
        report.wrong_if(rule.cidr.is_none(), "cidr", "is missing beside prefixLength");
        report.within("prefixLength", |report| {
            let most = if v6 { 128 } else { 32 };
            text::within(report, "min", length.min, 0, most);
            text::within(report, "max", length.max, 0, most);
            let empty = length.min.zip(length.max).is_some_and(|(min, max)| min > max);
            report.wrong_if(empty, "max", "is below min");
        });
    }
    text::one_of(report, "source", rule.source.as_deref(), &["RemotePeers"]);
    text::one_of(report, "peerType", rule.peer_type.as_deref(), &["eBGP", "iBGP"]);
    let bad = !rule.interface.is_empty() && !text::is_interface(&rule.interface, true);
    report.wrong_if(
        bad,
        "interface",
        format!("`{}` is not an interface or a pattern of one", rule.interface),
    );
    text::within(report, "priority", rule.priority, 1, 2_147_483_646);
    if let Some(communities) = &rule.communities {
        report.within("communities", |report| {
            report.wrong_if(communities.values.len() != 1, "values", "has exactly one community");
            report.each("values", &communities.values, |report, text| {
                if !text::is_community(text) {
                    report.wrong(not_a_community(text));
                }
            });
        });
    }
    let idle = !rule.operations.is_empty() && rule.action != FilterAction::Accept;
    report.wrong_if(idle, "operations", "are for rules that Accept only");
    report.each("operations", &rule.operations, |report, each| operation(each, report));
}

fn operation(operation: &FilterOperation, report: &mut Report<'_>) {
    let given = [
        operation.add_community.is_some(),
        operation.prepend_as_path.is_some(),
        operation.set_priority.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        report.wrong("needs exactly one of addCommunity, prependASPath and setPriority");
    }
    if let Some(add) =
        operation.add_community.as_ref().filter(|add| !text::is_community(&add.value))
    {
        report
            .within("addCommunity", |report| report.wrong_at("value", not_a_community(&add.value)));
    }
    if let Some(prepend) = &operation.prepend_as_path {
        let fits = (1..=10).contains(&prepend.prefix.len());
        report.within("prependASPath", |report| {
            report.wrong_if(!fits, "prefix", "has between 1 and 10 AS numbers");
        });
    }
    if let Some(set) = operation.set_priority {
        report.within("setPriority", |report| {
            text::within(report, "value", Some(set.value), 1, 2_147_483_646);
        });
    }
}
