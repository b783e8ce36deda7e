//! `margayctl policy hits`.

use std::io::{self, Write};

use margay_protocol::proto;
use serde::Serialize;

use super::{connect, in_time};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{Table, write_structured};

/// Arguments of `policy hits`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only policies whose KIND/NAMESPACE/NAME contains this
    #[arg(value_name = "TEXT")]
    policy: Option<String>,
    /// Only what was denied
    #[arg(long)]
    denied: bool,
}

/// What rules have decided since the dataplane started.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hits {
    rules: Vec<Rule>,
    /// Flows that ended unseen: no rule has counted what they carried last.
    flows_lost: u64,
    /// Denied packets that no rule has counted.
    denials_unremembered: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// `None` where neither a policy nor a profile decided.
    policy: Option<String>,
    /// The tier whose default action decided, instead of a rule.
    tier_default: Option<String>,
    /// The rule's place in its document.
    rule: Option<u32>,
    direction: &'static str,
    action: &'static str,
    connections: u64,
    packets: u64,
    bytes: u64,
}

/// Asks the dataplane.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut client = connect(options).await?;
    let answer = in_time(client.list_rule_counts(proto::ListRuleCountsRequest {})).await??;
    let hits = Hits::new(answer.into_inner(), args);
    if !write_structured(options.form(), &hits)? {
        hits.write(&mut io::stdout().lock())?;
    }
    Ok(())
}

// === impl Hits ===

impl Hits {
    /// The rules that are wanted, in the order of their names.
    fn new(answer: proto::RuleCounts, args: &Args) -> Self {
        let wanted = |count: &proto::RuleCount| {
            args.policy.as_ref().is_none_or(|text| count.policy.contains(&**text))
                && !(args.denied && count.allowed)
        };
        let mut counts: Vec<_> = answer.counts.into_iter().filter(wanted).collect();
        counts.sort_by(|a, b| {
            let key = |c: &proto::RuleCount| (c.policy.clone(), !c.ingress, c.rule, c.allowed);
            key(a).cmp(&key(b))
        });
        Self {
            rules: counts.into_iter().map(Rule::from).collect(),
            flows_lost: answer.flows_lost,
            denials_unremembered: answer.denials_unremembered,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let titles = ["POLICY", "RULE", "DIRECTION", "ACTION", "CONNECTIONS", "PACKETS", "BYTES"];
        let mut table = Table::new(titles);
        for rule in &self.rules {
            table.push(rule.row());
        }
        table.write(out)?;
        if self.flows_lost > 0 {
            writeln!(out, "{} flows ended unseen and are not in these numbers", self.flows_lost)?;
        }
        if self.denials_unremembered > 0 {
            let packets = self.denials_unremembered;
            writeln!(out, "{packets} packets of a flood are not in these numbers")?;
        }
        Ok(())
    }
}

// === impl Rule ===

impl From<proto::RuleCount> for Rule {
    fn from(count: proto::RuleCount) -> Self {
        let tier_default = count.policy.strip_prefix("Tier//").map(str::to_owned);
        let named = tier_default.is_none() && !count.policy.is_empty();
        Self {
            rule: named.then_some(count.rule),
            policy: named.then_some(count.policy),
            tier_default,
            direction: if count.ingress { "ingress" } else { "egress" },
            action: if count.allowed { "allow" } else { "deny" },
            connections: count.connections,
            packets: count.packets,
            bytes: count.bytes,
        }
    }
}

impl Rule {
    fn row(&self) -> Vec<String> {
        let (policy, rule) = match (&self.policy, &self.tier_default) {
            (Some(policy), _) => (policy.clone(), self.rule.unwrap_or_default().to_string()),
            (None, Some(tier)) => (format!("tier {tier}"), "default".to_owned()),
            (None, None) => ("none".to_owned(), String::new()),
        };
        let numbers = [self.connections, self.packets, self.bytes].map(|n| n.to_string());
        let words = [self.direction, self.action].map(str::to_owned);
        [policy, rule].into_iter().chain(words).chain(numbers).collect()
    }
}
