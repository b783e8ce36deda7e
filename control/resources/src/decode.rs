//! From JSON to a type, with every field that does not fit.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::{FieldPath, Problem, Step};

/// After so many fields that do not fit the rest is not looked for.
const MAX_PROBLEMS: usize = 64;

/// What came of decoding.
pub(crate) struct Decoded<T> {
    /// The object without the fields that do not fit, if it can be had without them.
    pub(crate) object: Option<T>,
    /// The fields that do not fit.
    pub(crate) problems: Vec<Problem>,
    /// The fields that the type does not have.
    pub(crate) unknown: Vec<FieldPath>,
    /// What had to be taken out of the document, in its own coordinates.
    taken_out: Vec<FieldPath>,
}

/// Decodes a document.
///
/// serde stops at the first field that does not fit. To find the others, that field is taken out
/// and the rest decoded again.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Decoded<T> {
    let mut rest = value.clone();
    drop_nulls(&mut rest);
    let mut decoded =
        Decoded { object: None, problems: Vec::new(), unknown: Vec::new(), taken_out: Vec::new() };
    while decoded.problems.len() < MAX_PROBLEMS {
        match attempt(&rest) {
            Ok((object, unknown)) => {
                decoded.object = Some(object);
                decoded.unknown = unknown.into_iter().map(|p| decoded.original(p)).collect();
                break;
            }
            Err(problem) => {
                if !take_out(&mut rest, &problem.field.0) {
                    decoded.note(problem);
                    break;
                }
                decoded.note(problem);
            }
        }
    }
    decoded
}

// === impl Decoded ===

impl<T> Decoded<T> {
    /// Notes a problem, unless it is only that something is missing which was taken out.
    fn note(&mut self, problem: Problem) {
        let field = self.original(problem.field);
        if !self.touches(&field) {
            self.problems.push(Problem { field: field.clone(), message: problem.message });
        }
        self.taken_out.push(field);
    }

    /// Notes what the check of the object found, as far as it does not concern what was taken out,
    /// or the object inside the specification that it was taken out of: a rule without its
    /// misspelt protocol may not have ports, but that is not what is wrong.
    pub(crate) fn note_all(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            let field = self.original(problem.field);
            let beside = |out: &FieldPath| field.0.starts_with(owner(out)) && owner(out).len() > 1;
            if !self.touches(&field) && !self.taken_out.iter().any(beside) {
                self.problems.push(Problem { field, message: problem.message });
            }
        }
    }

    /// Whether something above, at or below `field` was taken out.
    fn touches(&self, field: &FieldPath) -> bool {
        self.taken_out.iter().any(|out| out.0.starts_with(&field.0) || field.0.starts_with(&out.0))
    }

    /// From the coordinates of what is left to those of the document: elements of lists move up
    /// when one before them is taken out.
    fn original(&self, path: FieldPath) -> FieldPath {
        let mut original = FieldPath::default();
        for step in path.0 {
            let step = match step {
                Step::Index(mut index) => {
                    for gone in self.gone(&original) {
                        index += usize::from(gone <= index);
                    }
                    Step::Index(index)
                }
                key => key,
            };
            original.0.push(step);
        }
        original
    }

    /// The elements of a list that were taken out, in order.
    fn gone(&self, list: &FieldPath) -> Vec<usize> {
        let of_list = |out: &FieldPath| match out.0.strip_prefix(list.0.as_slice()) {
            Some([Step::Index(index)]) => Some(*index),
            _ => None,
        };
        let mut gone: Vec<usize> = self.taken_out.iter().filter_map(of_list).collect();
        gone.sort_unstable();
        gone.dedup();
        gone
    }
}

/// The object that has the field, or whose list has the element.
fn owner(path: &FieldPath) -> &[Step] {
    let is_key = |step: &Step| matches!(step, Step::Key(_));
    let last_key = path.0.iter().rposition(is_key).unwrap_or_default();
    path.0.get(..last_key).unwrap_or_default()
}

/// Decodes all of a value, or says which field does not fit; and which fields are unknown.
fn attempt<T: DeserializeOwned>(value: &Value) -> Result<(T, Vec<FieldPath>), Problem> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut on_unknown = |path: serde_ignored::Path<'_>| unknown.push(of_ignored(&path));
    let decoded = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut on_unknown));
    match decoded {
        Ok(object) => Ok((object, unknown)),
        Err(error) => {
            let steps = track.path().iter().filter_map(of_tracked).collect();
            Err(Problem::new(FieldPath(steps), in_plain_words(&error.to_string())))
        }
    }
}

/// What serde says, with the words of documents for the types of Rust.
fn in_plain_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else {
        return message.to_owned();
    };
    let expected = match expected {
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "a list",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}expected {expected}")
}

fn of_tracked(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn of_ignored(path: &serde_ignored::Path<'_>) -> FieldPath {
    use serde_ignored::Path;
    match path {
        Path::Root => FieldPath::default(),
        Path::Seq { parent, index } => {
            let mut path = of_ignored(parent);
            path.0.push(Step::Index(*index));
            path
        }
        Path::Map { parent, key } => {
            let mut path = of_ignored(parent);
            path.0.push(Step::Key(key.clone()));
            path
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => of_ignored(parent),
    }
}

/// Removes what is at a path; nothing is done for the root or for what is not there.
fn take_out(value: &mut Value, steps: &[Step]) -> bool {
    let Some((last, way)) = steps.split_last() else { return false };
    let mut at = value;
    for step in way {
        let next = match step {
            Step::Key(key) => at.get_mut(key),
            Step::Index(index) => at.get_mut(index),
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match (last, at) {
        (Step::Key(key), Value::Object(map)) => map.remove(key).is_some(),
        (Step::Index(index), Value::Array(list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}

/// Members of maps that are null are as good as missing, as in Kubernetes; but an empty label or
/// annotation is an empty text.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Object(map) => {
            for key in ["labels", "annotations", "matchLabels", "labelsToApply"] {
                let texts = map.get_mut(key).and_then(Value::as_object_mut);
                for text in texts.into_iter().flat_map(|m| m.values_mut()).filter(|v| v.is_null()) {
                    *text = Value::String(String::new());
                }
            }
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}
