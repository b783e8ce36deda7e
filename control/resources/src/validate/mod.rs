//! What is wrong with an object beyond the types of its fields.

use crate::field::{Problem, Report};
use crate::resource::Resource;

/// Everything that is wrong with the object.
pub(crate) fn validate(resource: &Resource) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = Report::new(&mut problems);
    if resource.name().is_empty() {
        report.within("metadata", |report| report.wrong_at("name", "is missing"));
    }
    problems
}
