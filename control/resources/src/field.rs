//! Where in an object something is, and what is wrong there.

use std::borrow::Cow;
use std::fmt;

/// The longest word of a message. Names have at most 253 characters, selectors 1024.
const LONGEST_WORD: usize = 1100;
/// What is left of a longer one.
const CUT_TO: usize = 60;

/// A step into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A member of a map.
    Key(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// The path of a field, e.g. `spec.ingress[0].source.ports[1]`; empty for the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(pub Vec<Step>);

/// Something that is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", .field, if .field.0.is_empty() { "" } else { ": " })]
pub struct Problem {
    /// Which field.
    pub field: FieldPath,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// An object that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {}", .kind, readable(.name.trim_start_matches('/')), join(.problems))]
pub struct ResourceError {
    /// Kind as the document writes it; empty if it is missing.
    pub kind: String,
    /// `NAMESPACE/NAME`; the namespace is empty for what has none, the name if it is missing.
    pub name: String,
    /// Everything that was found; never empty.
    pub problems: Vec<Problem>,
}

/// Collects problems on the way through an object: the path so far, and what was found.
pub(crate) struct Report<'a> {
    steps: Vec<Step>,
    problems: &'a mut Vec<Problem>,
}

// === impl FieldPath ===

impl FieldPath {
    /// The path of a member of a member of …
    pub fn of_keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|&key| Step::Key(key.to_owned())).collect())
    }
}

/// Names that are no plain words stand in brackets and quotes.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_plain(key) => {
                    write!(f, "{}{}", if i == 0 { "" } else { "." }, readable(key))?;
                }
                Step::Key(key) => write!(f, "[{:?}]", readable(key))?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

// === impl Problem ===

impl Problem {
    /// Something wrong with a field. A message may quote what was found, however long that is.
    pub fn new(field: FieldPath, message: impl Into<String>) -> Self {
        let message = message.into();
        let message = match readable(&message) {
            Cow::Borrowed(_) => message,
            Cow::Owned(cut) => cut,
        };
        Self { field, message }
    }
}

/// A text whose words are short enough to be read: of a longer one the beginning.
pub fn readable(text: &str) -> Cow<'_, str> {
    if text.split(' ').all(|word| word.len() <= LONGEST_WORD) {
        return Cow::Borrowed(text);
    }
    let cut = |word| match str::char_indices(word).nth(CUT_TO) {
        Some((end, _)) if word.len() > LONGEST_WORD => format!("{}…", &word[..end]),
        _ => word.to_owned(),
    };
    Cow::Owned(text.split(' ').map(cut).collect::<Vec<_>>().join(" "))
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

// === impl Report ===

impl<'a> Report<'a> {
    pub(crate) fn new(problems: &'a mut Vec<Problem>) -> Self {
        Self { steps: Vec::new(), problems }
    }

    /// Goes into a member.
    pub(crate) fn within(&mut self, key: &str, check: impl FnOnce(&mut Report<'_>)) {
        self.step(Step::Key(key.to_owned()), check);
    }

    /// Goes into every element of a list.
    pub(crate) fn each<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut check: impl FnMut(&mut Report<'_>, T),
    ) {
        self.within(key, |report| {
            for (index, item) in items.into_iter().enumerate() {
                report.step(Step::Index(index), |report| check(report, item));
            }
        });
    }

    fn step(&mut self, step: Step, check: impl FnOnce(&mut Report<'_>)) {
        self.steps.push(step);
        check(self);
        self.steps.pop();
    }

    /// Something is wrong with the field that was gone into.
    pub(crate) fn wrong(&mut self, message: impl Into<String>) {
        self.problems.push(Problem::new(FieldPath(self.steps.clone()), message));
    }

    /// Something is wrong with a member.
    pub(crate) fn wrong_at(&mut self, key: &str, message: impl Into<String>) {
        self.within(key, |report| report.wrong(message));
    }

    /// As [`Self::wrong_at`], if `condition` holds.
    pub(crate) fn wrong_if(&mut self, condition: bool, key: &str, message: impl Into<String>) {
        if condition {
            self.wrong_at(key, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let mut problems = Vec::new();
        let mut report = Report::new(&mut problems);
        report.wrong("a");
        report.within("spec", |report| {
            report.each("ingress", [(), ()], |report, ()| report.wrong_at("ports", "b"));
        });
        report.within("metadata", |report| {
            report.within("labels", |report| report.wrong_at("app.kubernetes.io/name", "c"));
        });
        let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
        let expected = [
            "a",
            "spec.ingress[0].ports: b",
            "spec.ingress[1].ports: b",
            "metadata.labels[\"app.kubernetes.io/name\"]: c",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_message_quotes_the_beginning_of_what_is_too_long_to_read() {
        let long = "n".repeat(10_240);
        let field = FieldPath(vec![Step::Key("labels".into()), Step::Key(long.clone())]);
        let text =
            Problem::new(field, format!("`{long}` is no name; `ä{long}` neither")).to_string();
        assert!(text.starts_with("labels.nnn") && text.ends_with("… neither"), "{text}");
        assert!(text.contains("… is no name; `ännn") && text.len() < 300, "{text}");
        let selector = "has(a)||".repeat(128);
        assert_eq!(readable(&selector), selector);
    }

    #[test]
    fn an_error_names_the_object_and_every_field() {
        let problem =
            |key, message: &str| Problem::new(FieldPath::of_keys(&["spec", key]), message);
        let mut error = ResourceError {
            kind: "Tier".into(),
            name: "/web".into(),
            problems: vec![problem("order", "x"), problem("y", "z")],
        };
        assert_eq!(error.to_string(), "Tier web: spec.order: x; spec.y: z");
        error.name = "shop/web".into();
        assert_eq!(error.to_string(), "Tier shop/web: spec.order: x; spec.y: z");
    }
}
