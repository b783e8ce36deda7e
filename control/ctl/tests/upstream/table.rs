//! Rows, as the files have them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::world::World;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Where the titles are from.
    #[allow(dead_code, reason = "for the reader")]
    list: String,
    /// What rows share, by anchors.
    #[serde(default, rename = "shared")]
    _shared: IgnoredAny,
    cases: Vec<Value>,
}

/// A case of upstream's.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) suite: String,
    pub(crate) case: String,
    #[serde(default)]
    pub(crate) vary: Vec<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    #[serde(default)]
    pub(crate) held_by: Vec<String>,
    pub(crate) otherwise: Option<String>,
}

/// One state of the documents, and who reaches whom in it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Documents that come, by kind and name.
    #[serde(default)]
    pub(crate) put: BTreeMap<String, Value>,
    /// Documents that go.
    #[serde(default)]
    pub(crate) take: Vec<String>,
    /// Protocols and ports between all pods.
    #[serde(default, deserialize_with = "one_or_more")]
    pub(crate) at: Vec<String>,
    /// `SOURCE > DESTINATION` of the pods that do not reach each other.
    #[serde(default)]
    pub(crate) closed: Vec<String>,
    /// Those that do so nevertheless.
    #[serde(default)]
    pub(crate) open: Vec<String>,
    /// Single flows, `+` before what is allowed and `-` before what is not.
    #[serde(default)]
    pub(crate) probes: Vec<String>,
}

// === impl Case ===

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.suite, self.case)
    }
}

/// The rows of a table, each for every variation of it.
pub(crate) fn read(text: &str, world: &World) -> Vec<Case> {
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).unwrap();
    // What is merged may merge something itself.
    (0..2).for_each(|_| value.apply_merge().unwrap());
    let table: Table = serde_yaml_ng::from_value(value).unwrap();
    table.cases.iter().flat_map(|row| varied(row, world)).collect()
}

fn varied(row: &Value, world: &World) -> Vec<Case> {
    let Case { mut vary, .. } = case(&row.to_string());
    if vary.is_empty() {
        vary.push(BTreeMap::new());
    }
    let addresses = world.words();
    let each = |words: &BTreeMap<String, Value>| {
        case(&addresses.iter().chain(words).fold(row.to_string(), put_in))
    };
    vary.iter().map(each).collect()
}

fn case(text: &str) -> Case {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Puts a word in its places: as it is where it stands alone, as text within text.
fn put_in(text: String, (word, value): (&String, &Value)) -> String {
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = text.replace(&format!("\"<{word}>\""), &value.to_string());
    text.replace(&format!("<{word}>"), &plain)
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        More(Vec<String>),
    }
    Either::deserialize(deserializer).map(|either| match either {
        Either::One(one) => vec![one],
        Either::More(more) => more,
    })
}
