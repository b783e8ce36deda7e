//! Documents that are bad, asked of `validate`: each is refused, with the field's path.

mod common;

use common::{datastore, margayctl};
use serde_json::{Value, json};

const TABLE: &str = include_str!("bad_input.yaml");
/// The longest line that a person is to read, whatever a document says.
const READABLE: usize = 600;

fn table() -> Value {
    let text = TABLE.replace("<10kB>", &"n".repeat(10_240));
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    value.apply_merge().unwrap();
    serde_json::to_value(value).unwrap()
}

/// The answer of `validate -o json`, and what it says to people.
fn validate(text: &str) -> (Value, String) {
    let dir = datastore(text);
    let path = dir.path().to_str().unwrap();
    let output = margayctl(&["validate", "-f", path], "");
    (report(text), String::from_utf8(output.stderr).unwrap())
}

fn report(text: &str) -> Value {
    let output = margayctl(&["validate", "-o", "json", "-f", "-"], text);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_bad_documents_stand_in_the_place_of_is_good() {
    let documents: Vec<_> =
        table()["good"].as_array().unwrap().iter().map(Value::to_string).collect();
    let (report, errors) = validate(&documents.join("\n---\n"));
    assert_eq!((&report["valid"], errors.as_str()), (&json!(documents.len()), ""));
}

#[test]
fn every_bad_document_is_refused_with_the_path_of_its_field() {
    let table = table();
    for row in table["bad"].as_array().unwrap() {
        let text = row["text"].as_str().map_or_else(|| row["document"].to_string(), str::to_owned);
        let (report, errors) = validate(&text);
        let what = &row["what"];
        assert_eq!((&report["valid"], &report["invalid"]), (&json!(0), &json!(1)), "{what}");
        let found = report["errors"].as_array().unwrap();
        let fields: Vec<_> = found.iter().map(|error| &error["field"]).collect();
        assert!(fields.contains(&&row["field"]), "{what}: {fields:?}");
        let lines = errors.lines().filter(|line| line.len() > READABLE).count();
        assert_eq!(lines, 0, "{what}: {errors:.2000}");
        assert!(errors.contains("all.yaml:1:"), "{what}: {errors:.2000}");
    }
}

#[test]
fn a_set_has_a_largest_size() {
    let set = |size: u32| {
        let net = |n: u32| format!("{}", std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
        let nets: Vec<_> = (0..size).map(net).collect();
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": "many"}, "spec": {"nets": nets}})
        .to_string()
    };
    let error = &report(&set((1 << 20) + 1))["errors"][0];
    assert_eq!(error["field"], "spec.nets");
    assert_eq!(error["message"], "has 1048577 members; 1048576 are allowed");
    assert_eq!(report(&set(1000))["valid"], 1);
}
