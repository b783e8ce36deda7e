//! Rules, sets, ports and protocols in words.

use std::fmt::Display;

use margay_compile::{Compiler, HttpMatch, PathMatch, SetMeaning, Unmet};
use margay_model::{Action, EntityMatch, IcmpMatch, IpVersion, PortRange, Rule, SetId};
use margay_resources::v3::Protocol;

/// Longer lists are cut.
const LIST: usize = 6;

/// What the sets in rules mean.
#[derive(Clone, Copy)]
pub(super) struct Meanings<'c>(pub(super) &'c Compiler);

/// A protocol by name, or by number.
pub(super) fn protocol(number: u8) -> String {
    Protocol::of_number(number).to_string()
}

/// Type and code.
pub(super) fn icmp(icmp: IcmpMatch) -> String {
    match icmp.code {
        Some(code) => format!("ICMP type {} code {code}", icmp.kind),
        None => format!("ICMP type {}", icmp.kind),
    }
}

/// What a rule does.
pub(super) fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Pass => "Pass",
        Action::Log => "Log",
    }
}

/// What a rule asks of HTTP, which packets do not show.
pub(super) fn http(http: &HttpMatch) -> String {
    let paths = http.paths.iter().map(|path| match path {
        PathMatch::Exact(path) => path.to_string(),
        PathMatch::Prefix(path) => format!("{path}*"),
    });
    let (methods, paths) = (list(&http.methods), list(&paths.collect::<Vec<_>>()));
    let wanted = [methods, paths].into_iter().filter(|words| !words.is_empty());
    let wanted = wanted.collect::<Vec<_>>().join(" ");
    let wanted = if wanted.is_empty() { "HTTP" } else { &wanted };
    format!(" (where a proxy asks: {wanted} only)")
}

/// One, or several with commas.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    let mut words: Vec<_> = items.iter().take(LIST).map(ToString::to_string).collect();
    if items.len() > LIST {
        words.push(format!("{} more", items.len() - LIST));
    }
    words.join(", ")
}

/// First and last port as documents write them.
pub(super) fn range(range: PortRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}

/// Why a selector does not select.
pub(super) fn unmet(unmet: &Unmet) -> String {
    let Unmet { term, label } = unmet;
    match label {
        Some((label, Some(value))) => format!("it wants {term}; {label} is {value:?}"),
        Some((label, None)) => format!("it wants {term}; there is no label {label}"),
        None => format!("it wants {term}"),
    }
}

/// A selector without the brackets around the whole of it.
pub(super) fn selector(text: &str) -> &str {
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    inner.filter(|inner| !inner.contains(['(', ')'])).unwrap_or(text)
}

// === impl Meanings ===

impl Meanings<'_> {
    /// A rule as a sentence.
    pub(super) fn rule(self, rule: &Rule) -> String {
        let mut words = vec![action(rule.action).to_owned()];
        words.extend(rule.ip_version.map(|version| match version {
            IpVersion::V4 => "IPv4".to_owned(),
            IpVersion::V6 => "IPv6".to_owned(),
        }));
        words.extend(rule.protocol.map(protocol));
        words.extend(rule.not_protocol.map(|p| format!("not {}", protocol(p))));
        words.extend(rule.icmp.map(icmp));
        words.extend(rule.not_icmp.map(|i| format!("not {}", icmp(i))));
        words.extend(self.entity("from", &rule.src));
        words.extend(self.entity("to", &rule.dst));
        if words.len() == 1 {
            words.push("everything".to_owned());
        }
        words.join(" ")
    }

    fn entity(self, word: &str, entity: &EntityMatch) -> Option<String> {
        let EntityMatch { nets, not_nets, ports, named_ports, not_ports, not_named_ports, .. } =
            entity;
        let sets = |sets: &[SetId]| sets.iter().map(|set| self.set(set)).collect::<Vec<_>>();
        let mut parts = Vec::new();
        parts.extend((!nets.is_empty()).then(|| list(nets)));
        parts.extend((!not_nets.is_empty()).then(|| format!("not {}", list(not_nets))));
        parts.extend(sets(&entity.sets));
        parts.extend(sets(&entity.not_sets).into_iter().map(|set| format!("not ({set})")));
        parts.extend(sets(&entity.addr_port_sets));
        if !ports.is_empty() || !named_ports.is_empty() {
            parts.push(format!("port {}", self.ports(ports, named_ports)));
        }
        if !not_ports.is_empty() || !not_named_ports.is_empty() {
            parts.push(format!("not port {}", self.ports(not_ports, not_named_ports)));
        }
        (!parts.is_empty()).then(|| format!("{word} {}", parts.join(" ")))
    }

    /// Ports by number and by name.
    pub(super) fn ports(self, ranges: &[PortRange], named: &[SetId]) -> String {
        let named = named.iter().map(|set| match self.0.meaning_of(set) {
            Some(SetMeaning::NamedPort { name, .. }) => name.to_owned(),
            _ => self.set(set),
        });
        list(&ranges.iter().map(|each| range(*each)).chain(named).collect::<Vec<_>>())
    }

    fn set(self, set: &SetId) -> String {
        match self.0.meaning_of(set) {
            Some(SetMeaning::Selected { selector }) => self::selector(selector).to_owned(),
            Some(SetMeaning::NamedPort { name, .. }) => format!("a port called {name}"),
            Some(SetMeaning::Service { namespace, name, .. }) => {
                format!("service {namespace}/{name}")
            }
            Some(SetMeaning::Domains(domains)) => list(&domains.iter().collect::<Vec<_>>()),
            Some(SetMeaning::Nodes { selector }) => format!("nodes {}", self::selector(selector)),
            None => format!("the set {set}"),
        }
    }

    /// What is true of a member of a set.
    pub(super) fn is(self, set: &SetId) -> String {
        match self.0.meaning_of(set) {
            Some(SetMeaning::Selected { selector }) => {
                format!("is selected by {}", self::selector(selector))
            }
            Some(SetMeaning::Domains(_) | SetMeaning::Nodes { .. }) => {
                format!("is an address of {}", self.set(set))
            }
            _ => format!("is one of {}", self.set(set)),
        }
    }

    /// What is true of others; of an endpoint more is known than of an address.
    pub(super) fn is_not(self, set: &SetId, endpoint: Option<&str>) -> String {
        if let Some(unmet) = endpoint.and_then(|key| self.0.unmet_by_set(set, key)) {
            return format!("is not selected: {}", self::unmet(&unmet));
        }
        match self.0.meaning_of(set) {
            Some(SetMeaning::Selected { selector }) => {
                format!("belongs to nobody whom {} selects", self::selector(selector))
            }
            Some(SetMeaning::Domains(_)) => {
                format!("is no address of {} that is known", self.set(set))
            }
            Some(SetMeaning::Nodes { .. }) => format!("is no address of {}", self.set(set)),
            _ => format!("is none of {}", self.set(set)),
        }
    }
}
