//! Policies, pods and nodes of Kubernetes.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, text};
use crate::cnp::ClusterNetworkPolicySpec;
use crate::field::Report;

/// Checks a policy.
pub(super) fn policy(spec: &NetworkPolicySpec, report: &mut Report<'_>) {
    selector(report, "podSelector", spec.pod_selector.as_ref());
    report.each("policyTypes", spec.policy_types.iter().flatten(), |report, each| {
        if !["Ingress", "Egress"].contains(&each.as_str()) {
            report.wrong(format!("`{each}` is neither Ingress nor Egress"));
        }
    });
    report.each("ingress", spec.ingress.iter().flatten(), |report, rule| {
        report.each("ports", rule.ports.iter().flatten(), |report, each| port(each, report));
        report.each("from", rule.from.iter().flatten(), |report, each| peer(each, report));
    });
    report.each("egress", spec.egress.iter().flatten(), |report, rule| {
        report.each("ports", rule.ports.iter().flatten(), |report, each| port(each, report));
        report.each("to", rule.to.iter().flatten(), |report, each| peer(each, report));
    });
}

/// A peer is a block of addresses or pods, not both.
fn peer(peer: &NetworkPolicyPeer, report: &mut Report<'_>) {
    let pods = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        None if !pods => report.wrong("needs podSelector, namespaceSelector or ipBlock"),
        Some(_) if pods => report.wrong_at("ipBlock", "cannot stand beside a selector"),
        _ => {}
    }
    selector(report, "podSelector", peer.pod_selector.as_ref());
    selector(report, "namespaceSelector", peer.namespace_selector.as_ref());
    if let Some(block) = &peer.ip_block {
        report.within("ipBlock", |report| ip_block(block, report));
    }
}

fn ip_block(block: &IPBlock, report: &mut Report<'_>) {
    let cidr: Option<IpNet> = block.cidr.parse().ok();
    if cidr.is_none() {
        report.wrong_at("cidr", not_a_network(&block.cidr));
    }
    report.each("except", block.except.iter().flatten(), |report, text| {
        match (text.parse::<IpNet>(), cidr) {
            (Err(_), _) => report.wrong(not_a_network(text)),
            (Ok(except), Some(cidr)) if !is_inside(except, cidr) => {
                report.wrong(format!("{text} is not a smaller network inside {}", block.cidr));
            }
            _ => {}
        }
    });
}

/// Whether a network is a part of another, and not all of it.
fn is_inside(part: IpNet, whole: IpNet) -> bool {
    whole.trunc().contains(&part.trunc()) && part.prefix_len() > whole.prefix_len()
}

pub(super) fn not_a_network(text: &str) -> String {
    format!("`{text}` is not a network such as 10.0.0.0/8 or fd00::/8")
}

fn port(port: &NetworkPolicyPort, report: &mut Report<'_>) {
    text::one_of(report, "protocol", port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
    match &port.port {
        Some(IntOrString::Int(number)) => {
            text::within(report, "port", Some(i64::from(*number)), 1, 65_535);
        }
        Some(IntOrString::String(name)) if !text::is_port_name(name) => {
            let why = format!(
                "`{name}` is not a port name: at most 15 lower-case letters, digits and `-`"
            );
            report.wrong_at("port", why);
        }
        _ => {}
    }
    let Some(end) = port.end_port else { return };
    match &port.port {
        Some(IntOrString::Int(first)) if end < *first => {
            report.wrong_at("endPort", format!("{end} is below port {first}"));
        }
        Some(IntOrString::Int(_)) => {
            text::within(report, "endPort", Some(i64::from(end)), 1, 65_535);
        }
        _ => report.wrong_at("endPort", "needs a port that is a number"),
    }
}

/// Checks a label selector, if there is one.
fn selector(report: &mut Report<'_>, key: &str, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    report.within(key, |report| {
        if let Some(labels) = &selector.match_labels {
            report.within("matchLabels", |report| metadata::check_labels(labels, report));
        }
        report.each(
            "matchExpressions",
            selector.match_expressions.iter().flatten(),
            |report, term| {
                if !text::is_qualified_name(&term.key) {
                    report.wrong_at("key", metadata::not_a_label(&term.key));
                }
                let empty = term.values.as_ref().is_none_or(Vec::is_empty);
                match term.operator.as_str() {
                    "In" | "NotIn" => {
                        let why = format!("is empty; {} needs values", term.operator);
                        report.wrong_if(empty, "values", why);
                    }
                    "Exists" | "DoesNotExist" => {
                        let why = format!("is not for {}; remove it", term.operator);
                        report.wrong_if(!empty, "values", why);
                    }
                    other => {
                        let why = format!("`{other}` is none of In, NotIn, Exists, DoesNotExist");
                        report.wrong_at("operator", why);
                    }
                }
                report.each("values", term.values.iter().flatten(), |report, value| {
                    if !text::is_label_value(value) {
                        report.wrong(metadata::not_a_value(value));
                    }
                });
            },
        );
    });
}

/// Checks what makes a cluster policy void. Its rules are replaced, where they cannot be read, by
/// what is safe, and so do not make it bad.
pub(super) fn cluster_policy(spec: &ClusterNetworkPolicySpec, report: &mut Report<'_>) {
    if !["Admin", "Baseline"].contains(&spec.tier.as_str()) {
        report.wrong_at("tier", format!("`{}` is neither Admin nor Baseline", spec.tier));
    }
    text::within(report, "priority", Some(spec.priority), 0, 1000);
    if spec.subject.namespaces.is_some() == spec.subject.pods.is_some() {
        report.wrong_at("subject", "needs exactly one of namespaces and pods");
    }
    report.within("subject", |report| {
        selector(report, "namespaces", spec.subject.namespaces.as_ref());
        if let Some(pods) = &spec.subject.pods {
            report.within("pods", |report| {
                selector(report, "namespaceSelector", Some(&pods.namespace_selector));
                selector(report, "podSelector", Some(&pods.pod_selector));
            });
        }
    });
}

/// Checks the ports of a pod, by which rules may name them.
pub(super) fn pod(pod: &Pod, report: &mut Report<'_>) {
    let Some(spec) = &pod.spec else { return };
    report.each("containers", &spec.containers, |report, container| {
        report.each("ports", container.ports.iter().flatten(), |report, port| {
            text::within(report, "containerPort", Some(port.container_port.into()), 1, 65_535);
            text::one_of(report, "protocol", port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
            text::within(report, "hostPort", port.host_port.map(i64::from), 0, 65_535);
        });
    });
}

/// Checks the addresses of a pod.
pub(super) fn pod_status(pod: &Pod, report: &mut Report<'_>) {
    let Some(status) = &pod.status else { return };
    report.within("status", |report| {
        text::address(report, "podIP", status.pod_ip.as_deref().unwrap_or_default(), None);
        report.each("podIPs", status.pod_ips.iter().flatten(), |report, each| {
            text::address(report, "ip", &each.ip, None);
        });
    });
}

/// Checks the addresses of a node.
pub(super) fn node_status(node: &Node, report: &mut Report<'_>) {
    let Some(status) = &node.status else { return };
    report.within("status", |report| {
        report.each("addresses", status.addresses.iter().flatten(), |report, each| {
            let is_address = each.type_ == "InternalIP" || each.type_ == "ExternalIP";
            if is_address && each.address.parse::<IpAddr>().is_err() {
                report.wrong_at("address", format!("`{}` is not an IP address", each.address));
            }
        });
    });
}
