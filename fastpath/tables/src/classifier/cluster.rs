//! The policies of a whole cluster in one list, for who asks about all of its endpoints.
//!
//! Live packets are decided by the list of their endpoint, with a prefilter of its own. To build
//! thousands of those takes longer than to answer every question about them. Here each rule is
//! indexed once, in bit vectors with one bit for each rule (T. V. Lakshman, D. Stiliadis: High-speed
//! policy-based packet forwarding using efficient multi-dimensional range matching, SIGCOMM 1998):
//! the rules that an endpoint has, and those that a source, a destination, a protocol and a
//! destination port leave possible. Their intersection goes to the same evaluation and the same
//! exact matcher.

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{PolicyKey, TierPolicies};

use super::Classifier;
use super::book::PolicyBook;
use super::facts::{Decision, Direction, PacketFacts};
use super::list::{Course, Span, Step};
use super::matcher::{Condition, End};
use super::names::NOBODY;
use super::prefilter::few_ports;
use super::sets::Sets;
use crate::addr::{Addr, Prefix};
use crate::lpm::Lpm;

/// One bit for each rule.
type Vector = Vec<u64>;

/// All policies of a cluster.
#[derive(Debug)]
pub struct ClusterPolicies {
    ingress: Whole,
    egress: Whole,
}

/// Which of the rules an endpoint has, and its tiers.
#[derive(Debug)]
pub struct Membership {
    ingress: Part,
    egress: Part,
}

/// Vectors of values that were asked about, so that nobody computes them twice.
#[derive(Debug, Default)]
pub struct Vectors {
    ingress: Known,
    egress: Known,
}

/// The rules of one direction in the order of evaluation.
#[derive(Debug, Default)]
struct Whole {
    steps: Vec<Step>,
    /// The first step of each policy, and one past its last.
    places: HashMap<PolicyKey, (u32, u32)>,
    /// One past the last step of each tier.
    ends: HashMap<Arc<str>, u32>,
    src: EndField,
    dst: EndField,
    protocols: Field<u8>,
    dst_ports: Field<u16>,
}

/// The rules of one direction that an endpoint has.
#[derive(Debug, Default)]
struct Part {
    rules: Vector,
    spans: Vec<Span>,
}

/// The rules by the value that they ask for.
#[derive(Debug)]
struct Field<T> {
    /// Those that do not ask.
    any: Vector,
    by_value: HashMap<T, Vec<u32>>,
}

/// The rules by what they ask of an address. Of several conditions one counts.
#[derive(Debug, Default)]
struct EndField {
    sets: Field<u32>,
    nets: Lpm<Vec<u32>>,
}

#[derive(Debug, Default)]
struct Known {
    src: HashMap<Addr, Vector>,
    dst: HashMap<Addr, Vector>,
    protocols: HashMap<u8, Vector>,
    dst_ports: HashMap<Option<u16>, Vector>,
}

/// So many vectors of a field are kept.
const KEPT: usize = 1 << 13;

// === impl ClusterPolicies ===

impl ClusterPolicies {
    pub(super) fn new(book: &PolicyBook, tiers: &[TierPolicies]) -> Self {
        let whole = |direction| Whole::new(book, tiers, direction);
        Self { ingress: whole(Direction::Ingress), egress: whole(Direction::Egress) }
    }

    /// What an endpoint with these tiers has of it; `None` if they name a tier or policy that is not
    /// there.
    pub fn membership(&self, tiers: &[TierPolicies]) -> Option<Membership> {
        let part = |whole: &Whole, direction| whole.part(tiers, direction);
        Some(Membership {
            ingress: part(&self.ingress, Direction::Ingress)?,
            egress: part(&self.egress, Direction::Egress)?,
        })
    }

    /// Decides a packet at an endpoint, whose profiles are not asked.
    pub fn decide<'p>(
        &'p self,
        classifier: &Classifier,
        membership: &'p Membership,
        vectors: &mut Vectors,
        direction: Direction,
        facts: &PacketFacts,
    ) -> Decision<'p> {
        let (whole, part, known) = match direction {
            Direction::Ingress => (&self.ingress, &membership.ingress, &mut vectors.ingress),
            Direction::Egress => (&self.egress, &membership.egress, &mut vectors.egress),
        };
        let sets = &classifier.sets;
        let candidates = known.candidates(whole, part, sets, facts);
        let course = Course { steps: &whole.steps, spans: &part.spans };
        course.evaluate(sets, facts, candidates, |_, _| true)
    }
}

// === impl Whole ===

impl Whole {
    fn new(book: &PolicyBook, tiers: &[TierPolicies], direction: Direction) -> Self {
        let mut whole = Self::default();
        for tier in tiers {
            for key in policies(tier, direction) {
                let first = whole.steps.len() as u32;
                whole.steps.extend(book.steps(key, direction));
                whole.places.insert(key.clone(), (first, whole.steps.len() as u32));
            }
            whole.ends.insert(tier.name.clone(), whole.steps.len() as u32);
        }
        for (place, step) in (0u32..).zip(&whole.steps) {
            let conditions = match step {
                Step::Rule(rule) => &rule.conditions[..],
                Step::Missing(_) => &[],
            };
            whole.src.enter(End::Src, conditions, place);
            whole.dst.enter(End::Dst, conditions, place);
            whole.protocols.enter(conditions.iter().find_map(protocol).as_slice(), place);
            whole
                .dst_ports
                .enter(&conditions.iter().find_map(dst_ports).unwrap_or_default(), place);
        }
        whole
    }

    fn part(&self, tiers: &[TierPolicies], direction: Direction) -> Option<Part> {
        let mut rules = vec![0; self.steps.len().div_ceil(64)];
        let mut spans = Vec::new();
        for tier in tiers {
            let keys = policies(tier, direction);
            for key in keys {
                let (first, end) = *self.places.get(key)?;
                (first..end).for_each(|place| set(&mut rules, place));
            }
            if !keys.is_empty() {
                let end = *self.ends.get(&tier.name)?;
                let (default, tier) = (tier.default_action, Some(tier.name.clone()));
                // Nobody asks for the names behind these answers.
                spans.push(Span { end, default, tier, id: NOBODY });
            }
        }
        Some(Part { rules, spans })
    }
}

fn policies(tier: &TierPolicies, direction: Direction) -> &[PolicyKey] {
    match direction {
        Direction::Ingress => &tier.ingress,
        Direction::Egress => &tier.egress,
    }
}

fn set(vector: &mut Vector, place: u32) {
    let at = place as usize / 64;
    if vector.len() <= at {
        vector.resize(at + 1, 0);
    }
    if let Some(word) = vector.get_mut(at) {
        *word |= 1 << (place % 64);
    }
}

fn protocol(condition: &Condition) -> Option<u8> {
    match condition {
        Condition::Protocol(protocol) => Some(*protocol),
        _ => None,
    }
}

/// The ports that a condition leaves possible, if they are few and it says so itself.
fn dst_ports(condition: &Condition) -> Option<Vec<u16>> {
    let ports = match condition {
        Condition::Port(End::Dst, range) => few_ports(std::slice::from_ref(range))?.collect(),
        Condition::Ports(End::Dst, any) if any.named.is_empty() => {
            few_ports(&any.ranges)?.collect()
        }
        _ => return None,
    };
    Some(ports)
}

// === impl Field ===

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self { any: Vec::new(), by_value: HashMap::new() }
    }
}

impl<T: Copy + Eq + std::hash::Hash> Field<T> {
    /// Enters a rule under the values that it asks for; it does not ask if there are none.
    fn enter(&mut self, values: &[T], place: u32) {
        if values.is_empty() {
            set(&mut self.any, place);
        }
        for value in values {
            self.by_value.entry(*value).or_default().push(place);
        }
    }

    fn vector(&self, values: impl IntoIterator<Item = T>) -> Vector {
        let mut vector = self.any.clone();
        let asked = values.into_iter().filter_map(|value| self.by_value.get(&value)).flatten();
        asked.for_each(|place| set(&mut vector, *place));
        vector
    }
}

// === impl EndField ===

impl EndField {
    fn enter(&mut self, end: End, conditions: &[Condition], place: u32) {
        for condition in conditions {
            match condition {
                Condition::InSet(of, set) | Condition::InSetOrLearned(of, set) if *of == end => {
                    return self.sets.enter(&[*set], place);
                }
                Condition::Net(of, net) if *of == end => return self.enter_nets(&[*net], place),
                Condition::Nets(of, nets) if *of == end => return self.enter_nets(nets, place),
                _ => {}
            }
        }
        self.sets.enter(&[], place);
    }

    fn enter_nets(&mut self, nets: &[Prefix], place: u32) {
        for net in nets {
            match self.nets.entry(*net, Vec::new) {
                Some(places) => places.push(place),
                None => return self.sets.enter(&[], place),
            }
        }
    }

    fn vector(&self, addr: Addr, sets: &Sets) -> Vector {
        let around = sets.around(addr).flatten();
        let learned = sets.learned_by(addr).iter().map(|(set, _)| set);
        let of_addr = sets.of_addr(addr).iter().chain(around).chain(learned);
        let mut vector = self.sets.vector(of_addr.copied());
        for (places, _) in self.nets.matches(addr) {
            places.iter().for_each(|place| set(&mut vector, *place));
        }
        vector
    }
}

// === impl Known ===

impl Known {
    /// The places of the rules of an endpoint that the packet could match, ascending.
    fn candidates<'k>(
        &'k mut self,
        whole: &Whole,
        part: &'k Part,
        sets: &Sets,
        facts: &PacketFacts,
    ) -> impl Iterator<Item = u32> + 'k {
        let (protocol, port) = (facts.protocol, facts.dst_port);
        let src = kept(&mut self.src, facts.src, || whole.src.vector(facts.src, sets));
        let dst = kept(&mut self.dst, facts.dst, || whole.dst.vector(facts.dst, sets));
        let of_protocol = || whole.protocols.vector([protocol]);
        let protocols = kept(&mut self.protocols, protocol, of_protocol);
        let of_port = || whole.dst_ports.vector(port);
        let dst_ports = kept(&mut self.dst_ports, port, of_port);
        let possible = part.rules.iter().zip(src).zip(dst).zip(protocols).zip(dst_ports);
        let possible = possible.map(|((((a, b), c), d), e)| a & b & c & d & e);
        (0u32..)
            .step_by(64)
            .zip(possible)
            .flat_map(|(base, word)| Bits(word).map(move |b| base + b))
    }
}

/// A vector from the store, or a new one into it.
fn kept<K: Eq + std::hash::Hash>(
    known: &mut HashMap<K, Vector>,
    key: K,
    vector: impl FnOnce() -> Vector,
) -> &Vector {
    if known.len() >= KEPT && !known.contains_key(&key) {
        known.clear();
    }
    known.entry(key).or_insert_with(vector)
}

/// The bits of a word, from the lowest.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let lowest = self.0.trailing_zeros();
        self.0 &= self.0.checked_sub(1)?;
        Some(lowest)
    }
}
