//! What rules have decided since the daemon started.

use std::collections::HashMap;

use margay_model::PolicyKey;
use margay_model::flow::FlowCount;
use margay_protocol::proto;

/// Rules that are told apart; all beyond count together.
const MOST: usize = 1 << 16;

/// All counts. None is ever taken back: what is shown never falls.
#[derive(Debug)]
pub(crate) struct Counts {
    rules: Vec<(Rule, Count)>,
    places: HashMap<Rule, usize>,
    /// Those beyond [`MOST`], by direction and verdict.
    others: [Count; 4],
    series: usize,
}

/// A rule that decided, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    /// The policy; `None` where nothing decided.
    pub policy: Option<PolicyKey>,
    /// The rule's place in its document.
    pub place: u32,
    /// Whether it is for packets to its endpoint.
    pub ingress: bool,
    /// Whether it allowed.
    pub allowed: bool,
}

/// What a rule has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Connections, or attempts.
    pub connections: u64,
    /// Packets of both directions.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Sums by direction (whether ingress) and verdict (whether allowed).
type Others = [(bool, bool, Count); 4];

// === impl Counts ===

impl Counts {
    /// Nothing was decided yet; the first `series` rules that decide anything have metrics of their
    /// own.
    pub(super) fn new(series: usize) -> Self {
        Self { rules: Vec::new(), places: HashMap::new(), others: [Count::default(); 4], series }
    }

    /// Adds to a rule's count.
    pub(super) fn add(
        &mut self,
        name: Option<(PolicyKey, u32)>,
        ingress: bool,
        allowed: bool,
        connections: u64,
        more: &[FlowCount; 2],
    ) {
        let (policy, place) = name.map_or((None, 0), |(policy, place)| (Some(policy), place));
        let rule = Rule { policy, place, ingress, allowed };
        let [orig, reply] = more;
        self.at(rule).add(Count {
            connections,
            packets: orig.packets + reply.packets,
            bytes: orig.bytes + reply.bytes,
        });
    }

    fn at(&mut self, rule: Rule) -> &mut Count {
        let other = usize::from(rule.ingress) << 1 | usize::from(rule.allowed);
        let next = self.rules.len();
        let place = match self.places.get(&rule) {
            Some(place) => *place,
            None if next < MOST => {
                self.places.insert(rule.clone(), next);
                self.rules.push((rule, Count::default()));
                next
            }
            None => MOST,
        };
        match self.rules.get_mut(place) {
            Some((_, count)) => count,
            None => &mut self.others[other],
        }
    }

    /// The rules with metrics of their own, and the sum of all others by direction and verdict.
    pub(crate) fn series(&self) -> (&[(Rule, Count)], Others) {
        let (own, rest) = self.rules.split_at(self.rules.len().min(self.series));
        let sums = [0, 1, 2, 3].map(|index: usize| {
            let (ingress, allowed) = (index & 2 != 0, index & 1 != 0);
            let mut sum = self.others[index];
            let alike = |rule: &Rule| (rule.ingress, rule.allowed) == (ingress, allowed);
            rest.iter().filter(|(rule, _)| alike(rule)).for_each(|(_, count)| sum.add(*count));
            (ingress, allowed, sum)
        });
        (own, sums)
    }

    /// All counts, for the protocol.
    pub(crate) fn all(&self) -> Vec<proto::RuleCount> {
        let rules = self.rules.iter().map(|(rule, count)| (rule.clone(), *count));
        let others = self.others.iter().enumerate().map(|(index, count)| {
            let (ingress, allowed) = (index & 2 != 0, index & 1 != 0);
            (Rule { policy: None, place: 0, ingress, allowed }, *count)
        });
        let some = rules.chain(others).filter(|(_, count)| *count != Count::default());
        some.map(|(rule, count)| proto::RuleCount {
            policy: rule.policy.as_deref().unwrap_or_default().to_owned(),
            rule: rule.place,
            ingress: rule.ingress,
            allowed: rule.allowed,
            connections: count.connections,
            packets: count.packets,
            bytes: count.bytes,
        })
        .collect()
    }
}

// === impl Count ===

impl Count {
    fn add(&mut self, more: Self) {
        self.connections += more.connections;
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_the_series_are_summed_and_nothing_is_lost() {
        let mut counts = Counts::new(2);
        let more = [FlowCount { packets: 1, bytes: 60 }, FlowCount { packets: 2, bytes: 40 }];
        for place in 0..5 {
            counts.add(Some(("p".into(), place)), true, place != 4, 1, &more);
        }
        let (own, others) = counts.series();
        assert_eq!(own.len(), 2);
        assert_eq!(own[0].1, Count { connections: 1, packets: 3, bytes: 100 });
        let sum = |ingress, allowed| {
            others.iter().find(|o| (o.0, o.1) == (ingress, allowed)).unwrap().2.packets
        };
        assert_eq!((sum(true, true), sum(true, false), sum(false, true)), (6, 3, 0));
        assert_eq!(counts.all().len(), 5);
    }
}
