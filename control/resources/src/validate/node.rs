//! Nodes, reports on them, and the settings of the controllers.

use super::{metadata, text};
use crate::field::Report;
use crate::v3::{
    AutoHostEndpoint, CalicoNodeStatusSpec, KubeControllersConfigurationSpec, Net, NodeBgp,
    NodeSpec,
};

/// Checks a node as machines describe it.
pub(super) fn node(spec: &NodeSpec, report: &mut Report<'_>) {
    if let Some(bgp) = &spec.bgp {
        report.wrong_if(*bgp == NodeBgp::default(), "bgp", "is empty; remove it");
        report.within("bgp", |report| {
            subnet(report, "ipv4Address", &bgp.ipv4_address, false);
            subnet(report, "ipv6Address", &bgp.ipv6_address, true);
            text::address(report, "ipv4IPIPTunnelAddr", &bgp.ipv4_ipip_tunnel_addr, Some(false));
        });
    }
    text::address(report, "ipv4VXLANTunnelAddr", &spec.ipv4_vxlan_tunnel_addr, Some(false));
    text::address(report, "ipv6VXLANTunnelAddr", &spec.ipv6_vxlan_tunnel_addr, Some(true));
    for (key, mac) in [
        ("vxlanTunnelMACAddr", &spec.vxlan_tunnel_mac_addr),
        ("vxlanTunnelMACAddrV6", &spec.vxlan_tunnel_mac_addr_v6),
    ] {
        let bad = !mac.is_empty() && !text::is_mac(mac);
        report.wrong_if(bad, key, format!("`{mac}` is not an Ethernet address"));
    }
    report.each("addresses", &spec.addresses, |report, each| {
        let fits = each.address.parse::<Net>().is_ok();
        report.wrong_if(!fits, "address", format!("`{}` is not an address", each.address));
        let kinds = ["CalicoNodeIP", "InternalIP", "ExternalIP"];
        text::one_of(report, "type", Some(&each.kind), &kinds);
    });
}

/// Checks that a text, if it is not empty, is an address, perhaps with the length of its subnet.
fn subnet(report: &mut Report<'_>, key: &str, text: &str, v6: bool) {
    let fits = text.parse::<Net>().is_ok_and(|net| net.is_v6() == v6);
    if !text.is_empty() && !fits {
        let example = if v6 { "fd00::1/64" } else { "192.0.2.1/24" };
        report.wrong_at(key, format!("`{text}` is not an address such as {example}"));
    }
}

/// Checks what a report is to contain.
pub(super) fn status(spec: &CalicoNodeStatusSpec, report: &mut Report<'_>) {
    report.wrong_if(spec.node.is_empty(), "node", "is missing");
    text::object_name(report, "node", &spec.node);
    report.wrong_if(spec.classes.is_empty(), "classes", "is empty; give Agent, BGP or Routes");
    report.each("classes", &spec.classes, |report, class| {
        if !["Agent", "BGP", "Routes"].contains(&class.as_str()) {
            report.wrong(format!("`{class}` is none of Agent, BGP, Routes"));
        }
    });
    if let Some(class) = text::repeated(spec.classes.iter().map(String::as_str)) {
        report.wrong_at("classes", format!("{class} occurs twice"));
    }
    let period = spec.update_period_seconds;
    report.wrong_if(period.is_none(), "updatePeriodSeconds", "is missing; 0 stops the reports");
    text::within(report, "updatePeriodSeconds", period, 0, 86_400);
}

/// Checks the settings of the controllers.
pub(super) fn controllers(spec: &KubeControllersConfigurationSpec, report: &mut Report<'_>) {
    let levels = ["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"];
    text::one_of(report, "logSeverityScreen", Some(&spec.log_severity_screen), &levels);
    text::one_of(report, "healthChecks", Some(&spec.health_checks), &["Enabled", "Disabled"]);
    text::duration(report, "etcdV3CompactionPeriod", &spec.etcd_v3_compaction_period);
    text::within(report, "prometheusMetricsPort", spec.prometheus_metrics_port, 0, 65_535);
    text::within(report, "debugProfilePort", spec.debug_profile_port, 0, 65_535);
    let all = &spec.controllers;
    report.within("controllers", |report| {
        for (key, each) in [
            ("policy", &all.policy),
            ("workloadEndpoint", &all.workload_endpoint),
            ("serviceAccount", &all.service_account),
            ("namespace", &all.namespace),
        ] {
            let period = each.as_ref().map_or("", |each| &each.reconciler_period);
            report.within(key, |report| text::duration(report, "reconcilerPeriod", period));
        }
        if let Some(node) = &all.node {
            report.within("node", |report| {
                text::duration(report, "reconcilerPeriod", &node.reconciler_period);
                text::duration(report, "leakGracePeriod", &node.leak_grace_period);
                text::one_of(
                    report,
                    "syncLabels",
                    Some(&node.sync_labels),
                    &["Enabled", "Disabled"],
                );
                if let Some(host_endpoint) = &node.host_endpoint {
                    report.within("hostEndpoint", |report| automatic(host_endpoint, report));
                }
            });
        }
        if let Some(balancer) = &all.load_balancer {
            report.within("loadBalancer", |report| {
                let words = ["AllServices", "RequestedServicesOnly"];
                text::one_of(report, "assignIPs", Some(&balancer.assign_ips), &words);
            });
        }
    });
}

fn automatic(spec: &AutoHostEndpoint, report: &mut Report<'_>) {
    let words = ["Enabled", "Disabled"];
    text::one_of(report, "autoCreate", Some(&spec.auto_create), &words);
    let default = Some(spec.create_default_host_endpoint.as_str());
    text::one_of(report, "createDefaultHostEndpoint", default, &words);
    report.each("templates", &spec.templates, |report, template| {
        text::object_name(report, "generateName", &template.generate_name);
        text::selector(report, "nodeSelector", &template.node_selector);
        report.within("labels", |report| metadata::check_labels(&template.labels, report));
        if template.interface_cidrs.is_empty() && template.interface_pattern.is_empty() {
            report.wrong("needs interfaceCIDRs or interfacePattern");
        }
    });
}
