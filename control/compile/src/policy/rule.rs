//! From a rule's intent to rules of the dataplane.

use std::sync::Arc;

use margay_model::{Action, EntityMatch, IpVersion, PortRange, Rule, SetId};
use margay_resources::selector::Selector;

use crate::intent::{EntityIntent, PortIntent, RuleIntent};
use crate::label::Expression;
use crate::request::{RequestMatch, RuleOrigin};
use crate::sets::{SetSource, Sets};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Rules of the dataplane with the origin of each in its document, and the sets that they hold; whoever lets go of the rules releases the sets.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) rules: Vec<Rule>,
    pub(crate) origins: Vec<RuleOrigin>,
    pub(crate) sets: Vec<SetId>,
}

/// From the endpoint's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

// === impl Compiled ===

impl Compiled {
    /// Compiles a list of rules.
    pub(crate) fn new(intents: &[RuleIntent], direction: Direction, sets: &mut Sets) -> Self {
        let mut compiled = Self::default();
        for intent in intents {
            let request = RequestMatch::of(intent).map(Arc::new);
            for rule in by_family(intent) {
                let mut rule = compile(&rule, sets);
                // What is learned of names can only be allowed: nobody is kept from an address by
                // what a name server says.
                let allows = direction == Direction::Egress && rule.action == Action::Allow;
                rule.dst.learned = allows && !rule.dst.sets.is_empty();
                compiled.sets.extend(rule.sets().cloned());
                compiled.rules.push(rule);
                let (number, request) = (intent.number, request.clone());
                compiled.origins.push(RuleOrigin { number, request });
            }
        }
        compiled
    }
}

/// A rule with networks or ICMP exists only in the families of these; without, in both at once.
/// Networks of both families make one rule of each, networks that never meet make none.
fn by_family(intent: &RuleIntent) -> Vec<RuleIntent> {
    let lists = [&intent.src.nets, &intent.src.not_nets, &intent.dst.nets, &intent.dst.not_nets];
    let of_protocol = match intent.protocol {
        Some(ICMP) => Some(IpVersion::V4),
        Some(ICMPV6) => Some(IpVersion::V6),
        _ => None,
    };
    if lists.iter().all(|l| l.is_empty()) && of_protocol.is_none() {
        return vec![intent.clone()];
    }
    let exists_in = |version: &IpVersion| {
        intent.ip_version.is_none_or(|v| v == *version)
            && of_protocol.is_none_or(|v| v == *version)
            && lists.iter().all(|l| l.is_empty() || l.iter().any(|n| family(n) == *version))
    };
    let versions = [IpVersion::V4, IpVersion::V6].into_iter().filter(exists_in);
    versions.map(|version| narrowed(intent, version)).collect()
}

fn narrowed(intent: &RuleIntent, version: IpVersion) -> RuleIntent {
    let mut rule = intent.clone();
    rule.ip_version = Some(version);
    for entity in [&mut rule.src, &mut rule.dst] {
        entity.nets.retain(|n| family(n) == version);
        entity.not_nets.retain(|n| family(n) == version);
    }
    rule
}

fn family(net: &ipnet::IpNet) -> IpVersion {
    match net {
        ipnet::IpNet::V4(_) => IpVersion::V4,
        ipnet::IpNet::V6(_) => IpVersion::V6,
    }
}

fn compile(intent: &RuleIntent, sets: &mut Sets) -> Rule {
    // Ports of endpoints carry a protocol, ports of rules do not: a named port stands for the
    // rule's protocol, and for TCP where the rule has none.
    let named = match intent.protocol {
        Some(protocol @ (UDP | SCTP)) => protocol,
        _ => TCP,
    };
    Rule {
        number: intent.number,
        action: intent.action,
        ip_version: intent.ip_version,
        protocol: intent.protocol,
        not_protocol: intent.not_protocol,
        icmp: intent.icmp,
        not_icmp: intent.not_icmp,
        src: entity(&intent.src, named, SetSource::ServiceAddresses, |e| &mut e.sets, sets),
        dst: entity(&intent.dst, named, SetSource::ServicePorts, |e| &mut e.addr_port_sets, sets),
    }
}

/// A source is a member of a service by its address alone (its port is ephemeral), a destination
/// by address and port.
fn entity(
    intent: &EntityIntent,
    named: u8,
    of_service: fn(crate::name::ObjectName) -> SetSource,
    service_sets: fn(&mut EntityMatch) -> &mut Vec<SetId>,
    sets: &mut Sets,
) -> EntityMatch {
    let mut entity = EntityMatch {
        nets: intent.nets.clone(),
        not_nets: intent.not_nets.clone(),
        ..EntityMatch::default()
    };
    let mut addresses = |selector: &Option<Expression>| -> Vec<SetId> {
        let sources = selector.iter().cloned().map(SetSource::Addresses);
        sources.map(|source| sets.acquire(source)).collect()
    };
    entity.sets = addresses(&intent.selector);
    entity.not_sets = addresses(&intent.not_selector);
    if let Some(domains) = &intent.domains {
        entity.sets.push(sets.acquire(SetSource::Domains(domains.clone())));
    }
    if let Some(nodes) = &intent.nodes {
        entity.sets.push(sets.acquire(SetSource::Nodes(nodes.clone())));
    }
    if let Some(service) = &intent.service {
        let set = sets.acquire(of_service(service.clone()));
        service_sets(&mut entity).push(set);
    }
    let selector = intent.selector.clone().unwrap_or_else(|| Selector::all().into());
    let mut split = |ports: &[PortIntent]| {
        let mut ranges: Vec<PortRange> = Vec::new();
        let mut names: Vec<SetId> = Vec::new();
        for port in ports {
            match port {
                PortIntent::Range(range) => ranges.push(*range),
                PortIntent::Named(name) => names.push(sets.acquire(SetSource::NamedPort {
                    selector: selector.clone(),
                    protocol: named,
                    name: name.clone(),
                })),
            }
        }
        (ranges, names)
    };
    (entity.ports, entity.named_ports) = split(&intent.ports);
    (entity.not_ports, entity.not_named_ports) = split(&intent.not_ports);
    entity
}
