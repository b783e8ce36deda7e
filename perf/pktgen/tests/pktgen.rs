//! The built program on a veth.

#[path = "../../../fastpath/xsk/tests/rig/mod.rs"]
mod rig;

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use rig::{Namespace, veth};
use serde_json::Value;

fn pktgen(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margay-pktgen"));
    command.args(line.split_whitespace()).output().unwrap()
}

/// Runs both ends in one process, and returns the report.
fn both_ends(line: &str) -> Value {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "eth0", &right, "eth0");
    let (from, to) = (left.name(), right.name());
    let output = pktgen(&format!(
        "send --interface eth0 --netns {from} --sink-interface eth0 --sink-netns {to} \
         --dst-mac {} --seconds 0.5 -o json {line}",
        right.mac("eth0").map(|byte| format!("{byte:x}")).join(":")
    ));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let link = right.exec("ip link show dev eth0");
    assert!(!link.contains("xdp"), "the program is taken off: {link}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn all_that_is_sent_at_a_low_rate_arrives_once_and_in_order() {
    for line in [
        "--src 10.0.0.1..10.0.0.7 --dst 10.0.0.9 --flows 500 --size 1514",
        "--src fd00::1 --dst fd00::2 --flows 5 --size 92 --protocol tcp-syn",
        "--src 10.0.0.1 --dst 10.0.0.2 --sink-xdp generic",
    ] {
        let report = both_ends(&format!("{line} --rate 10000"));
        let (sent, received) = (&report["sent"], &report["received"]);
        // A machine that is busy elsewhere may fall behind the rate, but not run ahead of it.
        let packets = sent["packets"].as_u64().unwrap();
        assert!((1_000..=5_000).contains(&packets), "{line}: {report}");
        assert_eq!(received["packets"], sent["packets"], "{line}: {report}");
        assert_eq!(received["flows"], sent["flows"], "{line}: {report}");
        for what in ["lost", "late", "foreign"] {
            assert_eq!(received[what], 0, "{line}: {report}");
        }
        let bytes = packets * sent["size"].as_u64().unwrap();
        assert_eq!(received["bytes"], bytes, "{line}: {report}");
    }
}

#[test]
fn a_sink_alone_counts_what_another_process_sends() {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "eth0", &right, "eth0");
    let sink = Command::new(env!("CARGO_BIN_EXE_margay-pktgen"))
        .args(["sink", "--interface", "eth0", "--netns", right.name(), "--seconds", "3"])
        .args(["-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let output = pktgen(&format!(
        "send --interface eth0 --netns {} --dst-mac 2:2:2:2:2:2 --src 10.0.0.1 --dst 10.0.0.2 \
         --flows 3 --rate 1000 --seconds 0.2 -o json",
        left.name()
    ));
    let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
    let output = sink.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["received"]["packets"], sent["sent"]["packets"], "{report}");
    assert_eq!(report["received"]["flows"], 3, "{report}");
    assert_eq!(report["received"]["lost"], 0, "{report}");
    assert_eq!(report["sent"], Value::Null);
}

#[test]
fn what_is_missing_is_named() {
    let line = "sink --interface nosuch0 --seconds 1";
    let error = String::from_utf8(pktgen(line).stderr).unwrap();
    assert!(error.contains("there is no interface nosuch0"), "{error}");
    let error = String::from_utf8(pktgen(&format!("{line} --netns nosuch")).stderr).unwrap();
    assert!(error.contains("/run/netns/nosuch"), "{error}");
    let error = String::from_utf8(pktgen(&format!("{line} --cpu 9999")).stderr).unwrap();
    assert!(error.contains("--cpu"), "{error}");
}
