//! `policy diff` and `policy hits`, as far as they ask a dataplane.

use serde_json::{Value, json};

use crate::common::{datastore, margayctl};
use crate::running::Running;

#[test]
fn policy_diff_tells_which_connections_documents_would_cut() {
    let node = Running::start();
    let pod = |name: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{pod: \
             {name}}}}}\nstatus: {{podIP: {ip}}}\n---\n"
        )
    };
    let store = datastore(&(pod("a", "10.0.0.1") + &pod("b", "10.0.0.2")));
    let policy = store.path().join("policy.txt");
    let deny = |port: u16| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: \
             x}}\nspec: {{selector: \"pod == 'b'\", ingress: [{{action: Deny, protocol: TCP, \
             destination: {{ports: [{port}]}}}}, {{action: Allow}}]}}\n"
        )
    };
    let run = |port: u16| {
        std::fs::write(&policy, deny(port)).unwrap();
        let words = [
            format!("--dataplane=unix:{}", node.socket().display()),
            format!("--datastore=dir:{}", store.path().display()),
            "-ojson".into(),
            "policy".into(),
            "diff".into(),
            policy.display().to_string(),
        ];
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = margayctl(&words, "");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["flows"].clone()
    };
    // The connection went to a service; its backend's port is what the policy is about.
    let flows = run(8080);
    assert_eq!(flows["compared"], 2);
    let change = &flows["changed"][0];
    assert_eq!((&change["count"], &change["dst"]), (&json!(1), &json!("10.96.0.10")));
    assert_eq!(change["backend"], "10.0.0.2:8080");
    assert_eq!(
        (&change["old"]["verdict"], &change["new"]["verdict"]),
        (&json!("allow"), &json!("deny"))
    );
    assert_eq!(change["new"]["ingress"]["policy"], "NetworkPolicy/x/p");
    assert_eq!(run(80)["changed"], json!([]));
}

#[test]
fn policy_hits_names_rules_tiers_and_what_was_missed() {
    let node = Running::start();
    let hits = node.json("policy hits");
    let front = json!({
        "policy": "NetworkPolicy/shop/front", "tierDefault": null, "rule": 1,
        "direction": "ingress", "action": "allow", "connections": 3, "packets": 12, "bytes": 3400,
    });
    let of = |policy: &str| {
        let rules = hits["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["policy"] == policy).cloned()
    };
    assert_eq!(of("NetworkPolicy/shop/front"), Some(front));
    assert_eq!(hits["flowsLost"], 7);
    let table = node.good("policy hits");
    for part in ["NetworkPolicy/shop/front   1", "tier default", "none", "7 flows ended unseen"] {
        assert!(table.contains(part), "{part}:\n{table}");
    }
    let denied = node.json("policy hits --denied");
    assert_eq!(denied["rules"].as_array().unwrap().len(), 2);
    assert_eq!(denied["rules"][1]["tierDefault"], "default");
}
