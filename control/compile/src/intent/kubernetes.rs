//! Kubernetes' NetworkPolicy.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use margay_model::{Action, PortRange};
use margay_resources::selector::{ORCHESTRATOR_LABEL, Selector};
use margay_resources::v3::DEFAULT_TIER;

use super::{EntityIntent, PolicyIntent, PortIntent, RuleIntent, Stage, policy_key};

/// Kind of these policies, as Calico names it.
pub(crate) const KIND: &str = "KubernetesNetworkPolicy";

/// Place of these policies in the default tier.
const ORDER: f64 = 1_000.0;

/// Converts a policy; `None` if its pod selector is none, so that it is not known whom it is for.
/// A rule that is malformed is left out, which never opens anything, as all rules allow.
pub(crate) fn policy(object: &NetworkPolicy) -> Option<PolicyIntent> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let default = NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    let selected = pods(spec.pod_selector.as_ref())?.and(&Selector::in_namespace(namespace));
    let (polices_ingress, polices_egress) = directions(spec);
    let mut intent = PolicyIntent {
        key: policy_key(KIND, namespace, name),
        tier: DEFAULT_TIER.into(),
        order: Some(ORDER),
        sort_name: format!("{name}/{namespace}/{KIND}").into(),
        selector: selected.into(),
        polices_ingress,
        polices_egress,
        stage: Stage::Ends,
        needed_everywhere: false,
        staged: None,
        ingress: Vec::new(),
        egress: Vec::new(),
    };
    for (number, rule) in (0..).zip(spec.ingress.iter().flatten()) {
        for (peer, ports) in expand(rule.from.as_deref(), rule.ports.as_deref(), namespace) {
            intent.ingress.push(allow(number, ports.protocol, peer, ports.of_destination()));
        }
    }
    for (number, rule) in (0..).zip(spec.egress.iter().flatten()) {
        for (peer, ports) in expand(rule.to.as_deref(), rule.ports.as_deref(), namespace) {
            let dst = EntityIntent { ports: ports.ports, ..peer };
            intent.egress.push(allow(number, ports.protocol, EntityIntent::default(), dst));
        }
    }
    Some(intent)
}

fn allow(number: u32, protocol: Option<u8>, src: EntityIntent, dst: EntityIntent) -> RuleIntent {
    RuleIntent { protocol, src, dst, ..RuleIntent::any(number, Action::Allow) }
}

/// Without `policyTypes` a policy is for ingress, and for egress too if it has rules for that.
fn directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    match spec.policy_types.as_deref() {
        None | Some([]) => (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
        Some(types) => {
            let has = |name: &str| types.iter().any(|t| t == name);
            (has("Ingress"), has("Egress"))
        }
    }
}

/// A protocol with its ports; no protocol is any, no ports are all.
#[derive(Clone, Debug, Default)]
struct Ports {
    protocol: Option<u8>,
    ports: Vec<PortIntent>,
}

// === impl Ports ===

impl Ports {
    fn of_destination(self) -> EntityIntent {
        EntityIntent { ports: self.ports, ..EntityIntent::default() }
    }
}

/// Every combination of a peer and a protocol with its ports. Missing and empty lists mean all.
fn expand(
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
    namespace: &str,
) -> Vec<(EntityIntent, Ports)> {
    let peers: Vec<EntityIntent> = match peers {
        None | Some([]) => vec![EntityIntent::default()],
        Some(peers) => peers.iter().filter_map(|p| peer(p, namespace)).collect(),
    };
    let combine = |ports: Ports| peers.iter().map(move |peer| (peer.clone(), ports.clone()));
    by_protocol(ports.unwrap_or_default()).into_iter().flat_map(combine).collect()
}

/// Ports put together for each protocol. A port without a number stands for all of its protocol.
fn by_protocol(ports: &[NetworkPolicyPort]) -> Vec<Ports> {
    if ports.is_empty() {
        return vec![Ports::default()];
    }
    let mut all: BTreeMap<u8, Option<Vec<PortIntent>>> = BTreeMap::new();
    for (protocol, port) in ports.iter().filter_map(port) {
        let list = all.entry(protocol).or_insert_with(|| Some(Vec::new()));
        match (port, &mut *list) {
            (None, list) => *list = None,
            (Some(port), Some(ports)) => ports.push(port),
            (Some(_), None) => {}
        }
    }
    let each = |(protocol, ports): (u8, Option<Vec<PortIntent>>)| Ports {
        protocol: Some(protocol),
        ports: ports.unwrap_or_default(),
    };
    all.into_iter().map(each).collect()
}

/// The protocol, TCP if none is given, and the port, range or name; `None` if malformed.
fn port(port: &NetworkPolicyPort) -> Option<(u8, Option<PortIntent>)> {
    let protocol = protocol(port.protocol.as_deref())?;
    let Some(first) = &port.port else { return Some((protocol, None)) };
    let intent = match first {
        IntOrString::Int(first) => {
            let first = u16::try_from(*first).ok()?;
            let last = port.end_port.map_or(Some(first), |last| u16::try_from(last).ok())?;
            PortIntent::Range((first <= last).then_some(PortRange { first, last })?)
        }
        // Numbers may be written as text.
        IntOrString::String(name) => match name.parse() {
            Ok(number) => PortIntent::Range(PortRange::single(number)),
            Err(_) => PortIntent::Named(Arc::from(name.as_str())),
        },
    };
    Some((protocol, Some(intent)))
}

/// The number of a protocol that Kubernetes names; TCP for none.
pub(crate) fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// The other end of a rule; `None` if malformed.
fn peer(peer: &NetworkPolicyPeer, namespace: &str) -> Option<EntityIntent> {
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten();
        return Some(EntityIntent {
            nets: vec![network(&block.cidr)?],
            not_nets: except.map(|net| network(net)).collect::<Option<_>>()?,
            ..EntityIntent::default()
        });
    }
    let (pods, namespaces) = match &peer.namespace_selector {
        Some(namespaces) => (pods(peer.pod_selector.as_ref())?, in_namespaces(namespaces)?),
        None => (pods(Some(peer.pod_selector.as_ref()?))?, Selector::in_namespace(namespace)),
    };
    Some(selected(&pods, namespaces))
}

/// Pods of some namespaces.
pub(crate) fn selected(pods: &Selector, namespaces: Selector) -> EntityIntent {
    EntityIntent {
        selector: Some(pods.and(&namespaces).into()),
        identity: Some(namespaces),
        ..EntityIntent::default()
    }
}

/// A network without bits beyond its length.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net = text.parse::<IpNet>().map(|net| net.trunc());
    net.or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()
}

/// Pods by their own labels, all if nothing is said; network sets are no pods.
pub(crate) fn pods(selector: Option<&LabelSelector>) -> Option<Selector> {
    let is_pod = Selector::equals(ORCHESTRATOR_LABEL, "k8s");
    match selector {
        None => Some(is_pod),
        Some(selector) => Some(is_pod.and(&Selector::from_kubernetes(selector).ok()?)),
    }
}

/// Pods by the labels of their namespace.
pub(crate) fn in_namespaces(selector: &LabelSelector) -> Option<Selector> {
    Some(Selector::from_kubernetes(selector).ok()?.of_namespaces())
}
