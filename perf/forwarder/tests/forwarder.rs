//! The built program on a rig of veths.

#[path = "../../../fastpath/xsk/tests/rig/mod.rs"]
mod rig;

use std::{process::Stdio, time::Duration};

use rig::{Namespace, Station, region, veth};

#[test]
fn every_frame_leaves_by_the_other_side_and_is_counted() {
    let (node, left, right) = (Namespace::new(), Namespace::new(), Namespace::new());
    veth(&node, "nleft", &left, "left");
    veth(&node, "nright", &right, "right");
    let station = |namespace: &Namespace, interface| {
        let index = namespace.ifindex(interface);
        namespace.enter(|| Station::open(region(1024), interface, index))
    };
    let (mut left, mut right) = (station(&left, "left"), station(&right, "right"));

    let running = node
        .command(env!("CARGO_BIN_EXE_margay-forwarder"))
        .args(["--in", "nleft", "--out", "nright", "--seconds", "3", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let there: Vec<_> = (0..100u8).map(|number| vec![number; 60]).collect();
    let back: Vec<_> = (100..150u8).map(|number| vec![number; 1514]).collect();
    left.send(there.iter().map(Vec::as_slice));
    right.send(back.iter().map(Vec::as_slice));
    assert_eq!(right.receive(there.len(), Duration::from_secs(2)), there);
    assert_eq!(left.receive(back.len(), Duration::from_secs(2)), back);

    let output = running.wait_with_output().unwrap();
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["packets"], 150);
    assert_eq!(report["ways"][0]["packets"], 100);
    assert_eq!(report["ways"][1]["packets"], 50);
    assert_eq!(report["ways"][0]["from"], "nleft");
    let link = node.exec("ip link show dev nleft");
    assert!(!link.contains("xdp"), "the program is taken off: {link}");
}
