//! The built program on a rig of veths.

#[path = "../../../fastpath/xsk/tests/rig/mod.rs"]
mod rig;

use std::{process::Stdio, time::Duration};

use margay_xsk::program::XdpMode;
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

#[test]
fn behind_a_trunk_frames_reach_the_other_pod_and_only_addresses_change() {
    trunk(false);
}

#[test]
fn from_a_trunk_frames_leave_by_the_uplink_and_come_back() {
    trunk(true);
}

/// Pod `left` behind a trunk, and `right` behind the same, or at the end of an uplink.
fn trunk(uplink: bool) {
    let (node, left, right) = (Namespace::new(), Namespace::new(), Namespace::new());
    node.ip("link add margay0 address 02:4d:00:00:00:00 type veth peer name margay0x");
    for end in ["margay0", "margay0x"] {
        rig::quiet(&node, end);
        node.ip(&format!("link set dev {end} up"));
    }
    let station = |pod: &Namespace, end, behind: bool| {
        veth(&node, end, pod, "eth0");
        let index = pod.ifindex("eth0");
        pod.enter(|| {
            let station = Station::open(region(1024), "eth0", index);
            if behind {
                // The kernel redirects into the pod past a native program.
                station.program.detach(index).unwrap();
                station.program.attach_as(index, XdpMode::Generic).unwrap();
            }
            station
        })
    };
    let mut a = station(&left, "nleft", true);
    let mut b = station(&right, "nright", !uplink);

    let running = node
        .command(env!("CARGO_BIN_EXE_margay-forwarder"))
        .args(["--in", "nleft", "--out", "nright", "--trunk", "margay0", "margay0x"])
        .args(uplink.then_some("--uplink"))
        .args(["--seconds", "3", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let there: Vec<_> = (0..100u8).map(|number| vec![number; 60]).collect();
    let back: Vec<_> = (100..150u8).map(|number| vec![number; 1514]).collect();
    a.send(there.iter().map(Vec::as_slice));
    b.send(back.iter().map(Vec::as_slice));
    // Behind a trunk the destination names the port that a frame came by, and a pod sees its gateway.
    let port = |name| [&[0x02, 0x4d][..], &node.ifindex(name).to_be_bytes()].concat();
    let gateway = vec![0xee; 6];
    let with = |frame: &Vec<u8>, destination: Option<&Vec<u8>>, source: Option<&Vec<u8>>| {
        let (was, rest) = frame.split_at(12);
        let [destination, source] =
            [destination.map_or(&was[..6], |mac| mac), source.map_or(&was[6..], |mac| mac)];
        [destination, source, rest].concat()
    };
    let (nleft, nright) = (port("nleft"), port("nright"));
    let there = there.iter().map(|frame| with(frame, Some(&nleft), (!uplink).then_some(&gateway)));
    let back = back.iter().map(|frame| with(frame, (!uplink).then_some(&nright), Some(&gateway)));
    let patience = Duration::from_secs(2);
    assert_eq!(b.receive(100, patience), there.collect::<Vec<_>>());
    assert_eq!(a.receive(50, patience), back.collect::<Vec<_>>());

    let output = running.wait_with_output().unwrap();
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["packets"], 150);
    assert_eq!(report["ways"][0]["from"], "margay0x");
    assert_eq!(report["ways"][0]["packets"], if uplink { 100 } else { 150 });
    assert_eq!(report["ways"].as_array().unwrap().len(), if uplink { 2 } else { 1 });
    for end in ["nleft", "nright", "margay0"] {
        let filters = node.exec(&format!("tc filter show dev {end} ingress"));
        assert!(filters.is_empty(), "the program is taken off: {filters}");
    }
}
