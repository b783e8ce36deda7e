use margay_datastore::{Format, Key, Reader};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::field::Step;
use crate::kind::Kind;

fn yaml(text: &str) -> Value {
    let mut documents = read_yaml(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).unwrap_or_else(|e| panic!("{text}: {e}")).value
}

fn error(text: &str) -> SyntaxError {
    read_yaml(text).into_iter().find_map(Result::err).unwrap_or_else(|| panic!("{text} is fine"))
}

fn path(steps: &[&str]) -> FieldPath {
    let step = |text: &&str| match text.parse() {
        Ok(index) => Step::Index(index),
        Err(_) => Step::Key((*text).to_owned()),
    };
    FieldPath(steps.iter().map(step).collect())
}

/// Line and field of each finding of each entry.
fn findings(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for entry in read(text, Format::Yaml) {
        if let Outcome::Bad(findings) = entry.outcome {
            all.extend(findings.into_iter().map(|f| (f.at.line, f.field)));
        }
    }
    all
}

#[test]
fn yaml_becomes_json() {
    let text = "a: 1\nb: [x, 'y', \"z\\n\", 2.5, ~]\nc:\n  - d: |\n      two\n      lines\n    e: >-\n      one\n      line\n8080: !!str 5\nf: {}\n";
    let expected = json!({
        "a": 1, "b": ["x", "y", "z\n", 2.5, null], "c": [{"d": "two\nlines\n", "e": "one line"}],
        "8080": "5", "f": {},
    });
    assert_eq!(yaml(text), expected);
}

#[test]
fn every_field_is_found_on_its_line() {
    let text = "\n# a comment\nspec:\n  ingress:\n    - action: Allow\n      source: {ports: [1,\n        2]}\n    - action: Deny\n";
    let document = read_yaml(text).remove(0).unwrap();
    let table: &[(&[&str], usize, usize)] = &[
        (&[], 3, 1),
        (&["spec"], 3, 1),
        (&["spec", "ingress"], 4, 3),
        (&["spec", "ingress", "0"], 5, 7),
        (&["spec", "ingress", "0", "action"], 5, 7),
        (&["spec", "ingress", "0", "source", "ports", "1"], 7, 9),
        (&["spec", "ingress", "1", "action"], 8, 7),
        // What is missing is missing from what is there.
        (&["spec", "ingress", "1", "protocol"], 8, 7),
        (&["spec", "egress"], 3, 1),
        (&["metadata", "name"], 3, 1),
    ];
    for (steps, line, column) in table {
        let at = document.locate(&path(steps));
        assert_eq!((at.line, at.column), (*line, *column), "{steps:?}");
    }
}

#[test]
fn a_broken_document_does_not_take_the_others_with_it() {
    let text = "a: 1\n---\nb: [1, 2\n---\nc: 3\n---\nd: 1\nd: 2\n---\n# nothing\n---\ne: 5\n";
    let documents = read_yaml(text);
    let values: Vec<_> =
        documents.iter().map(|d| d.as_ref().ok().map(|d| d.value.clone())).collect();
    let expected =
        [Some(json!({"a": 1})), None, Some(json!({"c": 3})), None, Some(json!({"e": 5}))];
    assert_eq!(values, expected);
    let error = documents[3].as_ref().unwrap_err();
    assert_eq!((error.at.line, error.begin.line), (8, 7));
    assert!(error.message.contains("already on line 7"), "{}", error.message);
}

#[test]
fn a_syntax_error_says_where_it_is() {
    let table = [
        ("a: 1\nb: [1, 2\nc: 3\n", 3),
        ("a: \"open\nb: 1\n", 1),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\n b: 2\n", 2),
        ("a: b: c\n", 1),
        ("a: *nobody\n", 1),
        ("a: &x [*x]\n", 1),
        ("? [1, 2]\n: 3\n", 1),
        ("a: 1\na: 2\n", 2),
        ("<<: 5\n", 1),
    ];
    for (text, line) in table {
        let error = error(text);
        assert!(error.at.line.abs_diff(line) <= 1, "{text}: {error}");
        assert!(!error.message.is_empty(), "{text}");
    }
    assert_eq!(error("x:\n  a: 1\n  b: 2\n  a: 3\n").at, Position { line: 4, column: 3 });
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    let text = "base: &b {x: 1, y: 2}\nlist: &l [1, *b]\none:\n  <<: *b\n  y: 3\ntwo: {<<: [*b, {z: 4}], x: 0}\ncopy: *l\n&k key: v\n";
    let base = json!({"x": 1, "y": 2});
    let expected = json!({
        "base": base, "list": [1, base], "one": {"x": 1, "y": 3},
        "two": {"x": 0, "y": 2, "z": 4}, "copy": [1, base], "key": "v",
    });
    assert_eq!(yaml(text), expected);
    assert_eq!(yaml("'<<': 1"), json!({"<<": 1}), "a quoted key is a key like others");
}

#[test]
fn a_few_lines_cannot_fill_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    let error = error(&text);
    assert!(error.message.contains("aliases expand"), "{error}");
    // Deep nesting is refused instead of exhausting the stack.
    assert!(read_yaml(&"[".repeat(1 << 16)).iter().all(Result::is_err));
    assert!(read_yaml(&"- ".repeat(1 << 12)).iter().all(Result::is_err));
    assert!(read_json(&"[".repeat(1 << 16)).is_err());
}

#[test]
fn json_is_strict_and_has_lines_too() {
    let document = read_json("{\n\t\"a\": [1,\n\t\t{\"b\": -2.5e1}],\n\"c\": null}").unwrap();
    assert_eq!(document.value, json!({"a": [1, {"b": -25.0}], "c": null}));
    assert_eq!(document.locate(&path(&["a", "1", "b"])).line, 3);
    let table = [
        ("{\"a\": 1,\n \"a\": 2}", 2, "occurs twice"),
        ("{\"a\": 1", 1, "EOF"),
        ("{\"a\":\n 1,}", 2, "trailing comma"),
        ("{} {}", 1, "trailing characters"),
        ("{a: 1}", 1, "key must be a string"),
        ("", 1, "EOF"),
    ];
    for (text, line, part) in table {
        let error = read_json(text).unwrap_err();
        assert_eq!(error.at.line, line, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: web
spec:
  ingress:
    - action: Allow
      protocol: TPC
      destination:
        ports:
          - 80
          - 9:8
  selectr: all()
";

#[test]
fn a_bad_object_is_reported_with_the_line_of_each_field() {
    let expected = [
        (8, "spec.ingress[0].protocol".to_owned()),
        (12, "spec.ingress[0].destination.ports[1]".to_owned()),
        (13, "spec.selectr".to_owned()),
    ];
    assert_eq!(findings(POLICY), expected);
    let text = format!("# two lines\n---\n{POLICY}");
    assert_eq!(findings(&text)[0].0, 10);
    let entry = read(POLICY, Format::Yaml).remove(0);
    assert_eq!(entry.object, Some((Kind::NetworkPolicy, "default".into(), "web".into())));
    assert_eq!(entry.at.line, 1);
}

#[test]
fn lists_are_taken_apart() {
    let text = "\
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Namespace
    metadata: {name: shop}
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web}
  - apiVersion: projectcalico.org/v3
    kind: Tier
    metadata: {name: Bad}
    spec: {order: low}
";
    let entries = read(text, Format::Yaml);
    assert_eq!(entries.len(), 3);
    assert!(matches!(entries[0].outcome, Outcome::Object { .. }));
    assert_eq!((entries[0].at.line, entries[2].at.line), (4, 10));
    assert_eq!(entries[1].outcome, Outcome::Foreign);
    assert!(findings(text).contains(&(13, "spec.order".into())));

    let text = "{\"apiVersion\": \"projectcalico.org/v3\", \"kind\": \"TierList\", \"items\": [\n\
        {\"metadata\": {\"name\": \"a\"}}, {\"metadata\": {\"name\": \"b\"}}]}";
    let names: Vec<_> = read(text, Format::Json).into_iter().map(|e| e.object.unwrap().2).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(read("apiVersion: v1\nkind: List\nitems: []", Format::Yaml), []);
}

#[test]
fn the_datastore_gets_keys_and_public_names() {
    let text = "apiVersion: crd.projectcalico.org/v1\nkind: NetworkSet\nmetadata: {name: a}\n---\n\
        apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n---\nkind: [\n";
    let parsed = DocumentReader.read(text, Format::Yaml);
    assert_eq!(parsed.len(), 2, "the ConfigMap is of no concern");
    let value = parsed[0].object.as_ref().unwrap();
    assert_eq!(value["apiVersion"], "projectcalico.org/v3");
    assert_eq!(value["metadata"], json!({"name": "a", "namespace": "default"}));
    assert_eq!(parsed[0].key, Some(Kind::NetworkSet.key("default", "a")));
    assert_eq!(parsed[0].key.as_ref(), Key::of(value).as_ref().ok());
    assert!(parsed[1].object.is_err() && parsed[1].key.is_none());

    let parsed = DocumentReader.read(POLICY, Format::Yaml).remove(0);
    let problems = parsed.object.unwrap_err();
    assert_eq!((problems[0].line, problems[0].field.as_str()), (8, "spec.ingress[0].protocol"));
    assert_eq!(parsed.key, Some(Kind::NetworkPolicy.key("default", "web")));
}

#[test]
fn a_kind_is_known_by_the_name_that_the_datastore_gives_it() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of_stored(&kind.stored()), Some(*kind));
    }
    assert_eq!(Kind::of_stored(&margay_datastore::Kind::calico("Teir")), None);
}

#[test]
fn a_document_that_says_not_what_it_is_is_bad() {
    assert_eq!(findings("a: 1\n"), [(1, "kind".to_owned())]);
    assert_eq!(findings("\nkind: Tier\n"), [(2, "apiVersion".to_owned())]);
    assert_eq!(findings("- 1\n"), [(1, String::new())]);
    assert_eq!(
        findings("apiVersion: projectcalico.org/v3\nkind: Teir\nmetadata: {name: a}\n"),
        [(2, "kind".to_owned())]
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-c0-9:&*!<>|?{}\\[\\],'\"#~%@ \\n\\t-]{0,80}") {
        let _ = read(&text, Format::Yaml);
        let _ = read(&text, Format::Json);
    }

    #[test]
    fn json_is_the_same_read_as_json_and_as_yaml(
        // Quarters, as neither reader promises the last bit of a fraction.
        value in prop::collection::vec((any::<bool>(), any::<i64>(), any::<i16>(), "[ -~é\\n\t]{0,20}"), 0..5)
    ) {
        let quarter = |(a, b, c, d): (bool, i64, i16, String)| json!([a, b, f64::from(c) / 4.0, d]);
        let value = json!({"list": value.into_iter().map(quarter).collect::<Vec<_>>()});
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        let as_json = read_json(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let expected: Value = serde_json::from_str(&text).unwrap_or_default();
        prop_assert_eq!(&as_json.value, &expected);
        let as_yaml = read_yaml(&text).remove(0).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(as_yaml.value, expected);
    }
}
