//! Every object that Margay reads, typed: parsing, defaults, validation and selectors.

pub mod selector;
