//! Every pair of classes of endpoints, in one cluster or in two that are compared.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use margay_compile::Compiler;

use super::ask::{Asked, asked, open};
use super::class::{Class, Member, classes};
use super::failsafe::{Failsafes, OpenPort};
use super::list::{Address, END, Library, List, Token};
use super::outcome::{Outcome, Part, Said};
use super::probe::{self, Probe, Resolved};
use super::service::{self, Target};
use crate::court::jury::Jury;
use crate::court::verdict::Side;

/// So many questions are asked at once, about.
const BATCH: usize = 1 << 17;

/// More classes than can be surveyed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the endpoints make {found} groups that policies tell apart, more than {limit}: narrow them with \
     --namespace or --selector, or raise --limit"
)]
pub(crate) struct TooMany {
    found: usize,
    limit: usize,
}

/// All outcomes.
pub(crate) struct Survey<'c> {
    pub(crate) classes: Vec<Class<'c>>,
    pub(crate) outcomes: Vec<Outcome>,
    /// The outcome of each pair of classes: rows send, columns receive. Behind the classes come the
    /// services.
    pub(crate) cells: Vec<Vec<usize>>,
}

/// What is surveyed.
pub(crate) struct Scope<'a> {
    /// They have to be there in every cluster.
    pub(crate) members: &'a [Member],
    /// Services, which only receive.
    pub(crate) services: &'a [Target],
    /// One port; all without one.
    pub(crate) port: Option<Probe>,
    /// More classes are refused.
    pub(crate) limit: usize,
}

/// Two classes whose relevant rules are like those of other pairs.
struct Case {
    src: usize,
    dst: usize,
    /// For each cluster.
    rules: Vec<Vec<usize>>,
}

/// A class with its lists narrowed to itself, for one family.
struct Narrowed {
    egress: Vec<List>,
    ingress: Vec<List>,
}

/// Who looks at all pairs.
struct Surveyor<'s, 'c> {
    classes: &'s [Class<'c>],
    libraries: &'s [Library<'c>],
    juries: &'s mut [Jury<'c>],
    port: Option<Probe>,
}

// === impl Survey ===

impl<'c> Survey<'c> {
    /// Surveys members, services and what is outside, in one cluster or in several that are
    /// compared. A host endpoint is looked at from other nodes than its own.
    pub(crate) fn new(clusters: &[&'c Compiler], scope: &Scope<'_>) -> Result<Self, TooMany> {
        let Scope { members, services, port, limit } = *scope;
        let library = |cluster: &&'c Compiler| {
            let failsafes = members.iter().filter_map(|m| Failsafes::of(cluster, &m.key));
            let nets: BTreeSet<_> = failsafes.flat_map(|f| f.nets().collect::<Vec<_>>()).collect();
            Library::new(cluster.state(), nets.into_iter())
        };
        let mut libraries: Vec<_> = clusters.iter().map(library).collect();
        let classes = classes(members, clusters, &mut libraries);
        if classes.len() > limit {
            return Err(TooMany { found: classes.len(), limit });
        }
        let mut juries: Vec<_> = clusters.iter().map(|cluster| Jury::new(cluster)).collect();
        let mut surveyor =
            Surveyor { classes: &classes, libraries: &libraries, juries: &mut juries, port };
        let families = [true, false].map(|v4| surveyor.family(v4));
        let (outcomes, cells) = joined(classes.len(), &families);
        let mut survey = Self { classes, outcomes, cells };
        if !services.is_empty() {
            let directory = service::Directory::new(&survey.classes, members, clusters);
            survey.append(&directory, &mut juries, services);
        }
        Ok(survey)
    }

    /// Appends a column for each service. Most classes share outcomes, which are kept once.
    fn append(
        &mut self,
        directory: &service::Directory<'c>,
        juries: &mut [Jury<'c>],
        services: &[Target],
    ) {
        let mut places: HashMap<Outcome, usize> = self.outcomes.iter().cloned().zip(0..).collect();
        for (row, class) in self.cells.iter_mut().zip(&self.classes) {
            for outcome in directory.outcomes(class, juries, services) {
                let next = self.outcomes.len();
                row.push(*places.entry(outcome).or_insert_with_key(|outcome| {
                    self.outcomes.push(outcome.clone());
                    next
                }));
            }
        }
    }

    /// The outcome of a class and a service.
    pub(crate) fn cell(&self, class: usize, service: usize) -> Option<usize> {
        self.cells.get(class)?.get(self.classes.len() + service).copied()
    }

    /// The outcome between two classes.
    #[cfg(test)]
    pub(crate) fn outcome(&self, src: usize, dst: usize) -> Option<&Outcome> {
        self.outcomes.get(*self.cells.get(src)?.get(dst)?)
    }
}

/// The outcomes of one family, and that of each pair; none where the pair does not have it.
type Family = (Vec<Outcome>, Vec<Option<usize>>);

/// Both families as one.
fn joined(count: usize, families: &[Family; 2]) -> (Vec<Outcome>, Vec<Vec<usize>>) {
    let [(v4_outcomes, v4), (v6_outcomes, v6)] = families;
    let mut of_pair: HashMap<(Option<usize>, Option<usize>), usize> = HashMap::new();
    let mut of_outcome: HashMap<Outcome, usize> = HashMap::new();
    let mut outcomes = Vec::new();
    let cells = v4.iter().zip(v6).map(|(v4, v6)| {
        *of_pair.entry((*v4, *v6)).or_insert_with(|| {
            let first = v4.and_then(|at| v4_outcomes.get(at));
            let second = v6.and_then(|at| v6_outcomes.get(at));
            let outcome = match (first, second) {
                (Some(first), Some(second)) => Outcome::both(first, second),
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => Outcome { parts: Vec::new() },
            };
            *of_outcome.entry(outcome).or_insert_with_key(|outcome| {
                outcomes.push(outcome.clone());
                outcomes.len() - 1
            })
        })
    });
    let cells: Vec<usize> = cells.collect();
    (outcomes, cells.chunks(count.max(1)).map(<[usize]>::to_vec).collect())
}

// === impl Surveyor ===

impl<'c> Surveyor<'_, 'c> {
    fn family(&mut self, v4: bool) -> Family {
        let (cases, cells) = self.cases(v4);
        let mut outcomes = Vec::with_capacity(cases.len());
        let mut batch: Vec<(&Case, Vec<Probe>)> = Vec::new();
        let mut size = 0;
        for case in &cases {
            let probes = match self.port {
                Some(port) => vec![port],
                None => probe::probes(&self.resolved(case, v4), &self.open(case, v4), v4),
            };
            size += probes.len() * 2;
            batch.push((case, probes));
            if size >= BATCH {
                self.ask(&batch, v4, &mut outcomes);
                batch.clear();
                size = 0;
            }
        }
        self.ask(&batch, v4, &mut outcomes);
        (outcomes, cells)
    }

    /// Pairs whose relevant rules are the same are one case.
    fn cases(&self, v4: bool) -> (Vec<Case>, Vec<Option<usize>>) {
        let narrowed: Vec<_> = self.classes.iter().map(|class| self.narrowed(class, v4)).collect();
        let mut known: HashMap<Vec<Token>, usize> = HashMap::new();
        let mut cases = Vec::new();
        let mut cells = Vec::with_capacity(self.classes.len().pow(2));
        let mut tokens = Vec::new();
        for (src, from) in narrowed.iter().enumerate() {
            for (dst, to) in narrowed.iter().enumerate() {
                let (Some(from), Some(to)) = (from, to) else {
                    cells.push(None);
                    continue;
                };
                tokens.clear();
                let rules = self.sign((src, from), (dst, to), v4, &mut tokens);
                let next = cases.len();
                let case = match known.get(&tokens) {
                    Some(case) => *case,
                    None => {
                        known.insert(tokens.clone(), next);
                        cases.push(Case { src, dst, rules });
                        next
                    }
                };
                cells.push(Some(case));
            }
        }
        (cases, cells)
    }

    fn narrowed(&self, class: &Class<'c>, v4: bool) -> Option<Narrowed> {
        let mut narrowed = Narrowed { egress: Vec::new(), ingress: Vec::new() };
        for (view, library) in class.views.iter().zip(self.libraries) {
            let who = address(class, narrowed.egress.len(), v4)?;
            narrowed.egress.push(library.narrowed(&view.egress, v4, true, &who));
            narrowed.ingress.push(library.narrowed(&view.ingress, v4, false, &who));
        }
        Some(narrowed)
    }

    /// What is to be known of a pair, and the rules that could match.
    fn sign(
        &self,
        (src, from): (usize, &Narrowed),
        (dst, to): (usize, &Narrowed),
        v4: bool,
        tokens: &mut Vec<Token>,
    ) -> Vec<Vec<usize>> {
        let mut all = Vec::with_capacity(self.libraries.len());
        for (at, library) in self.libraries.iter().enumerate() {
            let mut rules = Vec::new();
            let of = |class: usize| self.classes.get(class).and_then(|c| address(c, at, v4));
            if let (Some(source), Some(target)) = (of(src), of(dst))
                && let (Some(egress), Some(ingress)) = (from.egress.get(at), to.ingress.get(at))
            {
                let polices = |class: usize| {
                    let view = self.classes.get(class).and_then(|c| c.views.get(at));
                    view.is_some_and(|view| view.endpoint.is_some())
                };
                let begin = |class, other, is_ingress, tokens: &mut Vec<Token>| {
                    tokens.push(Token::from(polices(class)));
                    let open = open(self.classes, (class, other), at, is_ingress, v4);
                    tokens.extend(open.into_iter().map(named_port));
                    tokens.push(END);
                };
                begin(src, dst, false, tokens);
                library.sign(egress, &target, false, tokens, &mut rules);
                tokens.push(END);
                begin(dst, src, true, tokens);
                library.sign(ingress, &source, true, tokens, &mut rules);
                tokens.push(END);
                // Names of ports mean what they mean to these two.
                for rule in rules.iter().filter_map(|rule| library.shape(*rule)) {
                    named(rule.port_sets(true), &source, tokens);
                    named(rule.port_sets(false), &target, tokens);
                }
            }
            all.push(rules);
        }
        all
    }

    fn resolved(&self, case: &Case, v4: bool) -> Vec<Resolved<'c>> {
        let mut resolved = Vec::new();
        for (at, (library, rules)) in self.libraries.iter().zip(&case.rules).enumerate() {
            let of = |class: usize| self.classes.get(class).and_then(|c| address(c, at, v4));
            let (Some(source), Some(target)) = (of(case.src), of(case.dst)) else { continue };
            for shape in rules.iter().filter_map(|rule| library.shape(*rule)) {
                let ports = |who: &Address<'_>, src: bool| {
                    let own = who.ports.iter().filter(|(of, ..)| shape.port_sets(src).contains(of));
                    own.map(|(_, protocol, port)| (*protocol, *port)).collect()
                };
                let (src, dst) = (ports(&source, true), ports(&target, false));
                resolved.push(Resolved { rule: shape.rule, src, dst });
            }
        }
        resolved
    }

    /// The ports that one of the two leaves open in any of the clusters.
    fn open(&self, case: &Case, v4: bool) -> Vec<OpenPort> {
        let ends = [((case.src, case.dst), false), ((case.dst, case.src), true)];
        let all = (0..self.libraries.len()).flat_map(|at| {
            ends.into_iter()
                .flat_map(move |(pair, ingress)| open(self.classes, pair, at, ingress, v4))
        });
        all.collect()
    }

    /// Asks the juries about cases, and appends their outcomes.
    fn ask(&mut self, batch: &[(&Case, Vec<Probe>)], v4: bool, outcomes: &mut Vec<Outcome>) {
        let mut said: Vec<Vec<Said>> = Vec::new();
        for (at, jury) in self.juries.iter_mut().enumerate() {
            let mut questions = Vec::new();
            for (case, probes) in batch {
                questions.extend(asked(self.classes, (case.src, case.dst), at, probes, v4));
            }
            let flat: Vec<_> = questions.iter().filter_map(Asked::question).collect();
            let mut answers = jury.decide(&flat).into_iter();
            let pairs = questions.chunks(2).map(|pair| match pair {
                [egress, ingress] => {
                    let egress = egress.side(&mut answers);
                    Said::new(egress, ingress.side(&mut answers))
                }
                _ => Said::new(Side::NONE, Side::NONE),
            });
            said.push(pairs.collect());
        }
        let mut from = 0;
        for (_, probes) in batch {
            let of_case: Vec<&[Said]> = said
                .iter()
                .map(|said| said.get(from..from + probes.len()).unwrap_or_default())
                .collect();
            outcomes.push(outcome(probes, &of_case));
            from += probes.len();
        }
    }
}

/// A class as a cluster's rules see it.
fn address<'a>(class: &'a Class<'_>, cluster: usize, v4: bool) -> Option<Address<'a>> {
    let end = class.views.get(cluster)?.ends.get(usize::from(!v4))?.as_ref()?;
    Some(Address { marks: &end.marks, ports: &end.ports })
}

fn named(sets: &[Token], who: &Address<'_>, tokens: &mut Vec<Token>) {
    if sets.is_empty() {
        return;
    }
    for (set, protocol, port) in who.ports.iter().filter(|(set, ..)| sets.contains(set)) {
        tokens.extend([*set, named_port((*protocol, *port))]);
    }
    tokens.push(END);
}

fn named_port((protocol, port): OpenPort) -> Token {
    u32::from(protocol) << 16 | u32::from(port)
}

/// Probes of which all clusters say the same are one part.
fn outcome(probes: &[Probe], said: &[&[Said]]) -> Outcome {
    let mut parts: Vec<(Vec<Said>, Vec<usize>)> = Vec::new();
    for at in 0..probes.len() {
        let here: Vec<Said> = said.iter().filter_map(|said| said.get(at)).cloned().collect();
        match parts.iter_mut().find(|(known, _)| *known == here) {
            Some((_, places)) => places.push(at),
            None => parts.push((here, vec![at])),
        }
    }
    // What is named comes first, then all the rest.
    let is_rest = |at: &usize| probes.get(*at).is_some_and(|probe| probe.rest);
    parts.sort_by_key(|(_, places)| places.iter().any(is_rest));
    let part = |(said, places): (Vec<Said>, Vec<usize>)| Part {
        what: probe::words(&places, probes),
        said,
    };
    Outcome { parts: parts.into_iter().map(part).collect() }
}
