//! A selector with what the index wants to know of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use margay_resources::selector::{Anchor, Expression as Tree, Selector};

use super::Labels;

/// A selector over the labels of items, identified by its canonical text. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Expression(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    selector: Selector,
    text: Arc<str>,
    mentions: Vec<Arc<str>>,
    choices: Vec<Vec<Anchor>>,
}

// === impl Expression ===

impl From<Selector> for Expression {
    fn from(selector: Selector) -> Self {
        let text = selector.to_string().into();
        let mut mentions = BTreeSet::new();
        mention(selector.expression(), &mut mentions);
        let choices = match selector.expression() {
            Tree::And(terms) => terms.iter().filter_map(alternatives).collect(),
            other => alternatives(other).into_iter().collect(),
        };
        let mentions = mentions.into_iter().collect();
        Self(Arc::new(Inner { selector, text, mentions, choices }))
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Expression {}

impl Expression {
    /// The canonical text.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0.text
    }

    /// The tree.
    pub(crate) fn tree(&self) -> &Tree {
        self.0.selector.expression()
    }

    /// Whether the labels satisfy it.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.selector.matches(labels)
    }

    /// The keys of all labels that its verdict depends on.
    pub(crate) fn mentions(&self) -> &[Arc<str>] {
        &self.0.mentions
    }

    /// Lists of anchors; whatever it matches fulfils at least one anchor of *each* list, so that
    /// the index may file it under any one list. None: everything has to be tried.
    pub(crate) fn choices(&self) -> &[Vec<Anchor>] {
        &self.0.choices
    }
}

/// Anchors of which everything that a term matches fulfils one. Unlike [`Selector::anchors`] each
/// term of a conjunction is asked for its own, since the index knows best which are rare.
fn alternatives(term: &Tree) -> Option<Vec<Anchor>> {
    match term {
        Tree::Eq(key, value) => Some(vec![Anchor::Value(key.clone(), value.clone())]),
        Tree::In(key, values) => {
            Some(values.iter().map(|v| Anchor::Value(key.clone(), v.clone())).collect())
        }
        Tree::Has(key)
        | Tree::Contains(key, _)
        | Tree::StartsWith(key, _)
        | Tree::EndsWith(key, _) => Some(vec![Anchor::Present(key.clone())]),
        Tree::And(terms) => terms.iter().filter_map(alternatives).min_by_key(Vec::len),
        Tree::Or(terms) => {
            let each: Option<Vec<_>> = terms.iter().map(alternatives).collect();
            Some(each?.concat())
        }
        Tree::All | Tree::Global | Tree::Ne(..) | Tree::NotIn(..) | Tree::Not(_) => None,
    }
}

fn mention(term: &Tree, keys: &mut BTreeSet<Arc<str>>) {
    match term {
        Tree::All | Tree::Global => {}
        Tree::Has(key)
        | Tree::Eq(key, _)
        | Tree::Ne(key, _)
        | Tree::In(key, _)
        | Tree::NotIn(key, _)
        | Tree::Contains(key, _)
        | Tree::StartsWith(key, _)
        | Tree::EndsWith(key, _) => {
            keys.insert(key.clone());
        }
        Tree::Not(inner) => mention(inner, keys),
        Tree::And(terms) | Tree::Or(terms) => terms.iter().for_each(|t| mention(t, keys)),
    }
}
