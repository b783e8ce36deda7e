//! Where the fields of a document stand.

use std::collections::BTreeMap;

use crate::field::{FieldPath, Step};

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Where a value begins, and where the values inside it do. A member of a map begins at its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it begins.
    pub at: Position,
    /// What is inside.
    pub(super) inside: Inside,
}

/// The places inside a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    Nothing,
    List(Vec<Place>),
    Map(BTreeMap<String, Place>),
}

// === impl Position ===

impl Position {
    /// The beginning of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

// === impl Place ===

impl Place {
    /// A place with nothing inside.
    pub(super) fn new(at: Position) -> Self {
        Self { at, inside: Inside::Nothing }
    }

    /// The place of a field, or of the innermost value around it that there is.
    pub fn locate(&self, field: &FieldPath) -> Position {
        let mut place = self;
        for step in &field.0 {
            match place.child(step) {
                Some(child) => place = child,
                None => break,
            }
        }
        place.at
    }

    /// The place of a member or an element.
    pub(super) fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.inside, step) {
            (Inside::List(places), Step::Index(index)) => places.get(*index),
            (Inside::Map(places), Step::Key(key)) => places.get(key),
            _ => None,
        }
    }
}
