//! `flows`, `dns` and `counters`.

use serde_json::{Value, json};

use crate::common::margayctl;
use crate::running::Running;

#[test]
fn connections_are_listed_with_both_directions_and_what_decided() {
    let node = Running::start();
    let flows = node.json("flows");
    let expected = json!({
        "orig": {"src": "10.0.0.1", "dst": "10.96.0.10", "protocol": "TCP", "srcPort": 4000, "dstPort": 80},
        "reply": {"src": "10.0.0.2", "dst": "10.0.0.1", "protocol": "TCP", "srcPort": 8080, "dstPort": 4000},
        "origCount": {"packets": 5, "bytes": 500}, "replyCount": {"packets": 4, "bytes": 4000},
        "state": "ESTABLISHED", "idleMs": 1250, "verdict": "allow", "shortcut": true,
        "egress": {"policy": "Profile//kns.x", "rule": 0}, "ingress": null,
        "passedIngress": {"policy": "GlobalNetworkPolicy//edge", "rule": 2},
    });
    assert_eq!(flows[0], expected);
    assert_eq!(
        (&flows[1]["verdict"], &flows[1]["orig"]["protocol"]),
        (&json!("deny"), &json!("ICMPv6"))
    );
    let table = node.good("flows -o wide");
    assert!(table.contains("TCP        10.0.0.1:4000   10.96.0.10:80   10.0.0.2:8080"), "{table}");
    assert!(table.contains("ESTABLISHED   shortcut") && table.contains("worker"), "{table}");
    assert!(table.contains("Profile//kns.x#0") && table.contains("1.2s"), "{table}");
    assert_eq!(node.good("flows -o yaml").matches("idleMs").count(), 2);
}

#[test]
fn connections_are_chosen_by_address_protocol_port_verdict_and_number() {
    let node = Running::start();
    for (options, count) in [
        ("", 2),
        ("--net 10.0.0.2", 1),
        ("--net 10.0.0.0/8", 1),
        ("--net fd00::/16", 1),
        ("--net 192.0.2.0/24", 0),
        ("--protocol TCP", 1),
        ("--protocol 58", 1),
        ("--port 8080", 1),
        ("--denied", 1),
        ("--allowed --protocol ICMPv6", 0),
        ("--limit 1", 1),
    ] {
        let flows = node.json(&format!("flows {options}"));
        assert_eq!(flows.as_array().unwrap().len(), count, "{options}");
    }
    let output = margayctl(&["flows", "--net", "nonsense"], "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("10.0.0.0/8"));
}

#[test]
fn names_are_shown_with_their_addresses_time_and_policies() {
    let node = Running::start();
    let text = node.good("dns");
    for part in [
        "www.example.com   192.0.2.1   60s           *.example.com   NetworkPolicy/x/out",
        "old.example.com   192.0.2.2   lapsed  ",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains("nobody"), "no policy wants it:\n{text}");
    let all = node.json("dns --all --address 192.0.2.3");
    assert_eq!((&all[0]["name"], &all[0]["policies"]), (&json!("nobody.example.net"), &json!([])));
    let some = node.json("dns --name www.*.com");
    assert_eq!((&some[0]["remainingSeconds"], &some[1]), (&json!(60), &Value::Null));
    assert_eq!(node.good("dns -o name"), "old.example.com\nwww.example.com\n");
}

#[test]
fn counters_leave_out_what_never_happened_unless_asked() {
    let node = Running::start();
    let counters = node.json("counters");
    let port =
        json!({"port": "cali1", "rxPackets": 10, "rxBytes": 1000, "txPackets": 7, "txBytes": 700});
    assert_eq!(counters["ports"], json!([port]));
    let policy = json!({"reason": "policy", "packets": 3, "sentence": "what policy means"});
    assert_eq!(counters["drops"], json!([policy]));
    assert_eq!(counters["flowMisses"], 4);
    assert_eq!(node.json("counters --all")["drops"][1]["reason"], "spoof");
    let (table, wide) = (node.good("counters"), node.good("counters -o wide"));
    assert!(table.contains("drop       policy   3"), "{table}");
    assert!(!table.contains("what policy means") && wide.contains("what policy means"), "{wide}");
}

#[test]
fn cycles_are_those_of_a_span_of_time_or_of_all_time() {
    let node = Running::start();
    let idle =
        json!({"stage": "idle", "calls": 100, "packets": 3200, "cycles": 680_000, "share": 0.68});
    for command in ["counters --cycles --seconds 0", "counters --cycles --seconds 0.1"] {
        let cycles = node.json(command);
        assert_eq!(cycles["seconds"], 1.0, "{command}");
        assert_eq!(cycles["cyclesPerSecond"], 1e6);
        assert_eq!(cycles["workers"][0]["stages"][1], idle, "{command}");
        assert_eq!(cycles["workers"][0]["turns"], json!([{"belowNs": 8000, "turns": 100}]));
    }
    let table = node.good("counters --cycles --seconds 0.1");
    let decide = table.lines().find(|line| line.contains("decide")).unwrap();
    let cells: Vec<_> = decide.split_whitespace().collect();
    assert_eq!(cells, ["0", "decide", "100", "3200", "32.0", "100", "32.0", "%"]);
    assert!(!node.run("counters --seconds 2").status.success(), "only of cycles");
    assert!(!node.run("counters --cycles --seconds -1").status.success());
}
