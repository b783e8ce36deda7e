//! Calico's NetworkPolicy and GlobalNetworkPolicy.

use std::net::IpAddr;

use serde_json::Value;

use super::selector::Selector;
use super::world::{Item, Net, World, name, namespace, protocol};
use super::{Action, Packet, Policy, Rule, list, text};

/// One end of a rule.
struct End {
    nets: Vec<Net>,
    not_nets: Vec<Net>,
    /// Who is meant, if the rule says.
    who: Option<Who>,
    not: Option<Selector>,
    /// Whether it has names, which nobody knows here.
    domains: bool,
    /// Namespace and name of a service.
    service: Option<(String, String)>,
    ports: Vec<Port>,
    not_ports: Vec<Port>,
    /// The protocol of ports with names: the rule's, and TCP where it has none that pods' ports have.
    named: u8,
}

/// Conditions on an item, all of which hold.
#[derive(Default)]
struct Who {
    selector: Option<Selector>,
    namespaces: Option<Selector>,
    namespace: Option<String>,
    accounts: Vec<String>,
    account: Option<Selector>,
}

enum Port {
    Numbers(u16, u16),
    Name(String),
}

/// What a rule says of ICMP.
struct Icmp {
    kind: Option<u64>,
    code: Option<u64>,
}

/// A policy, unless it is one that no pod has.
pub(super) fn policy(document: &Value) -> Option<Policy> {
    let spec = &document["spec"];
    if spec["preDNAT"] == true || spec["doNotTrack"] == true {
        return None;
    }
    let (name, namespace) = (name(document), namespace(document));
    let kind = text(&document["kind"]);
    let of = |key: &str| {
        let rules = list(&spec[key]).iter();
        rules.map(|rule| self::rule(rule, &namespace, key == "ingress")).collect::<Vec<_>>()
    };
    let types: Vec<_> = list(&spec["types"]).iter().map(text).collect();
    let (has_ingress, has_egress) =
        (!list(&spec["ingress"]).is_empty(), !list(&spec["egress"]).is_empty());
    let (ingress, egress) = if types.is_empty() {
        (has_ingress || !has_egress, has_egress)
    } else {
        (types.contains(&"Ingress"), types.contains(&"Egress"))
    };
    let tier = match text(&spec["tier"]) {
        "" => "default",
        tier => tier,
    };
    Some(Policy {
        tier: tier.to_owned(),
        order: spec["order"].as_f64().unwrap_or(f64::INFINITY),
        tie: format!("{name}/{namespace}/{kind}"),
        key: format!("{kind}/{namespace}/{name}"),
        subject: subject(spec, namespace.clone()),
        ingress: ingress.then(|| of("ingress")),
        egress: egress.then(|| of("egress")),
    })
}

fn subject(spec: &Value, namespace: String) -> Box<dyn Fn(&Item) -> bool> {
    let selector = Selector::read(text(&spec["selector"]));
    let account = given(&spec["serviceAccountSelector"]);
    let namespaces = given(&spec["namespaceSelector"]);
    Box::new(move |pod| {
        (namespace.is_empty() || pod.namespace == namespace)
            && selector.picks(&pod.labels)
            && account.as_ref().is_none_or(|s| s.picks_account_of(&pod.labels))
            && namespaces.as_ref().is_none_or(|s| s.picks_namespace_of(&pod.labels))
    })
}

/// A selector, unless it is missing or empty.
fn given(value: &Value) -> Option<Selector> {
    Some(text(value)).filter(|text| !text.is_empty()).map(Selector::read)
}

fn rule(rule: &Value, namespace: &str, ingress: bool) -> Rule {
    let action = match text(&rule["action"]) {
        "Allow" => Action::Allow,
        "Deny" => Action::Deny,
        "Log" => Action::Log,
        "Pass" => Action::Pass,
        other => panic!("{other:?} is no action"),
    };
    let is_v4 = rule["ipVersion"].as_u64().map(|version| version == 4);
    let named = |key: &str| Some(&rule[key]).filter(|v| !v.is_null()).map(protocol);
    let (is, is_not) = (named("protocol"), named("notProtocol"));
    let (icmp, not_icmp) = (Icmp::read(&rule["icmp"]), Icmp::read(&rule["notICMP"]));
    let named = is.filter(|is| matches!(is, 17 | 132)).unwrap_or(6);
    let source = End::read(&rule["source"], namespace, named);
    let destination = End::read(&rule["destination"], namespace, named);
    let matches = move |world: &World, packet: &Packet| {
        let family = packet.src.is_ipv4();
        is_v4.is_none_or(|is_v4| is_v4 == family)
            && is.is_none_or(|is| is == packet.protocol)
            && is_not.is_none_or(|is_not| is_not != packet.protocol)
            && icmp.as_ref().is_none_or(|icmp| icmp.is(packet) == Some(true))
            && not_icmp.as_ref().is_none_or(|icmp| {
                // As with the kernel's, the condition is one on ICMP of the rule's own family.
                packet.protocol == if family { 1 } else { 58 } && icmp.is(packet) == Some(false)
            })
            && source.is_of_family(family)
            && destination.is_of_family(family)
            && source.matches(world, packet, packet.src, packet.src_port, !ingress)
            && destination.matches(world, packet, packet.dst, packet.dst_port, !ingress)
    };
    Rule { action, matches: Box::new(matches) }
}

// === impl End ===

impl End {
    fn read(end: &Value, namespace: &str, named: u8) -> Self {
        let nets = |key: &str| list(&end[key]).iter().map(|n| Net::read(text(n))).collect();
        let ports = |key: &str| list(&end[key]).iter().map(Port::read).collect();
        let service = &end["services"];
        let service = service.is_object().then(|| {
            let namespace = match text(&service["namespace"]) {
                "" => namespace,
                other => other,
            };
            (namespace.to_owned(), text(&service["name"]).to_owned())
        });
        Self {
            nets: nets("nets"),
            not_nets: nets("notNets"),
            who: Who::read(end, namespace),
            not: given(&end["notSelector"]),
            domains: !list(&end["domains"]).is_empty(),
            service,
            ports: ports("ports"),
            not_ports: ports("notPorts"),
            named,
        }
    }

    /// A rule with networks of one family does not exist in the other.
    fn is_of_family(&self, is_v4: bool) -> bool {
        self.nets.iter().chain(&self.not_nets).all(|net| net.is_v4() == is_v4)
    }

    fn matches(
        &self,
        world: &World,
        packet: &Packet,
        address: IpAddr,
        port: Option<u16>,
        by_port: bool,
    ) -> bool {
        let inside = |nets: &[Net]| nets.iter().any(|net| net.has(address));
        (self.nets.is_empty() || inside(&self.nets))
            && !inside(&self.not_nets)
            && !self.domains
            && self.is_meant(world, address)
            && self.is_service(world, packet, address, port, by_port)
            && self.ports_match(world, packet, address, port)
    }

    fn is_meant(&self, world: &World, address: IpAddr) -> bool {
        let mut here = world.items.iter().filter(|item| item.has(address));
        match (&self.who, &self.not) {
            (Some(_), _) => here.any(|item| self.picks(item)),
            (None, Some(not)) => !here.any(|item| not.picks(&item.labels)),
            (None, None) => true,
        }
    }

    /// Whether an item is one of those whom the end speaks of.
    fn picks(&self, item: &Item) -> bool {
        let Some(who) = &self.who else { return true };
        who.picks(item) && self.not.as_ref().is_none_or(|not| !not.picks(&item.labels))
    }

    fn is_service(
        &self,
        world: &World,
        packet: &Packet,
        address: IpAddr,
        port: Option<u16>,
        by_port: bool,
    ) -> bool {
        let Some((namespace, name)) = &self.service else { return true };
        let mut services = world.services.iter();
        let service = services.find(|s| s.namespace == *namespace && s.name == *name);
        service.is_some_and(|service| match port {
            _ if !by_port => service.addresses.contains(&address),
            Some(port) => service.backends.contains(&(address, packet.protocol, port)),
            None => false,
        })
    }

    fn ports_match(
        &self,
        world: &World,
        packet: &Packet,
        address: IpAddr,
        port: Option<u16>,
    ) -> bool {
        if self.ports.is_empty() && self.not_ports.is_empty() {
            return true;
        }
        // Rules about ports are about what has some.
        let Some(port) = port else { return false };
        let is_one = |ports: &[Port]| {
            ports.iter().any(|each| match each {
                Port::Numbers(first, last) => (*first..=*last).contains(&port),
                Port::Name(name) => {
                    let mut pods = world.items.iter().filter(|i| i.has(address) && self.picks(i));
                    packet.protocol == self.named
                        && pods.any(|item| {
                            let mut ports = item.pod.iter().flat_map(|pod| &pod.ports);
                            ports.any(|p| {
                                p.name == *name && p.protocol == self.named && p.port == port
                            })
                        })
                }
            })
        };
        (self.ports.is_empty() || is_one(&self.ports)) && !is_one(&self.not_ports)
    }
}

// === impl Who ===

impl Who {
    fn read(end: &Value, namespace: &str) -> Option<Self> {
        let accounts = &end["serviceAccounts"];
        let mut who = Self {
            selector: given(&end["selector"]),
            namespaces: given(&end["namespaceSelector"]),
            namespace: None,
            accounts: list(&accounts["names"]).iter().map(|n| text(n).to_owned()).collect(),
            account: given(&accounts["selector"]),
        };
        let says = who.selector.is_some()
            || who.namespaces.is_some()
            || who.account.is_some()
            || !who.accounts.is_empty();
        let says_not = !text(&end["notSelector"]).is_empty();
        // A policy of a namespace speaks of its own unless it names others.
        if !namespace.is_empty() && (says || says_not) && who.namespaces.is_none() {
            who.namespace = Some(namespace.to_owned());
            return Some(who);
        }
        says.then_some(who)
    }

    fn picks(&self, item: &Item) -> bool {
        let account = item.labels.get("projectcalico.org/serviceaccount");
        self.selector.as_ref().is_none_or(|s| s.picks(&item.labels))
            && self.namespaces.as_ref().is_none_or(|s| s.picks_namespace_of(&item.labels))
            && self.namespace.as_ref().is_none_or(|own| item.namespace == *own)
            && (self.accounts.is_empty() || account.is_some_and(|a| self.accounts.contains(a)))
            && self.account.as_ref().is_none_or(|s| s.picks_account_of(&item.labels))
    }
}

// === impl Port ===

impl Port {
    fn read(value: &Value) -> Self {
        let written = value.as_u64().map_or_else(|| text(value).to_owned(), |n| n.to_string());
        match written.split_once(':') {
            Some((first, last)) => Self::Numbers(first.parse().unwrap(), last.parse().unwrap()),
            None => written.parse().map_or(Self::Name(written), |n| Self::Numbers(n, n)),
        }
    }
}

// === impl Icmp ===

impl Icmp {
    fn read(value: &Value) -> Option<Self> {
        value
            .is_object()
            .then(|| Self { kind: value["type"].as_u64(), code: value["code"].as_u64() })
    }

    /// Nothing if the packet does not say.
    fn is(&self, packet: &Packet) -> Option<bool> {
        let (kind, code) = packet.icmp?;
        let is = |asked: Option<u64>, has: u8| asked.is_none_or(|asked| asked == u64::from(has));
        Some(is(self.kind, kind) && is(self.code, code))
    }
}
