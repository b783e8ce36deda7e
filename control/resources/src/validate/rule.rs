//! The rules of policies and profiles.

use super::{metadata, text};
use crate::field::Report;
use crate::v3::{Action, EntityRule, HttpMatch, Icmp, Net, Port, Rule};

/// Networks in a list.
const MAX_NETS: usize = 256;
/// Domain names in a list.
const MAX_DOMAINS: usize = 256;
/// Ports in a list.
const MAX_PORTS: usize = 50;
/// Rules of a direction.
const MAX_RULES: usize = 1024;

/// The direction of a list of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// Where rules stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) direction: Direction,
    /// Whether services are looked for in the policy's own namespace unless they say otherwise.
    pub(super) has_namespace: bool,
}

/// Checks the rules of a direction.
pub(super) fn rules(rules: &[Rule], place: Place, report: &mut Report<'_>) {
    let key = match place.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    if rules.len() > MAX_RULES {
        report.wrong_at(key, format!("has {} rules; {MAX_RULES} are allowed", rules.len()));
    }
    report.each(key, rules, |report, rule| check(rule, place, report));
}

fn check(rule: &Rule, place: Place, report: &mut Report<'_>) {
    versions(rule, report);
    for (key, icmp) in [("icmp", &rule.icmp), ("notICMP", &rule.not_icmp)] {
        report.within(key, |report| icmp.iter().for_each(|icmp| check_icmp(*icmp, report)));
    }
    let is_icmp = rule.protocol.is_some_and(|p| matches!(p.number(), 1 | 58));
    if rule.icmp.is_some() && !is_icmp {
        report.wrong_at("icmp", "needs protocol ICMP or ICMPv6 in the rule");
    }
    families(rule, report);
    let has_ports = rule.protocol.is_some_and(|p| p.has_ports());
    report.within("source", |report| {
        entity(&rule.source, has_ports, report);
        let here = place.direction == Direction::Ingress;
        services(&rule.source, here, "the source of an ingress rule", place, report);
        report.wrong_if(!rule.source.domains.is_empty(), "domains", NO_DOMAINS);
    });
    report.within("destination", |report| {
        entity(&rule.destination, has_ports, report);
        let here = place.direction == Direction::Egress;
        services(&rule.destination, here, "the destination of an egress rule", place, report);
        domains(&rule.destination, here && rule.action == Action::Allow, report);
        if rule.destination.services.is_some() {
            for (key, ports) in
                [("ports", &rule.destination.ports), ("notPorts", &rule.destination.not_ports)]
            {
                let why = "cannot stand beside services, which have their own ports";
                report.wrong_if(!ports.is_empty(), key, why);
            }
        }
    });
    if let Some(matched) = &rule.http {
        http(rule, matched, place, report);
    }
    if let Some(remarks) = &rule.metadata {
        report.within("metadata", |report| {
            report.within("annotations", |report| {
                metadata::check_annotations(&remarks.annotations, report);
            });
        });
    }
}

/// ICMP is of IPv4 and ICMPv6 of IPv6.
fn versions(rule: &Rule, report: &mut Report<'_>) {
    let Some(version) = rule.ip_version else { return };
    if version != 4 && version != 6 {
        return report.wrong_at("ipVersion", format!("{version} is neither 4 nor 6"));
    }
    for protocol in [rule.protocol, rule.not_protocol].into_iter().flatten() {
        match (protocol.number(), version) {
            (1, 6) => report.wrong_at("ipVersion", "is 4 for protocol ICMP"),
            (58, 4) => report.wrong_at("ipVersion", "is 6 for protocol ICMPv6"),
            _ => {}
        }
    }
}

fn check_icmp(icmp: Icmp, report: &mut Report<'_>) {
    text::within(report, "type", icmp.kind, 0, 254);
    text::within(report, "code", icmp.code, 0, 255);
    report.wrong_if(icmp.code.is_some() && icmp.kind.is_none(), "code", "needs a type beside it");
}

/// All networks of a rule are of one family, and of the rule's if it has one.
fn families(rule: &Rule, report: &mut Report<'_>) {
    let lists = [
        ("source", "nets", &rule.source.nets),
        ("source", "notNets", &rule.source.not_nets),
        ("destination", "nets", &rule.destination.nets),
        ("destination", "notNets", &rule.destination.not_nets),
    ];
    let mut family = match rule.ip_version {
        Some(4) => Some(false),
        Some(6) => Some(true),
        _ => None,
    };
    for (side, key, nets) in lists {
        report.within(side, |report| {
            report.each(key, nets, |report, net: &Net| {
                if *family.get_or_insert(net.is_v6()) != net.is_v6() {
                    let why = match rule.ip_version {
                        Some(version) => format!("{net} is not of IPv{version}, as the rule says"),
                        None => format!(
                            "{net} is of another family than the rule's other networks; write one \
                             rule for IPv4 and one for IPv6"
                        ),
                    };
                    report.wrong(why);
                }
            });
        });
    }
}

fn entity(entity: &EntityRule, has_ports: bool, report: &mut Report<'_>) {
    for (key, nets, negative) in
        [("nets", &entity.nets, false), ("notNets", &entity.not_nets, true)]
    {
        if nets.len() > MAX_NETS {
            report.wrong_at(key, format!("has {} networks; {MAX_NETS} are allowed", nets.len()));
        }
        report.each(key, nets, |report, net| check_net(net, negative, report));
    }
    text::selector(report, "selector", &entity.selector);
    text::selector(report, "notSelector", &entity.not_selector);
    text::rule_namespaces(report, "namespaceSelector", &entity.namespace_selector);
    if let Some(accounts) = &entity.service_accounts {
        report.within("serviceAccounts", |report| {
            text::selector(report, "selector", &accounts.selector);
            report.each("names", &accounts.names, |report, name| {
                if !text::is_dns_subdomain(name) {
                    report.wrong(text::not_a_name(name));
                }
            });
        });
    }
    for (key, ports) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
        if ports.len() > MAX_PORTS {
            report.wrong_at(key, format!("has {} entries; {MAX_PORTS} are allowed", ports.len()));
        }
        let all_named = ports.iter().all(|port| matches!(port, Port::Name(_)));
        if !all_named && !has_ports {
            report.wrong_at(key, "needs protocol TCP, UDP, SCTP or UDPLite in the rule");
        }
    }
}

fn check_net(net: &Net, negative: bool, report: &mut Report<'_>) {
    if !net.has_length() {
        report.wrong(format!("{net} is an address; write {} for the network", net.net()));
    } else if !net.is_canonical() {
        report.wrong(format!("{net} has bits beyond its length; write {}", net.net()));
    } else if negative && net.net().prefix_len() == 0 {
        report.wrong(format!("{net} leaves no address of its family; remove it or the rule"));
    }
}

/// A service stands alone, on the side of the other end.
fn services(entity: &EntityRule, here: bool, side: &str, place: Place, report: &mut Report<'_>) {
    let Some(service) = &entity.services else { return };
    if !here {
        report.wrong_at("services", format!("may only stand in {side}"));
    }
    report.within("services", |report| {
        report.wrong_if(service.name.is_empty(), "name", "is missing");
        text::object_name(report, "name", &service.name);
        text::object_name(report, "namespace", &service.namespace);
        let lost = service.namespace.is_empty() && !place.has_namespace;
        report.wrong_if(lost, "namespace", "is missing; this policy has no namespace of its own");
    });
    for (key, given) in [
        ("selector", !entity.selector.is_empty()),
        ("notSelector", !entity.not_selector.is_empty()),
        ("namespaceSelector", !entity.namespace_selector.is_empty()),
        ("serviceAccounts", entity.service_accounts.is_some()),
        ("nets", !entity.nets.is_empty()),
        ("notNets", !entity.not_nets.is_empty()),
    ] {
        report.wrong_if(given, key, "cannot stand beside services");
    }
}

const NO_DOMAINS: &str = "may only stand in the destination of an egress rule with action Allow";

/// Domain names stand alone, where they can be allowed.
fn domains(entity: &EntityRule, here: bool, report: &mut Report<'_>) {
    if entity.domains.is_empty() {
        return;
    }
    report.wrong_if(!here, "domains", NO_DOMAINS);
    if entity.domains.len() > MAX_DOMAINS {
        let given = entity.domains.len();
        report.wrong_at("domains", format!("has {given} names; {MAX_DOMAINS} are allowed"));
    }
    report.each("domains", &entity.domains, |report, name| text::domain(report, name));
    for (key, given) in [
        ("selector", !entity.selector.is_empty()),
        ("notSelector", !entity.not_selector.is_empty()),
        ("namespaceSelector", !entity.namespace_selector.is_empty()),
        ("serviceAccounts", entity.service_accounts.is_some()),
        ("services", entity.services.is_some()),
        ("nets", !entity.nets.is_empty()),
        ("notNets", !entity.not_nets.is_empty()),
    ] {
        report.wrong_if(given, key, "cannot stand beside domains; write a rule of its own");
    }
}

fn http(rule: &Rule, http: &HttpMatch, place: Place, report: &mut Report<'_>) {
    report.wrong_if(rule.action != Action::Allow, "http", "is for rules that Allow only");
    report.wrong_if(place.direction == Direction::Egress, "http", "is for ingress rules only");
    let other_protocol = rule.protocol.is_some_and(|p| p.number() != 6);
    report.wrong_if(other_protocol, "http", "needs protocol TCP, or none");
    report.within("http", |report| {
        if let Some(method) = text::repeated(http.methods.iter().map(String::as_str)) {
            report.wrong_at("methods", format!("`{method}` occurs twice"));
        }
        report.each("paths", &http.paths, |report, path| match (&path.exact, &path.prefix) {
            (Some(text), None) | (None, Some(text)) => {
                // RFC 3986 §3.3
                if !text.starts_with('/') || text.contains([' ', '?', '#']) {
                    report.wrong(format!(
                        "`{text}` is not a path: it starts with `/` and has no blank, `?` or `#`"
                    ));
                }
            }
            _ => report.wrong("needs exactly one of exact and prefix"),
        });
    });
}
