//! Short forms for policies and services.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use margay_model::{
    Action, Backend, DefaultAction, EntityMatch, IcmpMatch, IpVersion, Policy, PortRange, Rule,
    Selection, Service, State, TierPolicies, TrafficPolicy, Update,
};

/// The profile that every endpoint of the fixture has: it allows everything.
pub const PROFILE: &str = "Profile//kns.default";

pub fn allow() -> Rule {
    Rule::any(Action::Allow)
}

pub fn deny() -> Rule {
    Rule::any(Action::Deny)
}

pub fn pass() -> Rule {
    Rule::any(Action::Pass)
}

/// Allows a protocol to destination ports.
pub fn allow_ports(protocol: u8, first: u16, last: u16) -> Rule {
    let ports = vec![PortRange { first, last }];
    Rule {
        protocol: Some(protocol),
        dst: EntityMatch { ports, ..EntityMatch::default() },
        ..allow()
    }
}

/// Allows one ICMP type.
pub fn allow_icmp(kind: u8) -> Rule {
    Rule {
        ip_version: Some(IpVersion::V4),
        protocol: Some(1),
        icmp: Some(IcmpMatch { kind, code: None }),
        ..allow()
    }
}

/// Allows what comes from a network.
pub fn allow_from(net: &str) -> Rule {
    let nets = vec![net.parse().unwrap()];
    let src = EntityMatch { nets, ..EntityMatch::default() };
    Rule { ip_version: Some(IpVersion::V4), src, ..allow() }
}

/// Allows what comes from members of a set.
pub fn allow_set(set: &str) -> Rule {
    let src = EntityMatch { sets: vec![set.into()], ..EntityMatch::default() };
    Rule { src, ..allow() }
}

/// Puts a policy in force and hands out its key. Its rules are those of its document.
pub fn policy(state: &mut State, name: &str, ingress: Vec<Rule>, egress: Vec<Rule>) -> Arc<str> {
    let key: Arc<str> = format!("NetworkPolicy/default/{name}").into();
    let [ingress, egress] = [ingress, egress].map(|rules| {
        (0..).zip(rules).map(|(number, rule)| Rule { number, ..rule }).collect::<Vec<_>>()
    });
    state.apply(Update::Policy(Arc::new(Policy { key: key.clone(), ingress, egress })));
    key
}

/// A tier with policies for either direction.
pub fn tier(
    name: &str,
    default_action: DefaultAction,
    ingress: &[&Arc<str>],
    egress: &[&Arc<str>],
) -> TierPolicies {
    let keys = |list: &[&Arc<str>]| list.iter().map(|key| (*key).clone()).collect();
    let (ingress, egress) = (keys(ingress), keys(egress));
    TierPolicies { name: name.into(), default_action, ingress, egress }
}

/// Applies tiers to the endpoint of a pod.
pub fn police(state: &mut State, pod: &str, tiers: Vec<TierPolicies>) {
    let key: Arc<str> = format!("default/{pod}/eth0").into();
    let endpoint = Arc::make_mut(state.endpoints.get_mut(&key).unwrap());
    endpoint.tiers = tiers.into();
}

/// One policy in one tier with default Deny: what a Kubernetes NetworkPolicy is.
pub fn isolate(
    state: &mut State,
    pod: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) {
    let (has_in, has_out) = (ingress.is_some(), egress.is_some());
    let key = policy(state, pod, ingress.unwrap_or_default(), egress.unwrap_or_default());
    let keys = [&key];
    let part = |has: bool| if has { &keys[..] } else { &[] };
    let tier = tier("default", DefaultAction::Deny, part(has_in), part(has_out));
    police(state, pod, vec![tier]);
}

/// A service with one cluster address and these backends, of which those of the fixture's local
/// block are on this node.
pub fn service(key: &str, protocol: u8, frontend: &str, backends: &[&str]) -> Service {
    let frontend: SocketAddr = frontend.parse().unwrap();
    let backends: Vec<Backend> = (backends.iter())
        .map(|text| text.parse::<SocketAddr>().unwrap())
        .map(|at| Backend { addr: at.ip(), port: at.port() })
        .collect();
    let local = |addr: IpAddr| super::local_nets().iter().any(|net| net.contains(&addr));
    Service {
        key: key.into(),
        protocol,
        port: frontend.port(),
        cluster_ips: vec![frontend.ip()],
        local_backends: backends.iter().filter(|b| local(b.addr)).copied().collect(),
        cluster_backends: backends,
        ..Service::default()
    }
}

pub fn serve(state: &mut State, service: Service) {
    state.apply(Update::Service(Arc::new(service)));
}
