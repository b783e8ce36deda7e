//! Labels, selector expressions and the index that joins the two.
//!
//! [`Labels`] are what an item bears, [`Expression`] is a selector with what the index wants to
//! know of it, [`LabelIndex`] tells which selectors match which items, [`Unmet`]
//! why one does not.

mod expression;
mod index;
mod unmet;

use std::sync::Arc;

pub(crate) use expression::Expression;
pub(crate) use index::{Event, ItemId, LabelIndex, SelectorId};
pub use unmet::Unmet;
pub(crate) use unmet::unmet;

/// Labels, ordered by key; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

// === impl Labels ===

impl margay_resources::selector::Labels for Labels {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(AsRef::as_ref)
    }
}

impl Labels {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(k, v)| (k, v))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<str>> {
        // The length lies in the pointer: for a dozen keys this looks at one or two texts, where a
        // binary search looks at four.
        self.0.iter().find(|(k, _)| **k == *key).map(|(_, v)| v)
    }
}

impl FromIterator<(Arc<str>, Arc<str>)> for Labels {
    /// Of several values for one key the first stays.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<str>)>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.dedup_by(|b, a| a.0 == b.0);
        Self(labels.into())
    }
}
