//! What changes, and how it is told.

use std::io::{self, Write};
use std::net::SocketAddr;

use hashbrown::HashMap;
use serde::Serialize;

use super::flows::{FlowChange, FlowChanges};
use crate::court::verdict::{Fate, PassageSide, Side};
use crate::output::Table;
use crate::reach::group::{Group, groups};
use crate::reach::outcome::{Part, Said};
use crate::reach::survey::{Scope, Survey};

/// Everything that changes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Pairs of groups whose traffic changes.
    pairs: Vec<PairChange>,
    /// The groups that these name.
    groups: Vec<Group>,
    /// Who is judged at all, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guards: Vec<String>,
    /// Connections; none if they were not asked for.
    flows: Option<FlowChanges>,
}

/// A part of the traffic of a pair that changes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PairChange {
    from: String,
    to: String,
    /// Which part, in words.
    what: String,
    old: Said,
    new: Said,
}

// === impl Report ===

impl Report {
    /// Puts a survey of the cluster before and after together with the connections.
    pub(super) fn new(
        survey: &Survey<'_>,
        scope: &Scope<'_>,
        guards: Vec<String>,
        flows: Option<FlowChanges>,
    ) -> Self {
        let changes: Vec<Vec<&Part>> = survey.outcomes.iter().map(|o| o.changed()).collect();
        // Groups are to differ in what changes, not in what stays.
        let mut same: HashMap<&[&Part], usize> = HashMap::new();
        let same: Vec<usize> = (changes.iter().enumerate())
            .map(|(at, parts)| *same.entry(parts).or_insert(at))
            .collect();
        let all =
            groups(survey, scope.members, |outcome| same.get(outcome).copied().unwrap_or(outcome));
        let mut pairs = Vec::new();
        let mut named = vec![false; all.len()];
        for (i, from) in all.iter().enumerate() {
            for (j, to) in all.iter().enumerate() {
                let cell = survey.cells.get(from.class).and_then(|row| row.get(to.class));
                let parts = cell.and_then(|cell| changes.get(*cell)).into_iter().flatten();
                let before = pairs.len();
                pairs.extend(parts.filter_map(|part| PairChange::new(from, &to.name, part)));
                for at in [i, j].into_iter().filter(|_| pairs.len() > before) {
                    if let Some(named) = named.get_mut(at) {
                        *named = true;
                    }
                }
            }
            for (service, target) in scope.services.iter().enumerate() {
                let cell = survey.cell(from.class, service);
                let parts = cell.and_then(|cell| changes.get(cell)).into_iter().flatten();
                let to = format!("service {}", target.name);
                let before = pairs.len();
                pairs.extend(parts.filter_map(|part| PairChange::new(from, &to, part)));
                if let Some(named) = named.get_mut(i).filter(|_| pairs.len() > before) {
                    *named = true;
                }
            }
        }
        let groups = all.into_iter().zip(named).filter(|(_, named)| *named);
        Self { pairs, groups: groups.map(|(group, _)| group).collect(), guards, flows }
    }

    /// Whether anything changes.
    pub(super) fn changes(&self) -> bool {
        let flows = self.flows.as_ref().is_some_and(|flows| !flows.changed.is_empty());
        !self.pairs.is_empty() || !self.guards.is_empty() || flows
    }

    /// Writes it for people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.pairs.is_empty() {
            writeln!(out, "no pair of pods is told anything else than before")?;
        } else {
            let mut table = Table::new(["FROM", "TO", "TRAFFIC", "OLD", "NEW"]);
            self.pairs.iter().for_each(|pair| table.push(pair.row()));
            table.write(out)?;
        }
        for guard in &self.guards {
            writeln!(out, "{guard}")?;
        }
        let Some(flows) = &self.flows else { return Ok(()) };
        writeln!(out)?;
        if let Some(why) = &flows.not_compared {
            return writeln!(out, "connections seen lately were not compared: {why}");
        }
        let (changed, compared) = (flows.changed.iter().map(|f| f.count).sum(), flows.compared);
        let changed: usize = changed;
        writeln!(out, "of {compared} connections seen lately {changed} are told something else")?;
        if !flows.changed.is_empty() {
            let titles = ["COUNT", "PROTOCOL", "FROM", "TO", "ANSWERED BY", "OLD", "NEW"];
            let mut table = Table::new(titles);
            flows.changed.iter().for_each(|flow| table.push(row(flow)));
            table.write(out)?;
        }
        Ok(())
    }
}

// === impl PairChange ===

impl PairChange {
    fn new(from: &Group, to: &str, part: &Part) -> Option<Self> {
        let [old, new] = &part.said[..] else { return None };
        Some(Self {
            from: from.name.clone(),
            to: to.to_owned(),
            what: part.what.clone(),
            old: old.clone(),
            new: new.clone(),
        })
    }

    fn row(&self) -> Vec<String> {
        let said = |said: &Said| words(said.verdict, &said.egress, &said.ingress, &[]);
        let (old, new) = (said(&self.old), said(&self.new));
        vec![self.from.clone(), self.to.clone(), self.what.clone(), old, new]
    }
}

fn row(flow: &FlowChange) -> Vec<String> {
    let FlowChange { count, ends, old, new } = flow;
    let to = match ends.dst_port {
        Some(port) => SocketAddr::new(ends.dst, port).to_string(),
        None => ends.dst.to_string(),
    };
    vec![
        count.to_string(),
        ends.protocol.clone(),
        ends.src.to_string(),
        to,
        ends.backend.map(|backend| backend.to_string()).unwrap_or_default(),
        words(old.verdict, &old.egress, &old.ingress, &old.passages),
        words(new.verdict, &new.egress, &new.ingress, &new.passages),
    ]
}

/// A verdict and what decided.
fn words(verdict: Fate, egress: &Side, ingress: &Side, passages: &[PassageSide]) -> String {
    let by = |word: &str, side: &Side| match (&side.policy, side.rule, &side.tier) {
        (Some(policy), Some(rule), _) => format!("{word} {policy}#{rule}"),
        (_, _, Some(tier)) => format!("{word} end of {tier}"),
        _ => format!("{word} no profile"),
    };
    let ends = [("egress".to_owned(), egress), ("ingress".to_owned(), ingress)];
    let on_the_way =
        passages.iter().map(|p| (format!("host endpoint {}", p.host_endpoint), &p.side));
    // Profiles allow where no policy says anything.
    let is_reason = |side: &Side| match verdict {
        Fate::Deny => !side.passes(),
        _ => side.tier.is_some(),
    };
    let sides = ends.into_iter().chain(on_the_way).filter(|(_, side)| is_reason(side));
    let reasons: Vec<_> = sides.map(|(word, side)| by(&word, side)).collect();
    let verdict = if verdict == Fate::Deny { "deny" } else { "allow" };
    if reasons.is_empty() {
        verdict.to_owned()
    } else {
        format!("{verdict}: {}", reasons.join(", "))
    }
}
