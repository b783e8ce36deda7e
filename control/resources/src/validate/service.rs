//! Services, their backends and their addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::kubernetes::not_a_network;
use super::text;
use crate::field::Report;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];

/// Checks a service.
pub(super) fn service(service: &Service, report: &mut Report<'_>) {
    let Some(spec) = &service.spec else { return };
    let kinds = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    text::one_of(report, "type", spec.type_.as_deref(), &kinds);
    text::one_of(
        report,
        "sessionAffinity",
        spec.session_affinity.as_deref(),
        &["None", "ClientIP"],
    );
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    let key = "sessionAffinityConfig.clientIP.timeoutSeconds";
    text::within(report, key, timeout.map(i64::from), 1, 86_400);
    text::within(
        report,
        "healthCheckNodePort",
        spec.health_check_node_port.map(i64::from),
        0,
        65_535,
    );
    let internal = spec.internal_traffic_policy.as_deref();
    text::one_of(report, "internalTrafficPolicy", internal, &POLICIES);
    let external = spec.external_traffic_policy.as_deref();
    text::one_of(report, "externalTrafficPolicy", external, &POLICIES);
    cluster_ip(report, "clusterIP", spec.cluster_ip.as_deref());
    report.each("clusterIPs", spec.cluster_ips.iter().flatten(), |report, each| {
        if each != "None" && each.parse::<IpAddr>().is_err() {
            report.wrong(format!("`{each}` is neither an IP address nor None"));
        }
    });
    report.each("externalIPs", spec.external_ips.iter().flatten(), |report, each| {
        if each.parse::<IpAddr>().is_err() {
            report.wrong(format!("`{each}` is not an IP address"));
        }
    });
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    report.each("loadBalancerSourceRanges", ranges, |report, each| {
        if each.trim().parse::<IpNet>().is_err() {
            report.wrong(not_a_network(each));
        }
    });
    let several = spec.ports.as_ref().is_some_and(|ports| ports.len() > 1);
    report.each("ports", spec.ports.iter().flatten(), |report, each| port(each, several, report));
    let named = || spec.ports.iter().flatten().filter_map(|port| port.name.as_deref());
    if let Some(name) = text::repeated(named()) {
        report.wrong_at("ports", format!("the name `{name}` occurs twice"));
    }
}

fn cluster_ip(report: &mut Report<'_>, key: &str, text: Option<&str>) {
    let text = text.filter(|text| !text.is_empty() && *text != "None");
    if let Some(text) = text.filter(|text| text.parse::<IpAddr>().is_err()) {
        report.wrong_at(key, format!("`{text}` is neither an IP address nor None"));
    }
}

fn port(port: &ServicePort, several: bool, report: &mut Report<'_>) {
    text::within(report, "port", Some(port.port.into()), 1, 65_535);
    text::within(report, "nodePort", port.node_port.map(i64::from), 0, 65_535);
    text::one_of(report, "protocol", port.protocol.as_deref(), &PROTOCOLS);
    let nameless = port.name.as_deref().unwrap_or_default().is_empty();
    report.wrong_if(several && nameless, "name", "is missing; each of several ports needs one");
    match &port.target_port {
        Some(IntOrString::Int(number)) => {
            text::within(report, "targetPort", Some(i64::from(*number)), 1, 65_535);
        }
        Some(IntOrString::String(name)) if !text::is_port_name(name) => {
            report.wrong_at("targetPort", format!("`{name}` is not the name of a port"));
        }
        _ => {}
    }
}

/// Checks the backends of a service.
pub(super) fn slice(slice: &EndpointSlice, report: &mut Report<'_>) {
    let kinds = ["IPv4", "IPv6", "FQDN"];
    let kind = slice.address_type.as_str();
    report.wrong_if(kind.is_empty(), "addressType", "is missing; it is IPv4, IPv6 or FQDN");
    text::one_of(report, "addressType", Some(kind), &kinds);
    report.each("endpoints", slice.endpoints.iter().flatten(), |report, endpoint| {
        report.each("addresses", &endpoint.addresses, |report, address| {
            let parsed = address.parse::<IpAddr>();
            let fits = match kind {
                "IPv4" => parsed.is_ok_and(|a| a.is_ipv4()),
                "IPv6" => parsed.is_ok_and(|a| a.is_ipv6()),
                _ => true,
            };
            if !fits {
                report.wrong(format!("`{address}` is not an {kind} address"));
            }
        });
    });
    report.each("ports", slice.ports.iter().flatten(), |report, port| {
        text::within(report, "port", port.port.map(i64::from), 1, 65_535);
        text::one_of(report, "protocol", port.protocol.as_deref(), &PROTOCOLS);
    });
}

/// Checks the ranges of service addresses.
pub(super) fn cidrs(object: &ServiceCIDR, report: &mut Report<'_>) {
    let cidrs = object.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
    let count = cidrs.map_or(0, Vec::len);
    report.wrong_if(!(1..=2).contains(&count), "cidrs", "has one network, or one of each family");
    report.each("cidrs", cidrs.into_iter().flatten(), |report, each| {
        if each.parse::<IpNet>().is_err() {
            report.wrong(not_a_network(each));
        }
    });
}
