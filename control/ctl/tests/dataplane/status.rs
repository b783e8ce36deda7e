//! `node status`, `version`, and what is said of a dataplane that is not there.

use serde_json::{Value, json};

use crate::common::margayctl;
use crate::running::Running;

#[test]
fn node_status_tells_modes_with_their_fallbacks_workers_state_and_what_is_not_up() {
    let node = Running::start();
    let text = node.good("node status");
    for part in [
        "n1",
        "margayd 9.8.7, protocol 1, up for 61s",
        "generation 42, from the agent",
        "2 endpoints, 5 policies",
        "2 of 1000 in use, 1 of them denials",
        "Shortcut     on, 3 connections",
        "eth0   uplink   native   copy   1        up",
        "eth0: not zerocopy: the driver of eth0 has none",
        "0        3     asleep   17",
        "x/a/eth0          cali9 is gone",
        "polling   busy    --busy",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let status = node.json("node status");
    assert_eq!(status["ports"][0]["fallbacks"][0]["mode"], "zerocopy");
    assert_eq!((&status["generation"], &status["agentConnected"]), (&json!(42), &json!(true)));
    assert_eq!(status["stateOrigin"], "agent");
}

#[test]
fn an_agent_that_does_not_answer_is_told_and_fails_nothing() {
    let node = Running::start();
    let status = node.json("node status");
    assert_eq!(status["agent"]["state"], "unreachable");
    let agent = node.dir.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(agent).unwrap();
    let agent = std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream.write_all(b"{\"ok\":{\"state\":\"notReady\",\"reason\":\"no pool\"}}\n").unwrap();
    });
    let status = node.json("node status");
    agent.join().unwrap();
    assert_eq!(
        (&status["agent"]["state"], &status["agent"]["reason"]),
        (&json!("notReady"), &json!("no pool"))
    );
}

#[test]
fn versions_are_told_as_far_as_they_are_known() {
    let node = Running::start();
    let versions = node.json("version");
    assert_eq!(versions["client"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&versions["dataplane"], &versions["cluster"]), (&json!("9.8.7"), &Value::Null));
    let nowhere = ["--dataplane", "unix:/nowhere/margayd.sock"];
    let output = margayctl(&[&nowhere[..], &["version"]].concat(), "");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    assert!(errors.contains("/nowhere/margayd.sock") && errors.contains("running"), "{errors}");
}

#[test]
fn a_dataplane_that_is_not_there_is_told_by_every_command() {
    for command in [&["node", "status"][..], &["flows"], &["counters"], &["trace"]] {
        let output = margayctl(&[&["--dataplane", "unix:/nowhere/d.sock"], command].concat(), "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("/nowhere/d.sock"), "{errors}");
    }
}
