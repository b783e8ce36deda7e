//! Input, output and exit codes of `policy simulate` and `validate`.

mod common;

use common::{datastore, margayctl, simulate, three_by_three};
use serde_json::{Value, json};

#[test]
fn the_answer_has_exactly_the_documented_fields() {
    let input =
        r#"{"src":"10.2.0.1","dst":"10.1.0.1","protocol":"TCP","srcPort":1,"dstPort":"80"}"#;
    let (answers, _) = simulate(&three_by_three(), input);
    let by = |policy: &str| json!({"verdict": "allow", "tier": null, "policy": policy, "rule": 0});
    let expected = json!({
        "verdict": "allow", "egress": by("Profile//kns.y"), "ingress": by("Profile//kns.x"),
        "backend": null,
    });
    assert_eq!(answers, [expected]);
}

#[test]
fn a_bad_line_has_its_error_in_its_place_and_empty_lines_have_none() {
    let good = r#"{"src":"1.1.1.1","dst":"2.2.2.2","protocol":17}"#;
    let input = format!("{good}\n\n   \nnonsense\n{{\"src\":\"1.1.1.1\"}}\r\n\u{fffd}\n{good}");
    let (answers, _) = simulate("", &input);
    let kinds: Vec<_> = answers.iter().map(|a| a.get("error").is_some()).collect();
    assert_eq!(kinds, [false, true, true, true, false]);
    assert_eq!(answers[2], json!({"error": "dst is missing"}));
}

#[test]
fn many_lines_are_answered_in_their_order() {
    let flows = [
        "10.1.0.1 > 10.1.0.2 TCP 80",
        "9.9.9.9 > 10.1.0.2 UDP 1",
        "bad",
        "1.1.1.1 > 2.2.2.2 TCP 1",
    ];
    let flows = flows.map(|flow| if flow == "bad" { flow.to_owned() } else { common::line(flow) });
    let input: String = (0..70_000).map(|i| format!("{}\n", flows[i % flows.len()])).collect();
    let (answers, _) = simulate(&three_by_three(), &input);
    assert_eq!(answers.len(), 70_000);
    assert_eq!(answers[0]["egress"]["verdict"], "allow");
    assert_eq!(answers[1]["egress"]["verdict"], "none");
    assert!(answers[2]["error"].is_string());
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, answers[i % flows.len()], "line {i}");
    }
}

#[test]
fn bad_documents_are_reported_and_left_out() {
    let bad = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {podSelector: {matchLabels: 5}}\n---\n{ not yaml\n";
    let line = common::line("9.9.9.9 > 10.1.0.1 TCP 80");
    let (answers, errors) = simulate(&(three_by_three() + bad), &line);
    assert_eq!(answers[0]["verdict"], "allow");
    assert!(errors.contains("podSelector") && errors.contains("all.yaml"), "{errors}");
}

#[test]
fn only_an_unreadable_datastore_fails() {
    let output = margayctl(&["--datastore", "dir:/nowhere/at/all", "policy", "simulate"], "");
    assert!(!output.status.success() && output.stdout.is_empty());
    let output = margayctl(&["policy", "simulate"], "");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("--datastore"), "{errors}");
}

#[test]
fn flows_are_read_from_a_file_too() {
    let dir = datastore(&three_by_three());
    let flows = dir.path().join("flows");
    std::fs::write(&flows, common::line("10.1.0.1 > 10.1.0.2 TCP 80")).unwrap();
    let url = format!("dir:{}", dir.path().display());
    let arguments = ["--datastore", &url, "policy", "simulate", "--flows"];
    let output = margayctl(&[&arguments[..], &[flows.to_str().unwrap()]].concat(), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
    let output = margayctl(&[&arguments[..], &["-"]].concat(), "{}\n{}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn pods_that_ended_or_use_the_hosts_network_own_no_address() {
    let pod = |name: &str, ip: &str, spec: &str, status: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x}}\nspec: {{{spec}}}\nstatus: {{podIP: {ip}, {status}}}\n"
        )
    };
    let documents = three_by_three()
        + &pod("ended", "10.1.0.8", "nodeName: n", "phase: Succeeded")
        + &pod("failed", "10.1.0.1", "nodeName: n", "phase: Failed")
        + &pod("host", "192.168.0.1", "hostNetwork: true, nodeName: n", "phase: Running");
    common::expect(
        &documents,
        &[
            ("9.9.9.9 > 10.1.0.8 TCP 1", "allow out none in none"),
            ("9.9.9.9 > 10.1.0.1 TCP 1", "allow out none in allow Profile//kns.x#0"),
            ("9.9.9.9 > 192.168.0.1 TCP 1", "allow out none in none"),
        ],
    );
}

#[test]
fn validate_names_each_bad_object_and_its_field() {
    let dir = datastore(&format!(
        "{}apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: broken, namespace: x}}\nspec: {{selector: 'a ==', colour: red}}\n",
        three_by_three()
    ));
    let path = dir.path().to_str().unwrap();
    let output = margayctl(&["validate", "-f", path], "");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    for part in ["broken", "spec.selector", "spec.colour", "all.yaml:"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let output = margayctl(&["validate", "-o", "json", "-f", path], "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["invalid"], report["valid"].as_u64()), (&json!(1), Some(14)));
    assert_eq!(report["errors"][0]["name"], "broken");
}

#[test]
fn validate_accepts_good_documents_from_files_and_standard_input() {
    let dir = datastore(&three_by_three());
    let file = dir.path().join("all.yaml");
    let output = margayctl(
        &["validate", "-f", file.to_str().unwrap(), "-f", "-"],
        "kind: List\napiVersion: v1\nitems: []",
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = margayctl(&["validate", "-f", "/nowhere"], "");
    assert!(!output.status.success());
}
