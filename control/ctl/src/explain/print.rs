//! An explanation for people.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use super::report::{FlowReport, PartyReport, PassageReport, Report, SideReport};
use super::service::ServiceReport;
use super::staged::StagedReport;
use super::walk::{Outcome, PolicyStep, RuleStep, TierStep, Walk};
use super::words;
use crate::court::verdict::{Fate, Side};

/// A label that a namespace or a service account brings begins so.
const INHERITED: [(&str, &str); 2] = [("pcns.", "namespace"), ("pcsa.", "service account")];

/// Writes it all, in the order in which a packet meets it.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "Flow      {}", flow(&report.flow))?;
    writeln!(out, "Verdict   {}: {}", fate(report.verdict), report.because)?;
    party(out, "From", &report.source)?;
    party(out, "To", &report.destination)?;
    if let Some(report) = &report.service {
        service(out, report)?;
    }
    side(out, "Egress of the source", &report.egress)?;
    for report in &report.passages {
        passage(out, report)?;
    }
    side(out, "Ingress of the destination", &report.ingress)?;
    if !report.assumed.is_empty() {
        writeln!(out)?;
    }
    for assumed in &report.assumed {
        writeln!(out, "Assumed   {assumed}")?;
    }
    if let Some(report) = &report.staged {
        staged(out, report)?;
    }
    Ok(())
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Allow => "ALLOW",
        Fate::Deny => "DENY",
        Fate::None => "not policed",
    }
}

fn flow(flow: &FlowReport) -> String {
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let (src, dst) = (end(flow.src, flow.src_port), end(flow.dst, flow.dst_port));
    let mut text = format!("{} {src} -> {dst}", flow.protocol);
    if let Some(kind) = flow.icmp_type {
        text += &format!(" type {kind}");
    }
    if let Some(code) = flow.icmp_code {
        text += &format!(" code {code}");
    }
    text
}

fn party(out: &mut impl Write, title: &str, party: &PartyReport) -> io::Result<()> {
    let name = party.name.as_deref().unwrap_or_default();
    let node = match (&party.node, party.what) {
        (Some(node), "pod") => format!(" on node {node}"),
        _ => String::new(),
    };
    writeln!(out)?;
    writeln!(out, "{title:9} {} {name}{} ({}){node}", party.what, gap(name), party.address)?;
    if let Some(endpoint) = &party.host_endpoint {
        writeln!(out, "  host endpoint    {endpoint}")?;
    }
    let own = party.labels.iter().filter(|(key, _)| inherited(key).is_none());
    labels(out, "labels", own.map(|(key, value)| format!("{key}={value}")))?;
    for (prefix, title) in INHERITED {
        let brought = party.labels.iter().filter_map(|(key, value)| {
            key.strip_prefix(prefix).map(|key| format!("{key}={value}"))
        });
        labels(out, &format!("{title}'s"), brought)?;
    }
    labels(out, "profiles", party.profiles.iter().map(ToString::to_string))
}

/// Names end where the address begins.
fn gap(name: &str) -> &'static str {
    if name.is_empty() { "address" } else { "" }
}

fn inherited(key: &str) -> Option<&str> {
    INHERITED.iter().find_map(|(prefix, _)| key.strip_prefix(prefix))
}

fn labels(
    out: &mut impl Write,
    title: &str,
    labels: impl Iterator<Item = String>,
) -> io::Result<()> {
    let labels: Vec<_> = labels.collect();
    if labels.is_empty() { Ok(()) } else { writeln!(out, "  {title:18} {}", labels.join(", ")) }
}

fn service(out: &mut impl Write, report: &ServiceReport) -> io::Result<()> {
    writeln!(out)?;
    match (&report.service, report.frontend) {
        (Some(name), Some(frontend)) => {
            writeln!(out, "Service   {name} by its {frontend}, traffic policy {}", report.policy)?;
        }
        _ => writeln!(out, "Service   none")?,
    }
    for backend in &report.backends {
        let sign = if backend.taken { "->" } else { "  " };
        let end = SocketAddr::new(backend.addr, backend.port);
        let pod = backend.pod.as_ref().map(|pod| format!(" pod {pod}")).unwrap_or_default();
        let node = backend.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        let verdict = backend.verdict.map(|v| format!(" [{}]", fate(v))).unwrap_or_default();
        writeln!(out, "  {sign} {end}{pod}{node}: {}{verdict}", backend.because)?;
    }
    match &report.refused {
        Some(why) => writeln!(out, "  refused: {why}"),
        None => Ok(()),
    }
}

/// A side's verdict and who gave it.
fn by(side: &Side) -> String {
    let who = match (&side.policy, side.rule, &side.tier) {
        (Some(policy), Some(rule), Some(tier)) => format!(" by {policy} rule {rule} (tier {tier})"),
        (Some(policy), Some(rule), None) => format!(" by {policy} rule {rule}"),
        (_, _, Some(tier)) => format!(" at the end of tier {tier}"),
        _ => String::new(),
    };
    format!("{}{who}", fate(side.verdict))
}

fn side(out: &mut impl Write, title: &str, report: &SideReport) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "{title}: {}", by(&report.side))?;
    if let Some(why) = report.not_asked {
        writeln!(out, "  {why}")?;
    }
    steps(out, report)
}

/// A host endpoint on the way.
fn passage(out: &mut impl Write, report: &PassageReport) -> io::Result<()> {
    let PassageReport { node, host_endpoint, direction, .. } = report;
    let way = if *direction == "ingress" { "Into" } else { "Out of" };
    writeln!(out)?;
    writeln!(out, "{way} node {node}, host endpoint {host_endpoint}: {}", by(&report.side.side))?;
    writeln!(out, "  by {}", report.by)?;
    if let Some(report) = &report.flow {
        writeln!(out, "  as {}", flow(report))?;
    }
    steps(out, &report.side)
}

/// The policies that were asked.
fn steps(out: &mut impl Write, report: &SideReport) -> io::Result<()> {
    for list in &report.lists {
        let what = match list.list {
            "untracked" => "untracked policies",
            "preDNAT" => "pre-DNAT policies",
            _ => "policies for forwarded traffic",
        };
        let open = list.walk.conclusion.verdict == Fate::None;
        writeln!(out, "  {what}{}", if open { ": nothing decides" } else { "" })?;
        walk(out, &list.walk)?;
    }
    match &report.walk {
        Some(walk) => self::walk(out, walk),
        None => Ok(()),
    }
}

fn walk(out: &mut impl Write, walk: &Walk) -> io::Result<()> {
    for step in &walk.tiers {
        tier(out, step)?;
    }
    if !walk.profiles.is_empty() {
        writeln!(out, "  profiles")?;
    }
    for step in &walk.profiles {
        policy(out, step)?;
    }
    Ok(())
}

fn tier(out: &mut impl Write, step: &TierStep) -> io::Result<()> {
    let order = step.order.map_or("none".to_owned(), |order| order.to_string());
    write!(out, "  tier {} (order {order}, default {})", step.tier, step.default_action)?;
    writeln!(
        out,
        "{}",
        match step.outcome {
            Outcome::NotPoliced => ": no policy of it applies here",
            Outcome::NotReached => ": not reached",
            _ => "",
        }
    )?;
    for step in &step.policies {
        policy(out, step)?;
    }
    for other in &step.not_applied {
        writeln!(out, "    {} does not apply: {}", other.policy, other.because)?;
    }
    if step.not_applied_more > 0 {
        writeln!(out, "    {} more do not apply (--all tells why)", step.not_applied_more)?;
    }
    for key in &step.not_reached {
        writeln!(out, "    {key} applies, but is not reached")?;
    }
    match step.outcome {
        Outcome::Passed => writeln!(out, "    passed on to the next tier"),
        Outcome::Undecided => writeln!(out, "    end of the tier, default Pass: the next decides"),
        Outcome::DeniedAtEnd => writeln!(out, "    end of the tier, default Deny: denied"),
        _ => Ok(()),
    }
}

fn policy(out: &mut impl Write, step: &PolicyStep) -> io::Result<()> {
    match &step.selector {
        Some(selector) => {
            writeln!(out, "    {} applies: {}", step.policy, words::selector(selector))?;
        }
        None => writeln!(out, "    {}", step.policy)?,
    }
    if step.outcome == Outcome::Missing {
        writeln!(out, "      is not there: denied")?;
    }
    if step.rules.is_empty() && step.outcome == Outcome::Undecided {
        writeln!(out, "      has no rules for this direction")?;
    }
    step.rules.iter().try_for_each(|step| rule(out, step))
}

fn rule(out: &mut impl Write, step: &RuleStep) -> io::Result<()> {
    for part in &step.parts {
        write!(out, "      rule {}: {}", step.rule, part.text)?;
        match &part.unmet {
            Some(unmet) => writeln!(out, " - no: {unmet}")?,
            None => writeln!(out, " - MATCHES")?,
        }
        if let Some(resolved) = &part.resolved {
            writeln!(out, "        {resolved}")?;
        }
    }
    Ok(())
}

fn staged(out: &mut impl Write, report: &StagedReport) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "Staged    if these were enforced: {}", fate(report.verdict))?;
    for policy in &report.policies {
        let verb = if policy.action == "Delete" { "removes" } else { "sets" };
        writeln!(out, "  {} {verb} {}", policy.policy, policy.becomes)?;
    }
    writeln!(out, "  egress {}", by(&report.egress))?;
    writeln!(out, "  ingress {}", by(&report.ingress))
}
