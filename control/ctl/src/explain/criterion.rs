//! Why a rule does not match: the first condition that a flow does not fulfil, in words.
//!
//! The rules are the compiled ones, the reading of them is written apart from the classifier's: a
//! test compares the two on generated clusters.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_model::{EntityMatch, IcmpMatch, IpVersion, Member, PortRange, Rule, SetId, State};

use super::words::{self, Meanings};
use crate::court::flow::Flow;
use crate::dataplane::names::{Known, Learned};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A flow that rules are compared with, and what the names in rules mean.
#[derive(Clone, Copy)]
pub(super) struct Reader<'c> {
    pub(super) state: &'c State,
    pub(super) meanings: Meanings<'c>,
    /// What domain names have resolved to.
    pub(super) known: &'c Known,
    pub(super) flow: Flow,
    /// The endpoints of source and destination.
    pub(super) endpoints: [Option<&'c str>; 2],
}

/// One end of the flow.
struct End<'r> {
    word: &'static str,
    addr: IpAddr,
    port: Option<u16>,
    protocol: u8,
    entity: &'r EntityMatch,
    endpoint: Option<&'r str>,
}

// === impl Reader ===

impl Reader<'_> {
    /// The first condition of a rule that the flow does not fulfil; `None` if the rule matches.
    pub(super) fn unmet(&self, rule: &Rule) -> Option<String> {
        let Flow { src, dst, protocol, src_port, dst_port, .. } = self.flow;
        let end = |word, addr, port, entity, endpoint| End {
            word,
            addr,
            port,
            protocol,
            entity,
            endpoint,
        };
        let [source, destination] = self.endpoints;
        let ends = [
            end("destination", dst, dst_port, &rule.dst, destination),
            end("source", src, src_port, &rule.src, source),
        ];
        self.version(rule)
            .or_else(|| self.protocol(rule))
            .or_else(|| self.icmp(rule))
            .or_else(|| ends.iter().find_map(|end| self.ports(end)))
            .or_else(|| ends.iter().find_map(End::nets))
            .or_else(|| ends.iter().find_map(|end| self.sets(end)))
    }

    fn version(&self, rule: &Rule) -> Option<String> {
        let (wanted, has) = (rule.ip_version?, self.flow.src.is_ipv4());
        let name = |v4| if v4 { "IPv4" } else { "IPv6" };
        let v4 = wanted == IpVersion::V4;
        (v4 != has).then(|| format!("the flow is {}, not {}", name(has), name(v4)))
    }

    fn protocol(&self, rule: &Rule) -> Option<String> {
        let has = self.flow.protocol;
        let wrong = rule.protocol.filter(|wanted| *wanted != has);
        let wrong = wrong.map(|wanted| {
            let (has, wanted) = (words::protocol(has), words::protocol(wanted));
            format!("the protocol is {has}, not {wanted}")
        });
        wrong.or_else(|| {
            let barred = rule.not_protocol.filter(|barred| *barred == has)?;
            Some(format!("the protocol is {}", words::protocol(barred)))
        })
    }

    fn icmp(&self, rule: &Rule) -> Option<String> {
        let wanted = rule.icmp.filter(|wanted| self.icmp_is(*wanted) != Some(true));
        if let Some(wanted) = wanted {
            return Some(format!("it is not {}", words::icmp(wanted)));
        }
        let barred = rule.not_icmp?;
        match self.icmp_is(barred) {
            Some(false) => None,
            Some(true) => Some(format!("it is {}", words::icmp(barred))),
            None => Some("its ICMP type and code are not given".into()),
        }
    }

    /// `None` if the flow is not ICMP of its family or what is asked for is not given.
    fn icmp_is(&self, icmp: IcmpMatch) -> Option<bool> {
        let protocol = if self.flow.src.is_ipv4() { ICMP } else { ICMPV6 };
        let (kind, code) = self.flow.icmp.filter(|_| self.flow.protocol == protocol)?;
        match icmp.code {
            None => Some(icmp.kind == kind),
            Some(asked) => code.map(|code| icmp.kind == kind && asked == code),
        }
    }

    fn ports(&self, end: &End<'_>) -> Option<String> {
        let EntityMatch { ports, named_ports, not_ports, not_named_ports, .. } = end.entity;
        let limited = [ports.len(), named_ports.len(), not_ports.len(), not_named_ports.len()];
        if limited == [0; 4] {
            return None;
        }
        let Some(port) = end.port else { return Some(format!("no {} port is given", end.word)) };
        let named = |sets: &[SetId]| sets.iter().any(|set| self.has_port(set, end));
        let in_ranges = |ranges: &[PortRange]| ranges.iter().any(|range| range.contains(port));
        if limited[..2] != [0; 2] && !in_ranges(ports) && !named(named_ports) {
            let wanted = self.meanings.ports(ports, named_ports);
            return Some(format!("the {} port is {port}, not {wanted}", end.word));
        }
        let barred = in_ranges(not_ports) || named(not_named_ports);
        barred.then(|| {
            let barred = self.meanings.ports(not_ports, not_named_ports);
            format!("the {} port is {port}, one of those but {barred} is meant", end.word)
        })
    }

    fn sets(&self, end: &End<'_>) -> Option<String> {
        let End { word, addr, entity, endpoint, .. } = end;
        let learned = |set| entity.learned && self.learned(set, *addr).is_some();
        let outside = entity.sets.iter().find(|set| !self.has_addr(set, *addr) && !learned(set));
        let inside = || entity.not_sets.iter().find(|set| self.has_addr(set, *addr));
        let elsewhere = || entity.addr_port_sets.iter().find(|set| !self.has_port(set, end));
        if let Some(set) = outside {
            let lapsed = self.known.names(set, *addr).first().map(|learned| {
                format!("; {} had it, and new connections need another answer", learned.name)
            });
            let is_not = self.meanings.is_not(set, *endpoint);
            return Some(format!("the {word} {addr} {is_not}{}", lapsed.unwrap_or_default()));
        }
        if let Some(set) = inside() {
            return Some(format!("the {word} {addr} {}", self.meanings.is(set)));
        }
        elsewhere().map(|set| match end.port {
            Some(port) => {
                format!("the {word} {addr} port {port} {}", self.meanings.is_not(set, None))
            }
            None => format!("no {word} port is given"),
        })
    }

    /// The name by which an address is a member of a set now.
    fn learned(&self, set: &SetId, addr: IpAddr) -> Option<&Learned> {
        self.known.names(set, addr).into_iter().find(|learned| learned.remaining_seconds > 0)
    }

    /// By which name a rule that matches has its destination, if by one.
    pub(super) fn resolved(&self, rule: &Rule) -> Option<String> {
        let addr = self.flow.dst;
        let by_name = |set| self.learned(set, addr).filter(|_| !self.has_addr(set, addr));
        let learned = rule.dst.sets.iter().filter(|_| rule.dst.learned).find_map(by_name)?;
        let Learned { name, remaining_seconds, patterns, .. } = learned;
        let by = patterns.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(format!(
            "{addr} is an address of {name} for {remaining_seconds} s more, as a name server \
             answered a pod; {by} matches it"
        ))
    }

    fn has_addr(&self, set: &SetId, addr: IpAddr) -> bool {
        let Some(set) = self.state.sets.get(set) else { return false };
        set.members.contains(&Member::Net(IpNet::from(addr)))
            || set.members.iter().any(|m| matches!(m, Member::Net(net) if net.contains(&addr)))
    }

    fn has_port(&self, set: &SetId, end: &End<'_>) -> bool {
        let (Some(set), Some(port)) = (self.state.sets.get(set), end.port) else { return false };
        let member = Member::AddrPort { addr: end.addr, protocol: end.protocol, port };
        set.members.contains(&member)
    }
}

// === impl End ===

impl End<'_> {
    fn nets(&self) -> Option<String> {
        let Self { word, addr, entity, .. } = self;
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(addr));
        if !entity.nets.is_empty() && !within(&entity.nets) {
            return Some(format!("the {word} {addr} is not in {}", words::list(&entity.nets)));
        }
        let barred = entity.not_nets.iter().find(|net| net.contains(addr))?;
        Some(format!("the {word} {addr} is in {barred}, which is excepted"))
    }
}
