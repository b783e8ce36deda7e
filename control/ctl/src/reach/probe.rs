//! The ports that rules tell apart, and their words.

use std::collections::{BTreeMap, BTreeSet};

use margay_model::{IcmpMatch, PortRange, Rule};
use margay_resources::v3::Protocol;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Protocols with ports.
const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];
/// Protocols for experiments (RFC 3692), one of which stands for all that no rule names.
const UNNAMED: [u8; 2] = [253, 254];
const ANY: PortRange = PortRange { first: 1, last: u16::MAX };

/// Traffic that the rules treat alike, with one packet that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) protocol: u8,
    /// None where the protocol has no ports.
    pub(crate) ports: Option<Ports>,
    /// Type and code of ICMP; `None` for one that no rule names.
    pub(crate) icmp: Option<(Option<u8>, Option<u8>)>,
    /// It stands for every protocol that no rule names.
    pub(crate) rest: bool,
}

/// Source and destination ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) src: PortRange,
    pub(crate) dst: PortRange,
}

/// A rule with the ports that its names stand for, by protocol.
pub(super) struct Resolved<'r> {
    pub(super) rule: &'r Rule,
    pub(super) src: Vec<(u8, u16)>,
    pub(super) dst: Vec<(u8, u16)>,
}

/// Where ranges begin that some rule tells apart from what is before.
#[derive(Default)]
struct Cuts {
    src: BTreeSet<u16>,
    dst: BTreeSet<u16>,
}

// === impl Probe ===

impl Probe {
    /// One port that is asked about.
    pub(crate) fn of_port(protocol: u8, port: u16) -> Self {
        let ports = Ports { src: ANY, dst: PortRange::single(port) };
        Self { protocol, ports: Some(ports), icmp: None, rest: false }
    }

    /// Whether it stands for packets to a port.
    pub(crate) fn is_to(&self, protocol: u8, port: u16) -> bool {
        self.protocol == protocol && self.ports.is_some_and(|ports| ports.dst.contains(port))
    }

    /// One protocol without ports that is asked about.
    pub(crate) fn of_protocol(protocol: u8) -> Self {
        Self { protocol, ports: None, icmp: None, rest: false }
    }
}

/// Everything that the rules tell apart, and destination ports about which none is asked, in the
/// order of protocols and ports.
pub(super) fn probes(rules: &[Resolved<'_>], open: &[(u8, u16)], v4: bool) -> Vec<Probe> {
    let mut named: BTreeSet<u8> = BTreeSet::new();
    let mut cuts: BTreeMap<u8, Cuts> = BTreeMap::new();
    for (protocol, port) in open {
        named.insert(*protocol);
        cut(&mut cuts.entry(*protocol).or_default().dst, PortRange::single(*port));
    }
    for Resolved { rule, src, dst } in rules {
        named.extend(rule.protocol.into_iter().chain(rule.not_protocol));
        let ranges = |ports: &[PortRange], not: &[PortRange]| [ports, not].concat();
        let src_ranges = ranges(&rule.src.ports, &rule.src.not_ports);
        let dst_ranges = ranges(&rule.dst.ports, &rule.dst.not_ports);
        let asks = !src_ranges.is_empty() || !dst_ranges.is_empty();
        let negative = !rule.src.not_named_ports.is_empty() || !rule.dst.not_named_ports.is_empty();
        for protocol in WITH_PORTS {
            if (asks || negative) && rule.protocol.is_none_or(|p| p == protocol) {
                named.insert(protocol);
                let cuts = cuts.entry(protocol).or_default();
                src_ranges.iter().for_each(|range| cut(&mut cuts.src, *range));
                dst_ranges.iter().for_each(|range| cut(&mut cuts.dst, *range));
            }
        }
        for (protocol, port) in src {
            named.insert(*protocol);
            cut(&mut cuts.entry(*protocol).or_default().src, PortRange::single(*port));
        }
        for (protocol, port) in dst {
            named.insert(*protocol);
            cut(&mut cuts.entry(*protocol).or_default().dst, PortRange::single(*port));
        }
    }
    let mut probes = Vec::new();
    let none = Cuts::default();
    for protocol in &named {
        match *protocol {
            ICMP | ICMPV6 => icmp(*protocol, rules, v4, &mut probes),
            with if WITH_PORTS.contains(&with) => {
                ports(with, cuts.get(&with).unwrap_or(&none), &mut probes);
            }
            other => probes.push(Probe::of_protocol(other)),
        }
    }
    let rest = UNNAMED.into_iter().find(|protocol| !named.contains(protocol));
    probes.extend(rest.map(|rest| Probe { rest: true, ..Probe::of_protocol(rest) }));
    probes
}

fn cut(cuts: &mut BTreeSet<u16>, range: PortRange) {
    cuts.insert(range.first);
    cuts.extend(range.last.checked_add(1));
}

/// The ranges between cuts.
fn ranges(cuts: &BTreeSet<u16>) -> Vec<PortRange> {
    let starts: BTreeSet<u16> = cuts.iter().copied().filter(|c| *c > 0).chain([1]).collect();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    starts.iter().zip(ends).map(|(first, last)| PortRange { first: *first, last }).collect()
}

fn ports(protocol: u8, cuts: &Cuts, probes: &mut Vec<Probe>) {
    for src in ranges(&cuts.src) {
        for dst in ranges(&cuts.dst) {
            let ports = Some(Ports { src, dst });
            probes.push(Probe { protocol, ports, icmp: None, rest: false });
        }
    }
}

/// Types and codes that rules name, and one of each sort that none names.
fn icmp(protocol: u8, rules: &[Resolved<'_>], v4: bool, probes: &mut Vec<Probe>) {
    let mut probe = |icmp| probes.push(Probe { protocol, ports: None, icmp, rest: false });
    if (protocol == ICMP) != v4 {
        return probe(None);
    }
    let mut kinds: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
    let matches = rules.iter().flat_map(|r| r.rule.icmp.into_iter().chain(r.rule.not_icmp));
    for IcmpMatch { kind, code } in matches {
        kinds.entry(kind).or_default().extend(code);
    }
    for (kind, codes) in kinds {
        for code in codes {
            probe(Some((Some(kind), Some(code))));
        }
        probe(Some((Some(kind), None)));
    }
    probe(Some((None, None)));
}

/// In words, what some of the probes stand for together.
pub(super) fn words(some: &[usize], all: &[Probe]) -> String {
    if some.len() == all.len() {
        return match all {
            [only] if !only.rest => word(only),
            _ => "everything".to_owned(),
        };
    }
    let chosen: Vec<&Probe> = some.iter().filter_map(|at| all.get(*at)).collect();
    if chosen.iter().any(|probe| probe.rest) {
        return "everything else".to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let protocols: BTreeSet<u8> = chosen.iter().map(|probe| probe.protocol).collect();
    for protocol in protocols {
        let of = |probe: &&&Probe| probe.protocol == protocol;
        let own: Vec<&Probe> = chosen.iter().filter(of).copied().collect();
        let name = Protocol::of_number(protocol).to_string();
        if own.len() == all.iter().filter(|probe| probe.protocol == protocol).count() {
            words.push(name);
        } else if own.iter().all(|probe| probe.ports.is_some_and(|ports| ports.src == ANY)) {
            words.push(format!("{name} {}", joined(&own)));
        } else {
            words.extend(own.into_iter().map(word));
        }
    }
    words.join(", ")
}

/// Neighbouring ranges of destination ports as one.
fn joined(probes: &[&Probe]) -> String {
    let mut ranges: Vec<PortRange> = Vec::new();
    for ports in probes.iter().filter_map(|probe| probe.ports) {
        match ranges.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(ports.dst.first) => {
                last.last = ports.dst.last;
            }
            _ => ranges.push(ports.dst),
        }
    }
    ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
}

fn range(range: PortRange) -> String {
    match range {
        PortRange { first, last } if first == last => first.to_string(),
        PortRange { first, last } => format!("{first}-{last}"),
    }
}

/// A probe in words.
pub(crate) fn word(probe: &Probe) -> String {
    let name = Protocol::of_number(probe.protocol).to_string();
    match (probe.ports, probe.icmp) {
        (Some(Ports { src: ANY, dst }), _) => format!("{name} {}", range(dst)),
        (Some(Ports { src, dst }), _) => {
            format!("{name} {} from port {}", range(dst), range(src))
        }
        (None, Some((Some(kind), Some(code)))) => format!("{name} type {kind} code {code}"),
        (None, Some((Some(kind), None))) => format!("{name} type {kind} (other codes)"),
        (None, Some((None, _))) => format!("{name} (other types)"),
        (None, None) => name,
    }
}

#[cfg(test)]
mod tests {
    use margay_model::Action;

    use super::*;

    fn rule(protocol: u8, ports: &[(u16, u16)]) -> Rule {
        let mut rule = Rule { protocol: Some(protocol), ..Rule::any(Action::Allow) };
        rule.dst.ports =
            ports.iter().map(|(first, last)| PortRange { first: *first, last: *last }).collect();
        rule
    }

    fn resolved(rules: &[Rule]) -> Vec<Resolved<'_>> {
        rules.iter().map(|rule| Resolved { rule, src: vec![], dst: vec![] }).collect()
    }

    #[test]
    fn ports_are_cut_where_a_rule_begins_or_ends_and_nowhere_else() {
        let rules = [rule(6, &[(80, 80), (8000, 65535)]), rule(17, &[])];
        let probes = probes(&resolved(&rules), &[], true);
        let words: Vec<_> = probes.iter().map(word).collect();
        assert_eq!(
            words,
            ["TCP 1-79", "TCP 80", "TCP 81-7999", "TCP 8000-65535", "UDP 1-65535", "253"]
        );
        assert!(probes[5].rest);
    }

    #[test]
    fn parts_are_named_as_short_as_can_be() {
        let rules = [rule(6, &[(80, 80), (81, 90)]), rule(17, &[(53, 53)])];
        let all = probes(&resolved(&rules), &[], true);
        let indices: Vec<_> = (0..all.len()).collect();
        assert_eq!(words(&indices, &all), "everything");
        assert_eq!(words(&[1, 2], &all), "TCP 80-90");
        assert_eq!(words(&[0, 1, 2, 3, 5], &all), "TCP, UDP 53");
        assert_eq!(words(&[0, 7], &all), "everything else");
    }

    #[test]
    fn icmp_is_cut_by_type_and_code() {
        let icmp = |kind, code| {
            let icmp = Some(IcmpMatch { kind, code });
            Rule { protocol: Some(1), icmp, ..Rule::any(Action::Allow) }
        };
        let rules = [icmp(8, None), icmp(3, Some(4))];
        let all: Vec<_> = probes(&resolved(&rules), &[], true).iter().map(word).collect();
        assert_eq!(
            all,
            [
                "ICMP type 3 code 4",
                "ICMP type 3 (other codes)",
                "ICMP type 8 (other codes)",
                "ICMP (other types)",
                "253"
            ]
        );
    }
}
