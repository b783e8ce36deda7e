//! The verbs for objects of the datastore: `get`, `apply`, `create`, `replace`, `patch`, `delete`,
//! `label`.
//!
//! - [`name`]: what people call a kind;
//! - [`input`]: objects out of files;
//! - [`columns`]: the columns of each kind's table; [`print`]: objects in every form;
//! - [`get`], [`write`], [`patch`], [`delete`], [`label`]: a verb each;
//! - [`report`]: what a verb did to each object.

mod name;

mod input;

mod columns;
mod print;

mod report;

pub(crate) mod get;
pub(crate) mod write;
pub(crate) mod patch;
pub(crate) mod delete;
pub(crate) mod label;
