//! The rules of endpoints, and what they say about the addresses of a pair.
//!
//! A rule's conditions on addresses are answered by marks; what is left, its conditions on
//! protocols and ports, is what the rule's number stands for.

use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{
    Action, DefaultAction, Endpoint, EntityMatch, IpVersion, PolicyKey, Rule, SetId, State,
};

use super::atlas::{Atlas, Mark, Marks, PortMark};

/// A number in a signature.
pub(super) type Token = u32;

/// Stands for the end of a part of a signature.
pub(super) const END: Token = Token::MAX;
/// Stands for the end of a tier or profile.
const END_OF_SPAN: Token = Token::MAX - 1;

/// What is known at the end of a tier or profile.
enum Outlook {
    /// A rule without further conditions decides.
    Decided,
    /// A rule without further conditions ends it, and something has passed on.
    Passed,
    /// It depends on protocol and ports.
    Open { may_pass: bool },
}

/// One end of a rule.
#[derive(Debug, Default)]
struct EndShape {
    /// The address has to be in one of these; empty for any.
    one_of: Vec<Mark>,
    /// The address has to be in all of these.
    all_of: Vec<Mark>,
    /// The address must be in none of these.
    none_of: Vec<Mark>,
    /// A port of the address has to be in all of these.
    port_of: Vec<Mark>,
    /// The sets that its conditions on ports name.
    ports: Vec<Mark>,
    /// A set or network that nobody knows has no members.
    never: bool,
}

/// A rule.
#[derive(Debug)]
pub(super) struct Shape<'c> {
    pub(super) rule: &'c Rule,
    token: Token,
    src: EndShape,
    dst: EndShape,
    /// Nothing but addresses is asked.
    bare: bool,
}

/// A tier, or one profile.
#[derive(Debug)]
pub(super) struct Span {
    /// What stands for its end, if that decides.
    end: Option<Token>,
    shapes: Vec<usize>,
}

/// The rules of one direction, in order.
pub(super) type List = Vec<Span>;

/// What a token stands for: the policy, whether that is about ingress, and the rule, or the end of a
/// tier.
type Meaning<'c> = (Arc<str>, bool, u32, Option<&'c Rule>);

/// All rules of a cluster.
pub(super) struct Library<'c> {
    atlas: Atlas,
    state: &'c State,
    shapes: Vec<Shape<'c>>,
    by_token: HashMap<Token, usize>,
    policies: HashMap<(PolicyKey, bool), Vec<usize>>,
    tokens: HashMap<Meaning<'c>, Token>,
}

/// Whom rules are asked about at an end.
pub(super) struct Address<'a> {
    pub(super) marks: &'a Marks,
    pub(super) ports: &'a [PortMark],
}

fn asks_no_port(end: &EntityMatch) -> bool {
    end.ports.is_empty()
        && end.not_ports.is_empty()
        && end.named_ports.is_empty()
        && end.not_named_ports.is_empty()
        && end.addr_port_sets.is_empty()
}

/// The name of a policy, with all profiles of namespaces and service accounts as one: they differ
/// in their labels.
pub(super) fn generic(key: &PolicyKey) -> Arc<str> {
    for kind in ["Profile//kns.", "Profile//ksa."] {
        if key.starts_with(kind) {
            return format!("{kind}*").into();
        }
    }
    key.clone()
}

// === impl Library ===

impl<'c> Library<'c> {
    /// The rules of a state; `nets` are told apart even where no rule names them.
    pub(super) fn new(state: &'c State, nets: impl Iterator<Item = IpNet>) -> Self {
        let atlas = Atlas::new(state, nets);
        Self {
            atlas,
            state,
            shapes: Vec::new(),
            by_token: HashMap::new(),
            policies: HashMap::new(),
            tokens: HashMap::new(),
        }
    }

    /// Which sets and networks an address is in.
    pub(super) fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    /// The state that the rules are of.
    pub(super) fn state(&self) -> &'c State {
        self.state
    }

    /// A rule by its place here.
    pub(super) fn shape(&self, at: usize) -> Option<&Shape<'c>> {
        self.shapes.get(at)
    }

    /// The rules of an endpoint for a direction.
    pub(super) fn list(&mut self, endpoint: &'c Endpoint, ingress: bool) -> List {
        let mut list = Vec::new();
        for tier in endpoint.tiers.iter() {
            let policies = if ingress { &tier.ingress } else { &tier.egress };
            if policies.is_empty() {
                continue;
            }
            let shapes = policies.iter().flat_map(|key| self.policy(key, ingress)).collect();
            let missing = policies.iter().find(|key| !self.state.policies.contains_key(*key));
            let denies = tier.default_action == DefaultAction::Deny;
            let end = missing.or(denies.then_some(&tier.name)).cloned();
            let end = end.map(|name| self.token(name, ingress, u32::MAX, None));
            list.push(Span { end, shapes });
        }
        for profile in endpoint.profiles.iter() {
            list.push(Span { end: None, shapes: self.policy(profile, ingress) });
        }
        list
    }

    /// The rules of a policy that decide something.
    fn policy(&mut self, key: &PolicyKey, ingress: bool) -> Vec<usize> {
        if let Some(known) = self.policies.get(&(key.clone(), ingress)) {
            return known.clone();
        }
        let Some(policy) = self.state.policies.get(key) else { return Vec::new() };
        let rules = if ingress { &policy.ingress } else { &policy.egress };
        let rules = (0..).zip(rules).filter(|(_, rule)| rule.action != Action::Log);
        let name = generic(key);
        let shapes: Vec<_> =
            rules.map(|(index, rule)| self.enter(name.clone(), ingress, index, rule)).collect();
        self.policies.insert((key.clone(), ingress), shapes.clone());
        shapes
    }

    fn enter(&mut self, name: Arc<str>, ingress: bool, index: u32, rule: &'c Rule) -> usize {
        let token = self.token(name, ingress, index, Some(rule));
        if let Some(at) = self.by_token.get(&token) {
            return *at;
        }
        let bare = rule.protocol.is_none()
            && rule.not_protocol.is_none()
            && rule.icmp.is_none()
            && rule.not_icmp.is_none()
            && [&rule.src, &rule.dst].into_iter().all(asks_no_port);
        let (src, dst) = (self.end(&rule.src), self.end(&rule.dst));
        let at = self.shapes.len();
        self.shapes.push(Shape { rule, token, src, dst, bare });
        self.by_token.insert(token, at);
        at
    }

    fn token(
        &mut self,
        name: Arc<str>,
        ingress: bool,
        index: u32,
        rule: Option<&'c Rule>,
    ) -> Token {
        let next = self.tokens.len() as Token;
        *self.tokens.entry((name, ingress, index, rule)).or_insert(next)
    }

    fn end(&self, entity: &EntityMatch) -> EndShape {
        let mut end = EndShape::default();
        let sets = |ids: &[SetId]| -> Vec<Mark> {
            ids.iter().filter_map(|id| self.atlas.set(id)).collect()
        };
        let nets = |nets: &[ipnet::IpNet]| -> Vec<Mark> {
            nets.iter().filter_map(|net| self.atlas.net(net)).collect()
        };
        end.one_of = nets(&entity.nets);
        end.all_of = sets(&entity.sets);
        end.none_of = [nets(&entity.not_nets), sets(&entity.not_sets)].concat();
        end.port_of = sets(&entity.addr_port_sets);
        let ports = [&entity.named_ports, &entity.not_named_ports, &entity.addr_port_sets];
        end.ports = ports.into_iter().flat_map(|ids| sets(ids)).collect();
        end.never =
            end.all_of.len() < entity.sets.len() || end.port_of.len() < entity.addr_port_sets.len();
        end
    }

    /// Leaves of a list what could match with this end.
    pub(super) fn narrowed(&self, list: &List, v4: bool, src: bool, who: &Address<'_>) -> List {
        let fits = |at: &usize| {
            self.shape(*at).is_some_and(|shape| {
                let end = if src { &shape.src } else { &shape.dst };
                shape.is_of_family(v4) && end.admits(who)
            })
        };
        let spans = list.iter().map(|span| {
            let shapes = span.shapes.iter().copied().filter(fits).collect();
            Span { end: span.end, shapes }
        });
        spans.collect()
    }

    /// Appends what a list that was narrowed to one end says about the other end: the numbers of
    /// the rules that could match, and where the list ends. The rules go to `rules` as well.
    pub(super) fn sign(
        &self,
        list: &List,
        other: &Address<'_>,
        other_is_src: bool,
        tokens: &mut Vec<Token>,
        rules: &mut Vec<usize>,
    ) {
        for span in list {
            match self.sign_span(span, other, other_is_src, tokens, rules) {
                Outlook::Decided => return,
                Outlook::Passed => {}
                Outlook::Open { may_pass } => {
                    tokens.extend(span.end);
                    if span.end.is_some() && !may_pass {
                        return;
                    }
                }
            }
            tokens.push(END_OF_SPAN);
        }
    }

    fn sign_span(
        &self,
        span: &Span,
        other: &Address<'_>,
        other_is_src: bool,
        tokens: &mut Vec<Token>,
        rules: &mut Vec<usize>,
    ) -> Outlook {
        let mut may_pass = false;
        for at in &span.shapes {
            let Some(shape) = self.shape(*at) else { continue };
            let end = if other_is_src { &shape.src } else { &shape.dst };
            if !end.admits(other) {
                continue;
            }
            tokens.push(shape.token);
            rules.push(*at);
            match shape.rule.action {
                Action::Pass if shape.bare => return Outlook::Passed,
                Action::Pass => may_pass = true,
                _ if shape.bare && may_pass => return Outlook::Passed,
                _ if shape.bare => return Outlook::Decided,
                _ => {}
            }
        }
        Outlook::Open { may_pass }
    }
}

// === impl Shape ===

impl Shape<'_> {
    fn is_of_family(&self, v4: bool) -> bool {
        self.rule.ip_version.is_none_or(|version| (version == IpVersion::V4) == v4)
    }

    /// The sets that its conditions on ports name, of the source or of the destination.
    pub(super) fn port_sets(&self, src: bool) -> &[Mark] {
        if src { &self.src.ports } else { &self.dst.ports }
    }
}

// === impl EndShape ===

impl EndShape {
    fn admits(&self, who: &Address<'_>) -> bool {
        !self.never
            && (self.one_of.is_empty() || self.one_of.iter().any(|mark| who.marks.has(*mark)))
            && self.all_of.iter().all(|mark| who.marks.has(*mark))
            && !self.none_of.iter().any(|mark| who.marks.has(*mark))
            && self.port_of.iter().all(|mark| who.ports.iter().any(|(of, ..)| of == mark))
    }
}
