//! Which items a selector matches, kept up to date under changes of either side.
//!
//! Every selector is *anchored* at one condition that each of its matches must fulfil (`app ==
//! 'web'`, `has(role)`), where it has such a condition. An item is only ever compared with the
//! selectors anchored at labels that it bears, and a changed label only with those that mention
//! it. Of the two ways to enumerate these (by the item's labels, by the changed key) the shorter
//! one is walked, so a change costs in proportion to what it can touch.
//!
//! A new selector is compared with no item: its matches follow by set algebra from the sets of
//! items that bear its labels, which are bitmaps.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;

use margay_resources::selector::{
    Anchor, Expression as Tree, NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, ORCHESTRATOR_LABEL,
    SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_LABEL_PREFIX,
};

use super::{Expression, Labels};

/// An item of the index: an endpoint, a network set or a pod; its owner gives out the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemId(pub(crate) u32);

/// A selector of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SelectorId(u32);

/// A selector began or ceased to match an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) selector: SelectorId,
    pub(crate) item: ItemId,
    pub(crate) matches: bool,
}

#[derive(Debug)]
struct Selector {
    expression: Expression,
    /// The anchors it is filed under; `None` for a selector without.
    anchors: Option<Vec<Anchor>>,
    /// Items.
    matches: RoaringBitmap,
    users: u32,
}

#[derive(Debug, Default)]
struct Item {
    labels: Labels,
    /// Selectors.
    matches: RoaringBitmap,
}

/// Numbers of items or of selectors by label: those that bear the key at all, and those by value.
#[derive(Debug, Default)]
struct ByLabel {
    keys: HashMap<Arc<str>, Values>,
}

#[derive(Debug, Default)]
struct Values {
    any: RoaringBitmap,
    values: HashMap<Arc<str>, RoaringBitmap>,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    items: HashMap<ItemId, Item>,
    all_items: RoaringBitmap,
    items_by_label: ByLabel,
    selectors: HashMap<SelectorId, Selector>,
    by_text: HashMap<Arc<str>, SelectorId>,
    /// Selectors by their anchor; those anchored at a bare key are in `any` of it.
    anchored: ByLabel,
    everything: HashSet<SelectorId>,
    mentions: HashMap<Arc<str>, HashSet<SelectorId>>,
    next: u32,
    evaluated: u64,
}

// === impl ByLabel ===

impl ByLabel {
    fn any(&mut self, key: &Arc<str>) -> &mut RoaringBitmap {
        &mut self.keys.entry(key.clone()).or_default().any
    }

    fn value(&mut self, key: &Arc<str>, value: &Arc<str>) -> &mut RoaringBitmap {
        let values = &mut self.keys.entry(key.clone()).or_default().values;
        values.entry(value.clone()).or_default()
    }

    fn remove_any(&mut self, key: &str, id: u32) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.any.remove(id);
            self.shrink(key);
        }
    }

    fn remove_value(&mut self, key: &str, value: &str, id: u32) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        if let Some(ids) = entry.values.get_mut(value) {
            ids.remove(id);
            if ids.is_empty() {
                entry.values.remove(value);
            }
        }
        self.shrink(key);
    }

    fn shrink(&mut self, key: &str) {
        if self.keys.get(key).is_some_and(|e| e.any.is_empty() && e.values.is_empty()) {
            self.keys.remove(key);
        }
    }

    fn with_key(&self, key: &str) -> Option<&RoaringBitmap> {
        self.keys.get(key).map(|entry| &entry.any)
    }

    fn with_value(&self, key: &str, value: &str) -> Option<&RoaringBitmap> {
        self.keys.get(key)?.values.get(value)
    }

    /// Those whose value of the key is such.
    fn with_values(&self, key: &str, is_such: impl Fn(&str) -> bool) -> RoaringBitmap {
        let values = self.keys.get(key).into_iter().flat_map(|entry| &entry.values);
        values
            .filter(|(value, _)| is_such(value))
            .fold(RoaringBitmap::new(), |all, (_, ids)| all | ids)
    }

    fn count_key(&self, key: &str) -> u64 {
        self.with_key(key).map_or(0, RoaringBitmap::len)
    }

    fn count_value(&self, key: &str, value: &str) -> u64 {
        self.with_value(key, value).map_or(0, RoaringBitmap::len)
    }
}

// === impl LabelIndex ===

impl LabelIndex {
    /// Selectors compared with items since the start.
    pub(crate) fn evaluated(&self) -> u64 {
        self.evaluated
    }

    /// The labels of an item.
    pub(crate) fn labels(&self, item: ItemId) -> Option<&Labels> {
        self.items.get(&item).map(|item| &item.labels)
    }

    /// The items that a selector matches, in no order.
    pub(crate) fn items_of(&self, selector: SelectorId) -> impl Iterator<Item = ItemId> + '_ {
        self.selectors.get(&selector).into_iter().flat_map(|s| s.matches.iter().map(ItemId))
    }

    /// The selectors that match an item, in order.
    pub(crate) fn selectors_of(&self, item: ItemId) -> impl Iterator<Item = SelectorId> + '_ {
        self.items.get(&item).into_iter().flat_map(|i| i.matches.iter().map(SelectorId))
    }

    /// Adds a user of a selector; selectors of equal text are one. Tells the id and whether the
    /// selector is new; the matches of a new one are in [`Self::items_of`], not events.
    pub(crate) fn acquire(&mut self, expression: &Expression) -> (SelectorId, bool) {
        if let Some(&id) = self.by_text.get(expression.text()) {
            if let Some(selector) = self.selectors.get_mut(&id) {
                selector.users += 1;
            }
            return (id, false);
        }
        let id = SelectorId(self.next);
        self.next = self.next.wrapping_add(1);
        let anchors = self.choose_anchors(expression);
        self.enter(id, expression, anchors.as_deref());
        let matches = self.select(expression.tree(), &self.all_items);
        for item in &matches {
            if let Some(item) = self.items.get_mut(&ItemId(item)) {
                item.matches.insert(id.0);
            }
        }
        let expression = expression.clone();
        self.by_text.insert(expression.text().clone(), id);
        self.selectors.insert(id, Selector { expression, anchors, matches, users: 1 });
        (id, true)
    }

    /// Removes a user of a selector; with its last user the selector goes, without events.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(selector) = self.selectors.get_mut(&id) else { return };
        selector.users -= 1;
        if selector.users > 0 {
            return;
        }
        let Some(selector) = self.selectors.remove(&id) else { return };
        self.by_text.remove(selector.expression.text());
        self.leave(id, &selector);
        for item in &selector.matches {
            if let Some(item) = self.items.get_mut(&ItemId(item)) {
                item.matches.remove(id.0);
            }
        }
    }

    /// Adds an item or gives it new labels.
    pub(crate) fn set_item(&mut self, id: ItemId, labels: Labels, events: &mut Vec<Event>) {
        let (old, fresh) = match self.items.get(&id) {
            Some(item) if item.labels == labels => return,
            Some(item) => (item.labels.clone(), false),
            None => (Labels::default(), true),
        };
        self.relabel(id, &old, &labels);
        let candidates = self.candidates(&old, &labels, fresh);
        let mut item = self.items.remove(&id).unwrap_or_default();
        for selector_id in candidates {
            let Some(selector) = self.selectors.get_mut(&selector_id) else { continue };
            self.evaluated += 1;
            let matches = selector.expression.matches(&labels);
            let changed = if matches {
                selector.matches.insert(id.0);
                item.matches.insert(selector_id.0)
            } else {
                selector.matches.remove(id.0);
                item.matches.remove(selector_id.0)
            };
            if changed {
                events.push(Event { selector: selector_id, item: id, matches });
            }
        }
        item.labels = labels;
        self.items.insert(id, item);
        self.all_items.insert(id.0);
    }

    /// Removes an item.
    pub(crate) fn remove_item(&mut self, id: ItemId, events: &mut Vec<Event>) {
        let Some(item) = self.items.get(&id) else { return };
        let labels = item.labels.clone();
        self.relabel(id, &labels, &Labels::default());
        let Some(item) = self.items.remove(&id) else { return };
        self.all_items.remove(id.0);
        for selector_id in item.matches.into_iter().map(SelectorId) {
            if let Some(selector) = self.selectors.get_mut(&selector_id) {
                selector.matches.remove(id.0);
            }
            events.push(Event { selector: selector_id, item: id, matches: false });
        }
    }

    /// Of a selector's choices the one that the fewest items and selectors share now. Labels that
    /// every pod bears (the orchestrator's, the namespace's) come last, as they separate worst
    /// whatever is there at the moment.
    fn choose_anchors(&self, expression: &Expression) -> Option<Vec<Anchor>> {
        let cost = |anchors: &&Vec<Anchor>| {
            let breadth = anchors.iter().map(breadth).max().unwrap_or(0);
            let count = |a: &Anchor| match a {
                Anchor::Present(key) => {
                    self.items_by_label.count_key(key) + self.anchored.count_key(key)
                }
                Anchor::Value(key, value) => {
                    self.items_by_label.count_value(key, value)
                        + self.anchored.count_value(key, value)
                }
            };
            (breadth, anchors.iter().map(count).sum::<u64>(), anchors.len())
        };
        expression.choices().iter().min_by_key(cost).cloned()
    }

    fn enter(&mut self, id: SelectorId, expression: &Expression, anchors: Option<&[Anchor]>) {
        match anchors {
            None => {
                self.everything.insert(id);
            }
            Some(anchors) => anchors.iter().for_each(|anchor| match anchor {
                Anchor::Present(key) => {
                    self.anchored.any(key).insert(id.0);
                }
                Anchor::Value(key, value) => {
                    self.anchored.value(key, value).insert(id.0);
                }
            }),
        }
        for key in expression.mentions() {
            self.mentions.entry(key.clone()).or_default().insert(id);
        }
    }

    fn leave(&mut self, id: SelectorId, selector: &Selector) {
        match &selector.anchors {
            None => {
                self.everything.remove(&id);
            }
            Some(anchors) => anchors.iter().for_each(|anchor| match anchor {
                Anchor::Present(key) => self.anchored.remove_any(key, id.0),
                Anchor::Value(key, value) => self.anchored.remove_value(key, value, id.0),
            }),
        }
        for key in selector.expression.mentions() {
            if let Some(ids) = self.mentions.get_mut(key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.mentions.remove(key);
                }
            }
        }
    }

    /// The items among some that a condition matches.
    fn select(&self, condition: &Tree, among: &RoaringBitmap) -> RoaringBitmap {
        let items = &self.items_by_label;
        let both =
            |found: Option<&RoaringBitmap>| found.map_or_else(RoaringBitmap::new, |f| among & f);
        match condition {
            Tree::All | Tree::Global => among.clone(),
            Tree::Has(key) => both(items.with_key(key)),
            Tree::Eq(key, value) => both(items.with_value(key, value)),
            Tree::Ne(key, value) => match items.with_value(key, value) {
                Some(found) => among - found,
                None => among.clone(),
            },
            Tree::In(key, values) => {
                let found = values.iter().filter_map(|value| items.with_value(key, value));
                found.fold(RoaringBitmap::new(), |all, ids| all | (among & ids))
            }
            Tree::NotIn(key, values) => {
                let found = values.iter().filter_map(|value| items.with_value(key, value));
                found.fold(among.clone(), |rest, ids| rest - ids)
            }
            Tree::Contains(key, part) => items.with_values(key, |v| v.contains(&**part)) & among,
            Tree::StartsWith(key, part) => {
                items.with_values(key, |v| v.starts_with(&**part)) & among
            }
            Tree::EndsWith(key, part) => items.with_values(key, |v| v.ends_with(&**part)) & among,
            Tree::Not(inner) => among - self.select(inner, among),
            Tree::And(terms) => {
                terms.iter().fold(among.clone(), |rest, term| self.select(term, &rest))
            }
            Tree::Or(terms) => {
                terms.iter().fold(RoaringBitmap::new(), |all, term| all | self.select(term, among))
            }
        }
    }

    fn relabel(&mut self, id: ItemId, old: &Labels, new: &Labels) {
        for (key, value) in old.iter().filter(|(k, v)| new.get(k) != Some(v)) {
            self.items_by_label.remove_value(key, value, id.0);
            if new.get(key).is_none() {
                self.items_by_label.remove_any(key, id.0);
            }
        }
        for (key, value) in new.iter().filter(|(k, v)| old.get(k) != Some(v)) {
            self.items_by_label.value(key, value).insert(id.0);
            self.items_by_label.any(key).insert(id.0);
        }
    }

    /// The selectors whose verdict on an item may differ between two sets of labels.
    fn candidates(&self, old: &Labels, new: &Labels, fresh: bool) -> HashSet<SelectorId> {
        if fresh {
            return self.anchored_at(new).chain(self.everything.iter().copied()).collect();
        }
        let changed = changed_keys(old, new);
        let mentioned: usize =
            changed.iter().map(|k| self.mentions.get(*k).map_or(0, HashSet::len)).sum();
        let anchored = self.anchored_count(old) + self.anchored_count(new);
        if mentioned as u64 <= anchored + self.everything.len() as u64 {
            let ids = changed.iter().filter_map(|k| self.mentions.get(*k)).flatten().copied();
            return ids.filter(|id| self.anchor_holds(*id, old, new)).collect();
        }
        let ids = self.anchored_at(old).chain(self.anchored_at(new));
        let ids = ids.chain(self.everything.iter().copied());
        ids.filter(|id| changed.iter().any(|k| self.mentions(*id, k))).collect()
    }

    /// Selectors anchored at one of the labels.
    fn anchored_at<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = SelectorId> + 'a {
        let of = |(k, v): (&Arc<str>, &Arc<str>)| {
            [self.anchored.with_value(k, v), self.anchored.with_key(k)].into_iter().flatten()
        };
        labels.iter().flat_map(of).flatten().map(SelectorId)
    }

    fn anchored_count(&self, labels: &Labels) -> u64 {
        let count = |(k, v): (&Arc<str>, &Arc<str>)| {
            self.anchored.count_value(k, v) + self.anchored.count_key(k)
        };
        labels.iter().map(count).sum()
    }

    fn anchor_holds(&self, id: SelectorId, old: &Labels, new: &Labels) -> bool {
        let Some(selector) = self.selectors.get(&id) else { return false };
        let Some(anchors) = &selector.anchors else { return true };
        let holds = |labels: &Labels, anchor: &Anchor| match anchor {
            Anchor::Present(key) => labels.get(key).is_some(),
            Anchor::Value(key, value) => labels.get(key) == Some(value),
        };
        anchors.iter().any(|a| holds(old, a) || holds(new, a))
    }

    fn mentions(&self, id: SelectorId, key: &str) -> bool {
        self.mentions.get(key).is_some_and(|ids| ids.contains(&id))
    }
}

/// How badly an anchor separates items, by what its label is for.
fn breadth(anchor: &Anchor) -> u8 {
    let (key, bare) = match anchor {
        Anchor::Present(key) => (key, 1),
        Anchor::Value(key, _) => (key, 0),
    };
    let kind = match key.as_ref() {
        ORCHESTRATOR_LABEL => 6,
        NAMESPACE_LABEL | SERVICE_ACCOUNT_LABEL => 2,
        k if k.starts_with(NAMESPACE_LABEL_PREFIX) => 2,
        k if k.starts_with(SERVICE_ACCOUNT_LABEL_PREFIX) => 2,
        _ => 0,
    };
    kind + bare
}

fn changed_keys<'a>(old: &'a Labels, new: &'a Labels) -> Vec<&'a str> {
    let gone = old.iter().filter(|(k, v)| new.get(k) != Some(v));
    let come = new.iter().filter(|(k, _)| old.get(k).is_none());
    gone.chain(come).map(|(k, _)| k.as_ref()).collect()
}
