//! Kubernetes' ClusterNetworkPolicy, `policy.networking.k8s.io/v1alpha2`.

use std::sync::Arc;

use margay_model::{Action, DomainPattern, PortRange};
use margay_resources::cnp::{
    ClusterNetworkPolicy, NamespacedPod, Peer, PortMatch, ProtocolMatch, Subject,
};
use margay_resources::selector::Selector;
use margay_resources::v3::{ADMIN_TIER, BASELINE_TIER};

use super::kubernetes::{in_namespaces, network, pods, protocol, selected};
use super::{EntityIntent, PolicyIntent, PortIntent, RuleIntent, Stage, policy_key};

/// Kind of these policies, as Calico names it.
pub(crate) const KIND: &str = "KubernetesClusterNetworkPolicy";

/// Converts a policy; `None` if its tier or its subject is not known, so that it is void.
///
/// A rule that cannot be converted, or that has fields that are not known, never opens anything: one
/// that accepts is left out, another denies everything in its place.
pub(crate) fn policy(object: &ClusterNetworkPolicy) -> Option<PolicyIntent> {
    let (name, spec) = (object.name(), &object.spec);
    let tier = match spec.tier.as_str() {
        "Admin" => ADMIN_TIER,
        "Baseline" => BASELINE_TIER,
        _ => return None,
    };
    let mut intent = PolicyIntent {
        key: policy_key(KIND, "", name),
        tier: tier.into(),
        order: Some(spec.priority as f64),
        sort_name: format!("{name}//{KIND}").into(),
        selector: subject(&spec.subject)?.into(),
        polices_ingress: !spec.ingress.is_empty(),
        polices_egress: !spec.egress.is_empty(),
        stage: Stage::Ends,
        needed_everywhere: false,
        staged: None,
        ingress: Vec::new(),
        egress: Vec::new(),
    };
    for (number, rule) in (0..).zip(&spec.ingress) {
        let converted = rules(number, &rule.action, &rule.from, &rule.protocols, false);
        let converted = converted.filter(|_| !rule.says_more);
        intent.ingress.extend(converted.unwrap_or_else(|| closed(number, &rule.action)));
    }
    for (number, rule) in (0..).zip(&spec.egress) {
        let converted = rules(number, &rule.action, &rule.to, &rule.protocols, true);
        let converted = converted.filter(|_| !rule.says_more);
        intent.egress.extend(converted.unwrap_or_else(|| closed(number, &rule.action)));
    }
    Some(intent)
}

/// What stands in for a rule that cannot be converted.
fn closed(number: u32, action: &str) -> Vec<RuleIntent> {
    match action {
        "Accept" => Vec::new(),
        _ => vec![RuleIntent::any(number, Action::Deny)],
    }
}

fn subject(subject: &Subject) -> Option<Selector> {
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => Some(pods(None)?.and(&in_namespaces(namespaces)?)),
        (None, Some(pods)) => namespaced(pods),
        _ => None,
    }
}

fn namespaced(pod: &NamespacedPod) -> Option<Selector> {
    Some(pods(Some(&pod.pod_selector))?.and(&in_namespaces(&pod.namespace_selector)?))
}

/// Every combination of a peer and a protocol; `None` if anything of it cannot be converted.
fn rules(
    number: u32,
    action: &str,
    peers: &[Peer],
    protocols: &[ProtocolMatch],
    egress: bool,
) -> Option<Vec<RuleIntent>> {
    let action = match action {
        "Accept" => Action::Allow,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        _ => return None,
    };
    let named = protocols.iter().any(|each| !each.destination_named_port.is_empty());
    if peers.is_empty() || named && !peers.iter().all(Peer::has_pods) {
        return None;
    }
    let mut ports = Vec::new();
    for each in protocols {
        ports.extend(protocol_ports(each)?);
    }
    if protocols.is_empty() {
        ports.push((None, None));
    }
    let mut rules = Vec::new();
    for peer in peers {
        let peer = self::peer(peer, action, egress)?;
        for (protocol, port) in &ports {
            let ports = port.iter().cloned().collect();
            let (src, dst) = if egress {
                (EntityIntent::default(), EntityIntent { ports, ..peer.clone() })
            } else {
                (peer.clone(), EntityIntent { ports, ..EntityIntent::default() })
            };
            rules.push(RuleIntent {
                protocol: *protocol,
                src,
                dst,
                ..RuleIntent::any(number, action)
            });
        }
    }
    Some(rules)
}

/// The other end; what is no pods is for egress, and names only for rules that accept.
fn peer(peer: &Peer, action: Action, egress: bool) -> Option<EntityIntent> {
    let Peer { namespaces, pods: pod, nodes, networks, domain_names } = peer;
    match (namespaces, pod, nodes, networks.as_slice(), domain_names.as_slice()) {
        (Some(namespaces), None, None, [], []) => {
            Some(selected(&pods(None)?, in_namespaces(namespaces)?))
        }
        (None, Some(pod), None, [], []) => {
            let namespaces = in_namespaces(&pod.namespace_selector)?;
            Some(selected(&pods(Some(&pod.pod_selector))?, namespaces))
        }
        (None, None, Some(nodes), [], []) if egress => {
            let nodes = Some(Selector::from_kubernetes(nodes).ok()?.into());
            Some(EntityIntent { nodes, ..EntityIntent::default() })
        }
        (None, None, None, [_, ..], []) if egress => {
            let nets = networks.iter().map(|net| network(net)).collect::<Option<_>>()?;
            Some(EntityIntent { nets, ..EntityIntent::default() })
        }
        (None, None, None, [], [_, ..]) if egress && action == Action::Allow => {
            let domains = domain_names.iter().map(|name| domain(name)).collect::<Option<_>>()?;
            Some(EntityIntent { domains: Some(domains), ..EntityIntent::default() })
        }
        _ => None,
    }
}

/// A name as the API has it: at least two labels, each with a letter or digit at both ends, and
/// `*` only before them.
fn domain(text: &str) -> Option<DomainPattern> {
    let pattern: DomainPattern = text.parse().ok()?;
    let name = pattern.as_str();
    let name = name.strip_prefix("*.").unwrap_or(name);
    let ends = |c: char| c.is_ascii_alphanumeric();
    let is_label = |label: &str| label.starts_with(ends) && label.ends_with(ends);
    (name.contains('.') && name.split('.').all(is_label)).then_some(pattern)
}

type ProtocolPort = (Option<u8>, Option<PortIntent>);

/// A protocol and its port. A named port is one of the destination pod, whatever its protocol.
fn protocol_ports(each: &ProtocolMatch) -> Option<Vec<ProtocolPort>> {
    let of =
        |name, ports: &PortMatch| Some(vec![(Some(protocol(Some(name))?), port_range(ports)?)]);
    match (&each.tcp, &each.udp, &each.sctp, each.destination_named_port.as_str()) {
        (Some(ports), None, None, "") => of("TCP", ports),
        (None, Some(ports), None, "") => of("UDP", ports),
        (None, None, Some(ports), "") => of("SCTP", ports),
        (None, None, None, name) if !name.is_empty() => {
            let named = |protocol| (Some(protocol), Some(PortIntent::Named(Arc::from(name))));
            Some([6, 17, 132].map(named).into())
        }
        _ => None,
    }
}

fn port_range(ports: &PortMatch) -> Option<Option<PortIntent>> {
    let Some(port) = &ports.destination_port else { return Some(None) };
    let (first, last) = match (port.number, port.range) {
        (Some(number), None) => (number, number),
        (None, Some(range)) => (range.start, range.end),
        _ => return None,
    };
    let range = PortRange { first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()? };
    (range.first <= range.last).then_some(Some(PortIntent::Range(range)))
}
