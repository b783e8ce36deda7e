//! What an index of labels can look up.

use std::sync::Arc;

use super::expression::{Expression, Selector};

/// A condition that an index of labels answers without scanning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anchor {
    /// The label exists.
    Present(Arc<str>),
    /// The label has this value.
    Value(Arc<str>, Arc<str>),
}

// === impl Selector ===

impl Selector {
    /// Anchors of which everything that the selector matches satisfies at least one, or `None`
    /// when there are no such anchors and every object has to be tried. No anchors at all means
    /// that nothing matches.
    ///
    /// An index keeps each selector under its anchors. When an object changes, only the selectors
    /// under its labels and under `None` can match it; when a selector changes, only the objects
    /// under its anchors. The anchors are sorted and distinct.
    pub fn anchors(&self) -> Option<Vec<Anchor>> {
        let mut anchors = of(self.expression(), true)?;
        anchors.sort();
        anchors.dedup();
        Some(anchors)
    }
}

/// The anchors of an expression, or of its negation.
fn of(expression: &Expression, positive: bool) -> Option<Vec<Anchor>> {
    use Expression as E;
    let value = |l: &Arc<str>, v: &Arc<str>| Anchor::Value(l.clone(), v.clone());
    match (expression, positive) {
        (E::Has(l), true) | (E::Contains(l, _) | E::StartsWith(l, _) | E::EndsWith(l, _), true) => {
            Some(vec![Anchor::Present(l.clone())])
        }
        (E::Eq(l, v), true) | (E::Ne(l, v), false) => Some(vec![value(l, v)]),
        (E::In(l, vs), true) | (E::NotIn(l, vs), false) => {
            Some(vs.iter().map(|v| value(l, v)).collect())
        }
        (E::All | E::Global, false) => Some(Vec::new()),
        (E::Not(inner), _) => of(inner, !positive),
        // Of a conjunction the most selective term will do; of a disjunction all are needed.
        (E::And(terms), true) | (E::Or(terms), false) => {
            terms.iter().filter_map(|t| of(t, positive)).min_by_key(|anchors| cost(anchors))
        }
        (E::Or(terms), true) | (E::And(terms), false) => {
            let each: Option<Vec<_>> = terms.iter().map(|t| of(t, positive)).collect();
            Some(each?.concat())
        }
        _ => None,
    }
}

/// How many objects the anchors may select, as a guess: a value is much rarer than a label, and
/// the labels that every pod carries are the commonest of all.
fn cost(anchors: &[Anchor]) -> usize {
    let each = |anchor: &Anchor| match anchor {
        Anchor::Value(label, _) if &**label == super::ORCHESTRATOR_LABEL => 100_000,
        Anchor::Value(label, _) if &**label == super::NAMESPACE_LABEL => 10,
        Anchor::Value(..) => 1,
        Anchor::Present(label) if &**label == super::NAMESPACE_LABEL => 100_000,
        Anchor::Present(_) => 100,
    };
    anchors.iter().map(each).sum()
}
