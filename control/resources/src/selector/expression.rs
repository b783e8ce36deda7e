//! The tree of a selector, what it matches, and its canonical text.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::str::FromStr;
use std::sync::Arc;

use super::parse::SelectorError;

/// A parsed selector. Cloning is cheap.
///
/// Two selectors are equal when their expressions are; that equal meanings have equal expressions
/// is not promised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<Expression>);

/// A condition on labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expression {
    /// Always true.
    All,
    /// Objects that belong to no namespace. Labels alone do not tell that, so it is true of every
    /// set of labels; [`Selector::of_namespaces`] replaces it.
    Global,
    /// The label exists.
    Has(Arc<str>),
    /// The label has this value.
    Eq(Arc<str>, Arc<str>),
    /// The label has another value or does not exist.
    Ne(Arc<str>, Arc<str>),
    /// The label has one of these values, which are sorted and distinct.
    In(Arc<str>, Vec<Arc<str>>),
    /// The label has none of these values, which are sorted and distinct, or does not exist.
    NotIn(Arc<str>, Vec<Arc<str>>),
    /// The label's value contains this text.
    Contains(Arc<str>, Arc<str>),
    /// The label's value starts with this text.
    StartsWith(Arc<str>, Arc<str>),
    /// The label's value ends with this text.
    EndsWith(Arc<str>, Arc<str>),
    /// The condition does not hold.
    Not(Box<Expression>),
    /// All of the conditions hold.
    And(Vec<Expression>),
    /// One of the conditions holds.
    Or(Vec<Expression>),
}

/// Something with labels.
pub trait Labels {
    /// The value of a label.
    fn label(&self, name: &str) -> Option<&str>;
}

// === impl Labels ===

impl<T: Labels + ?Sized> Labels for &T {
    fn label(&self, name: &str) -> Option<&str> {
        (**self).label(name)
    }
}

impl<T: Labels> Labels for Option<T> {
    fn label(&self, name: &str) -> Option<&str> {
        self.as_ref()?.label(name)
    }
}

impl<K: Borrow<str> + Ord, V: AsRef<str>> Labels for BTreeMap<K, V> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(AsRef::as_ref)
    }
}

impl<K: Borrow<str> + Hash + Eq, V: AsRef<str>, S: BuildHasher> Labels for HashMap<K, V, S> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(AsRef::as_ref)
    }
}

/// For small constant sets; of several entries with one name the first counts.
impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn label(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| key.as_ref() == name).map(|(_, value)| value.as_ref())
    }
}

// === impl Selector ===

impl Selector {
    pub(super) fn new(expression: Expression) -> Self {
        Self(Arc::new(expression))
    }

    /// `all()`.
    pub fn all() -> Self {
        Self::new(Expression::All)
    }

    /// `has(label)`.
    pub fn has(label: &str) -> Self {
        Self::new(Expression::Has(label.into()))
    }

    /// `label == 'value'`.
    pub fn equals(label: &str, value: &str) -> Self {
        Self::new(Expression::Eq(label.into(), value.into()))
    }

    /// `label in {values}`.
    pub fn one_of<'a>(label: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Expression::In(label.into(), set_of(values)))
    }

    /// `label not in {values}`.
    pub fn none_of<'a>(label: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Expression::NotIn(label.into(), set_of(values)))
    }

    /// Both hold. `all()` disappears, and conjunctions are joined into one.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut terms = Vec::new();
        for side in [self, other] {
            match side.expression() {
                Expression::All => {}
                Expression::And(inner) => terms.extend_from_slice(inner),
                other => terms.push(other.clone()),
            }
        }
        match terms.len() {
            0 => Self::all(),
            1 => Self::new(terms.remove(0)),
            _ => Self::new(Expression::And(terms)),
        }
    }

    /// It does not hold; a double negation disappears.
    #[must_use]
    pub fn negated(&self) -> Self {
        match self.expression() {
            Expression::Not(inner) => Self::new((**inner).clone()),
            other => Self::new(Expression::Not(Box::new(other.clone()))),
        }
    }

    /// The tree.
    pub fn expression(&self) -> &Expression {
        &self.0
    }

    /// Whether the selector is `all()`, literally.
    pub fn is_all(&self) -> bool {
        *self.0 == Expression::All
    }

    /// Whether `labels` satisfy the selector.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.0.matches(labels)
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// The canonical text, which parses to an equal selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

// === impl Expression ===

impl Expression {
    /// Whether `labels` satisfy the condition.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let among = |label: &str, values: &[Arc<str>]| {
            (labels.label(label)).is_some_and(|v| values.binary_search_by(|x| (**x).cmp(v)).is_ok())
        };
        match self {
            Self::All | Self::Global => true,
            Self::Has(l) => labels.label(l).is_some(),
            Self::Eq(l, value) => labels.label(l) == Some(value),
            Self::Ne(l, value) => labels.label(l) != Some(value),
            Self::In(l, values) => among(l, values),
            Self::NotIn(l, values) => !among(l, values),
            Self::Contains(l, part) => labels.label(l).is_some_and(|v| v.contains(&**part)),
            Self::StartsWith(l, part) => labels.label(l).is_some_and(|v| v.starts_with(&**part)),
            Self::EndsWith(l, part) => labels.label(l).is_some_and(|v| v.ends_with(&**part)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(terms) => terms.iter().all(|t| t.matches(labels)),
            Self::Or(terms) => terms.iter().any(|t| t.matches(labels)),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(l) => write!(f, "has({l})"),
            Self::Eq(l, value) => write!(f, "{l} == {}", Quoted(value)),
            Self::Ne(l, value) => write!(f, "{l} != {}", Quoted(value)),
            Self::In(l, values) => write!(f, "{l} in {}", Set(values)),
            Self::NotIn(l, values) => write!(f, "{l} not in {}", Set(values)),
            Self::Contains(l, part) => write!(f, "{l} contains {}", Quoted(part)),
            Self::StartsWith(l, part) => write!(f, "{l} starts with {}", Quoted(part)),
            Self::EndsWith(l, part) => write!(f, "{l} ends with {}", Quoted(part)),
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::And(terms) => write_joined(f, terms, " && "),
            Self::Or(terms) => write_joined(f, terms, " || "),
        }
    }
}

/// The values of a set literal, sorted and distinct.
pub(super) fn set_of<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Arc<str>> {
    let mut values: Vec<Arc<str>> = values.into_iter().map(Into::into).collect();
    values.sort();
    values.dedup();
    values
}

fn write_joined(f: &mut fmt::Formatter<'_>, terms: &[Expression], sign: &str) -> fmt::Result {
    for (i, term) in terms.iter().enumerate() {
        write!(f, "{}{term}", if i == 0 { "(" } else { sign })?;
    }
    f.write_str(")")
}

/// A text in the quotes that it does not contain. A text out of a selector contains at most one
/// kind, as there are no escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

/// A set literal.
struct Set<'a>(&'a [Arc<str>]);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}
