//! A matrix as one page for a browser, which needs neither network nor server.

use super::report::Report;

const TEMPLATE: &str = include_str!("page.html");
/// Where the data go in the template.
const PLACE: &str = "__DATA__";

/// The page.
pub(super) fn page(report: &Report) -> String {
    // Every field is text, number or list, so this cannot fail.
    let data = serde_json::to_string(report).unwrap_or_else(|_| "null".to_owned());
    // Names of pods and policies are others' words: none of them ends the element that they are in.
    let data =
        data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    TEMPLATE.replacen(PLACE, &data, 1)
}
