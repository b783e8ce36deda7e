//! From objects to the facts that the compiler works on.
//!
//! Facts hold what matters and nothing else, so that an object that changed in another respect
//! (a status, an annotation) causes no work.

pub(crate) mod endpoint;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod service;
