//! Which rules of a list a packet could match: an inverted index.
//!
//! Every rule is entered once, under its most selective condition: the one whose value the fewest
//! rules of the list ask for. A packet gathers the rules entered under its own values: under the
//! sets its addresses are in, the networks around them, its destination port, its protocol. Rules
//! without a condition that can be looked up are always candidates. Of what is gathered, a glance at
//! protocol and destination port throws most out before a rule itself is touched. What is left is a
//! superset of the matching rules, in order; the exact matcher decides.
//!
//! Bit vectors for each dimension, intersected, were the other choice: they also cut down rules
//! that are rare in no single dimension, but cost N bits for every distinct value and N / 64 steps
//! for every packet, and a set's members would have to be folded into every list's vectors.

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::PortRange;
use smallvec::SmallVec;

use super::facts::PacketFacts;
use super::list::Step;
use super::matcher::{CompiledRule, Condition, End};
use super::sets::Sets;
use crate::addr::Prefix;
use crate::lpm::Lpm;

/// The index of a list.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    /// Places of rules that are always candidates, ascending.
    always: Box<[u32]>,
    dst_ports: HashMap<u16, Places>,
    protocols: HashMap<u8, Places>,
    src: EndIndex,
    dst: EndIndex,
    /// By place.
    glances: Box<[Glance]>,
}

/// What tells without a look at a rule that it does not match: 6 bytes, many to a cache line.
#[derive(Clone, Copy, Debug)]
struct Glance {
    protocol: Option<u8>,
    first_port: u16,
    last_port: u16,
}

/// The index of what concerns one end's address.
#[derive(Debug, Default)]
struct EndIndex {
    sets: HashMap<u32, Places>,
    port_sets: HashMap<u32, Places>,
    nets: Lpm<Places>,
}

/// Ascending places of rules.
type Places = SmallVec<[u32; 4]>;

/// What is being gathered for a packet.
#[derive(Debug)]
struct Gathered<'p> {
    glances: &'p [Glance],
    facts: &'p PacketFacts,
    places: &'p mut Room,
}

/// Where places are gathered: the caller's, as so many bytes are not moved for nothing.
pub(super) type Room = SmallVec<[u32; 64]>;

/// The places where a packet may find its rule, ascending, each once.
#[derive(Debug)]
pub(super) struct Candidates<'p> {
    always: &'p [u32],
    gathered: &'p [u32],
}

/// A value that a rule can be entered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Value {
    DstPort(u16),
    Net(End, Prefix),
    PortSet(End, u32),
    Set(End, u32),
    Protocol(u8),
}

/// A list this short is asked from top to bottom.
const SHORT: usize = 4;
/// A range of more ports than this is not entered port by port.
const MAX_PORTS: u32 = 64;
/// A value that more than one in so many rules ask for tells too little.
const COMMON: usize = 4;

// === impl Prefilter ===

impl Prefilter {
    pub(super) fn new(steps: &[Step]) -> Self {
        let mut prefilter = Self::default();
        let mut always = Vec::new();
        if steps.len() <= SHORT {
            always.extend(0..steps.len() as u32);
        } else {
            prefilter.glances = steps.iter().map(Glance::at).collect();
            let askers = askers(steps);
            for (place, step) in (0u32..).zip(steps) {
                match choose(step, &askers, steps.len() / COMMON) {
                    Some(values) => values.into_iter().for_each(|v| prefilter.enter(v, place)),
                    None => always.push(place),
                }
            }
        }
        prefilter.always = always.into();
        prefilter
    }

    fn enter(&mut self, value: Value, place: u32) {
        let places = match value {
            Value::DstPort(port) => self.dst_ports.entry(port).or_default(),
            Value::Protocol(protocol) => self.protocols.entry(protocol).or_default(),
            Value::Set(end, set) => self.end(end).sets.entry(set).or_default(),
            Value::PortSet(end, set) => self.end(end).port_sets.entry(set).or_default(),
            Value::Net(end, net) => match self.end(end).nets.entry(net, Places::new) {
                Some(places) => places,
                None => return,
            },
        };
        places.push(place);
    }

    fn end(&mut self, end: End) -> &mut EndIndex {
        match end {
            End::Src => &mut self.src,
            End::Dst => &mut self.dst,
        }
    }

    /// The places of the rules that the packet could match, for which there is `room`.
    #[inline]
    pub(super) fn candidates<'p>(
        &'p self,
        sets: &Sets,
        facts: &PacketFacts,
        room: &'p mut Room,
    ) -> Candidates<'p> {
        let mut gathered = Gathered { glances: &self.glances, facts, places: room };
        if !self.dst_ports.is_empty()
            && let Some(places) = facts.dst_port.and_then(|port| self.dst_ports.get(&port))
        {
            gathered.extend(places);
        }
        if !self.protocols.is_empty()
            && let Some(places) = self.protocols.get(&facts.protocol)
        {
            gathered.extend(places);
        }
        self.src.gather(End::Src, sets, &mut gathered);
        self.dst.gather(End::Dst, sets, &mut gathered);
        room.sort_unstable();
        room.dedup();
        Candidates { always: &self.always, gathered: room }
    }
}

// === impl Gathered ===

impl Gathered<'_> {
    #[inline]
    fn extend(&mut self, places: &[u32]) {
        let glance = |place: &u32| {
            self.glances.get(*place as usize).is_some_and(|glance| glance.admits(self.facts))
        };
        self.places.extend(places.iter().copied().filter(glance));
    }
}

// === impl Glance ===

impl Glance {
    fn at(step: &Step) -> Self {
        let mut glance = Self { protocol: None, first_port: 0, last_port: u16::MAX };
        for condition in rule_of(step).into_iter().flat_map(|rule| &rule.conditions) {
            match condition {
                Condition::Protocol(protocol) => glance.protocol = Some(*protocol),
                Condition::Port(End::Dst, range) => glance.narrow(std::slice::from_ref(range)),
                Condition::Ports(End::Dst, any) if any.named.is_empty() => {
                    glance.narrow(&any.ranges);
                }
                _ => {}
            }
        }
        glance
    }

    fn narrow(&mut self, ranges: &[PortRange]) {
        self.first_port = ranges.iter().map(|range| range.first).min().unwrap_or(0);
        self.last_port = ranges.iter().map(|range| range.last).max().unwrap_or(u16::MAX);
    }

    /// A packet without a port matches no rule that asks for one.
    #[inline]
    fn admits(self, facts: &PacketFacts) -> bool {
        let ports = self.first_port..=self.last_port;
        self.protocol.is_none_or(|protocol| protocol == facts.protocol)
            && ports.contains(&facts.dst_port.unwrap_or(0))
    }
}

// === impl EndIndex ===

impl EndIndex {
    #[inline]
    fn gather(&self, end: End, sets: &Sets, out: &mut Gathered<'_>) {
        let facts = out.facts;
        let addr = end.addr(facts);
        if !self.sets.is_empty() {
            self.gather_sets(&self.sets, sets.of_addr(addr), out);
            for (set, _) in sets.learned_by(addr) {
                self.gather_sets(&self.sets, &[*set], out);
            }
            for around in sets.around(addr) {
                self.gather_sets(&self.sets, around, out);
            }
        }
        if !self.nets.is_empty() {
            for (places, _) in self.nets.matches(addr) {
                out.extend(places);
            }
        }
        if !self.port_sets.is_empty()
            && let Some(port) = end.port(facts)
        {
            let of_port = sets.of_port((addr, facts.protocol, port));
            self.gather_sets(&self.port_sets, of_port, out);
        }
    }

    fn gather_sets(&self, index: &HashMap<u32, Places>, member_of: &[u32], out: &mut Gathered<'_>) {
        for places in member_of.iter().filter_map(|set| index.get(set)) {
            out.extend(places);
        }
    }
}

// === impl Candidates ===

impl Iterator for Candidates<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let (first, rest) = match (self.always.split_first(), self.gathered.split_first()) {
            (Some((always, _)), Some((gathered, rest))) if gathered < always => (gathered, rest),
            (None, gathered) => gathered?,
            (Some((always, rest)), _) => {
                self.always = rest;
                return Some(*always);
            }
        };
        self.gathered = rest;
        Some(*first)
    }
}

/// How many rules of the list ask for each value.
fn askers(steps: &[Step]) -> HashMap<Value, u32> {
    let mut askers = HashMap::new();
    for rule in steps.iter().filter_map(rule_of) {
        for value in options(rule).flatten() {
            *askers.entry(value).or_default() += 1;
        }
    }
    askers
}

/// The values that a step is entered under: of its options the one whose commonest value is the
/// rarest. `None` if there is none, or if even that is too common.
fn choose(step: &Step, askers: &HashMap<Value, u32>, limit: usize) -> Option<Vec<Value>> {
    let cost = |values: &Vec<Value>| values.iter().filter_map(|v| askers.get(v)).max().copied();
    let (cost, values) = options(rule_of(step)?)
        .filter_map(|values| Some((cost(&values)?, values)))
        .min_by_key(|(cost, _)| *cost)?;
    (cost as usize <= limit).then_some(values)
}

fn rule_of(step: &Step) -> Option<&Arc<CompiledRule>> {
    match step {
        Step::Rule(rule) => Some(rule),
        Step::Missing(_) => None,
    }
}

/// Each condition that can be looked up, as the values one of which a packet must have, in the
/// order of preference among equals.
fn options(rule: &CompiledRule) -> impl Iterator<Item = Vec<Value>> {
    let mut options: Vec<_> = rule.conditions.iter().filter_map(option).collect();
    options.sort_by_key(|values| values.first().map_or(u8::MAX, rank));
    options.into_iter()
}

fn option(condition: &Condition) -> Option<Vec<Value>> {
    Some(match condition {
        Condition::Protocol(protocol) => vec![Value::Protocol(*protocol)],
        Condition::Port(End::Dst, range) => dst_ports(std::slice::from_ref(range))?.collect(),
        Condition::Ports(End::Dst, any) => {
            let mut values: Vec<_> = dst_ports(&any.ranges)?.collect();
            values.extend(any.named.iter().map(|set| Value::PortSet(End::Dst, *set)));
            values
        }
        Condition::Net(end, net) => vec![Value::Net(*end, *net)],
        Condition::Nets(end, nets) => nets.iter().map(|net| Value::Net(*end, *net)).collect(),
        Condition::InSet(end, set) | Condition::InSetOrLearned(end, set) => {
            vec![Value::Set(*end, *set)]
        }
        Condition::InPortSet(end, set) => vec![Value::PortSet(*end, *set)],
        _ => return None,
    })
}

fn dst_ports(ranges: &[PortRange]) -> Option<impl Iterator<Item = Value>> {
    few_ports(ranges).map(|ports| ports.map(Value::DstPort))
}

/// The ports of ranges, if they are few enough to enter rules under each.
pub(super) fn few_ports(ranges: &[PortRange]) -> Option<impl Iterator<Item = u16>> {
    let size = |range: &PortRange| u32::from(range.last.saturating_sub(range.first)) + 1;
    let few = ranges.iter().map(size).sum::<u32>() <= MAX_PORTS;
    few.then(|| ranges.iter().flat_map(|range| range.first..=range.last))
}

/// One probe finds a port; an address may be in many sets.
fn rank(value: &Value) -> u8 {
    match value {
        Value::DstPort(_) => 0,
        Value::PortSet(..) => 1,
        Value::Net(..) => 2,
        Value::Set(..) => 3,
        Value::Protocol(_) => 4,
    }
}
