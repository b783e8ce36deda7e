//! The built program on a veth.

#[path = "../../../fastpath/xsk/tests/rig/mod.rs"]
mod rig;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use pcap_file::pcap::{PcapPacket, PcapWriter};
use rig::{Namespace, veth};
use serde_json::Value;

fn pktgen(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margay-pktgen"));
    command.args(line.split_whitespace()).output().unwrap()
}

/// The same on one CPU.
fn pinned(line: &str) -> Output {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_margay-pktgen")]);
    command.args(line.split_whitespace()).output().unwrap()
}

/// Starts a sink in a namespace for so many seconds, and waits until it receives.
fn sink(place: &Namespace, seconds: u32) -> Child {
    let sink = Command::new(env!("CARGO_BIN_EXE_margay-pktgen"))
        .args(["sink", "--interface", "eth0", "--netns", place.name(), "-o", "json"])
        .args(["--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !place.exec("ip link show dev eth0").contains("xdp") {
        assert!(Instant::now() < until, "the sink does not start");
    }
    sink
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
        "--src 10.0.0.1 --dst 10.0.0.2 --flows 10 --size imix",
        "--src fd00::1 --dst fd00::2 --tunnel vxlan --tunnel-src 172.20.0.1 --tunnel-dst 172.20.0.2 \
         --size 200:1,1514:1",
        "--src 10.0.0.1 --dst 10.0.0.2 --tunnel ipip --tunnel-src 172.20.0.1 --tunnel-dst \
         172.20.0.2 --size 80",
    ] {
        let report = both_ends(&format!("{line} --rate 10000"));
        let (sent, received) = (&report["sent"], &report["received"]);
        // A machine that is busy elsewhere may fall behind the rate, but not run ahead of it.
        let packets = sent["packets"].as_u64().unwrap();
        assert!((1_000..=5_000).contains(&packets), "{line}: {report}");
        assert_eq!(received["packets"], sent["packets"], "{line}: {report}");
        assert_eq!(received["flows"], sent["flows"], "{line}: {report}");
        let of = |what: &str| received["latency"][what].as_f64().unwrap();
        assert!(
            0.0 < of("p50") && of("p50") <= of("p99.9") && of("p99.9") <= of("max"),
            "{report}"
        );
        for what in ["lost", "late", "foreign"] {
            assert_eq!(received[what], 0, "{line}: {report}");
        }
        assert_eq!(received["bytes"], sent["bytes"], "{line}: {report}");
    }
}

#[test]
fn connections_are_answered_where_that_is_asked_for() {
    let line = "--src 10.0.0.1 --dst 10.0.0.2 --flows 3";
    let report = both_ends(&format!("{line} --rate 1000 --answers"));
    let (sent, received) = (&report["sent"]["packets"], &report["received"]["packets"]);
    assert_eq!((sent, &report["answers"]), (received, received), "each of them: {report}");
    let tunnel = "--tunnel vxlan --tunnel-src 172.20.0.1 --tunnel-dst 172.20.0.2 --size 200";
    let report = both_ends(&format!("{line} --rate 40000 --answers generic {tunnel}"));
    let answers = report["answers"].as_u64().unwrap();
    assert!((1_000..=5_300).contains(&answers), "10,000 a second: {report}");
    assert_eq!(both_ends(line)["answers"], Value::Null);
}

#[test]
fn a_sink_alone_counts_what_another_process_sends() {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "eth0", &right, "eth0");
    let sink = sink(&right, 3);
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
fn a_sink_receives_from_all_queues() {
    const SENT: u64 = 64;
    let (left, right) = (Namespace::new(), Namespace::new());
    let (queues, there) = ("numtxqueues 4 numrxqueues 4", right.name());
    left.ip(&format!("link add eth0 {queues} type veth peer name eth0 {queues} netns {there}"));
    for namespace in [&left, &right] {
        rig::quiet(namespace, "eth0");
        namespace.ip("link set dev eth0 up");
    }
    left.ip("addr add 10.0.0.1/24 dev eth0");
    left.ip("neigh add 10.0.0.2 lladdr 2:2:2:2:2:2 dev eth0");
    let sink = sink(&right, 2);
    // The kernel spreads flows over the queues.
    left.enter(|| {
        for _ in 0..SENT {
            let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
            socket.send_to(b"not numbered", "10.0.0.2:9").unwrap();
        }
    });
    let output = sink.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["received"]["foreign"], SENT, "{report}");
}

/// Two namespaces with a veth pair `eth0` between them whose MTU is 9000.
fn jumbo_veth() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "eth0", &right, "eth0");
    left.ip("link set dev eth0 mtu 9000");
    right.ip("link set dev eth0 mtu 9000");
    (left, right)
}

#[test]
fn jumbo_frames_are_sent_and_received_whole() {
    let (left, right) = jumbo_veth();
    for line in [
        "--size 9000",
        "--size 9014 --flows 100 --sink-xdp generic",
        "--size 60:7,9014:1,3841:2,1514:4",
        "--size 9014 --tunnel vxlan --tunnel-src fd20::1 --tunnel-dst fd20::2",
    ] {
        let output = pktgen(&format!(
            "send --interface eth0 --netns {} --sink-interface eth0 --sink-netns {} --dst-mac \
             2:2:2:2:2:2 --src 10.0.0.1 --dst 10.0.0.2 --rate 1000 --seconds 0.3 -o json {line}",
            left.name(),
            right.name()
        ));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (sent, received) = (&report["sent"], &report["received"]);
        assert!(sent["packets"].as_u64().unwrap() > 50, "{report}");
        for what in ["packets", "bytes"] {
            assert_eq!(received[what], sent[what], "{line}: {report}");
        }
        for what in ["lost", "late", "foreign"] {
            assert_eq!(received[what], 0, "{line}: {report}");
        }
    }
}

#[test]
fn jumbo_frames_have_checksums_that_the_kernel_finds_right() {
    let (left, right) = jumbo_veth();
    right.ip("addr add 10.0.0.2/24 dev eth0");
    right.exec("sysctl -qw net.ipv4.conf.all.rp_filter=0");
    // Long ones in chunks that short ones were in, and the other way round.
    let output = pktgen(&format!(
        "send --interface eth0 --netns {} --dst-mac {} --src 10.0.0.1 --dst 10.0.0.2 --size \
         60:2,9014:1,4000:1 --rate 20000 --seconds 1 -o json",
        left.name(),
        right.mac("eth0").map(|byte| format!("{byte:x}")).join(":")
    ));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sent = report["sent"]["packets"].as_u64().unwrap();
    // More than the packet memory has chunks for.
    assert!(sent > 8192, "{report}");
    let counters = right.exec("cat /proc/net/snmp");
    let mut udp = counters.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
    let of = |name| {
        let place = names.split(' ').position(|other| other == name).unwrap();
        values.split(' ').nth(place).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((of("NoPorts"), of("InErrors"), of("InCsumErrors")), (sent, 0, 0), "{counters}");
}

#[test]
fn a_rate_that_cannot_be_met_is_told_plainly() {
    let report = both_ends("--src 10.0.0.1 --dst 10.0.0.2 --rate 900000000");
    assert_eq!(report["sent"]["rate_kept"], false, "{report}");
    assert!(report["notes"].to_string().contains("was not kept"), "{report}");
    let report = both_ends("--src 10.0.0.1 --dst 10.0.0.2 --rate 1000");
    assert_eq!(
        (&report["sent"]["rate_kept"], report["notes"].as_array().unwrap().len()),
        (&Value::Bool(true), 0)
    );
}

#[test]
fn one_cpu_for_all_is_told() {
    let place = Namespace::new();
    let line =
        format!("sink --interface lo --netns {} --seconds 0.1 --xdp generic -o json", place.name());
    place.ip("link set dev lo up");
    let notes = |output: Output| {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|note| note.as_str().unwrap().contains("one CPU"))
    };
    assert!(notes(pinned(&line)));
    assert!(!notes(pktgen(&format!("{line} --cpu 0"))), "chosen by the command line");
}

#[test]
fn a_captures_frames_are_replayed_at_their_pace_or_another() {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "eth0", &right, "eth0");
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = PcapWriter::new(file.reopen().unwrap()).unwrap();
    for number in 0..50_u64 {
        let length = if number == 7 { 2000 } else { 60 };
        let time = Duration::from_millis(number * 10);
        let packet = PcapPacket::new(time, length, &[2; 2000][..length as usize]);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let path = file.path().display();
    let replay = |more: &str| {
        let line = format!("replay --interface eth0 --netns {} --file {path} -o json", left.name());
        let output = pktgen(&format!("{line} {more}"));
        let words = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{words}"))
    };
    let sink = sink(&right, 4);
    let report = replay("");
    assert_eq!((&report["packets"], &report["too_large"]), (&49.into(), &1.into()), "{report}");
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.48..2.0).contains(&seconds), "{report}");
    let fast = replay("--top-speed --loop --seconds 0.2");
    assert!(fast["turns"].as_u64().unwrap() > 10, "{fast}");
    let even = replay("--rate 500 --loop --seconds 0.4");
    assert!((150..=201).contains(&even["packets"].as_u64().unwrap()), "{even}");
    let all: u64 = [&report, &fast, &even].iter().map(|one| one["packets"].as_u64().unwrap()).sum();
    let report: Value = serde_json::from_slice(&sink.wait_with_output().unwrap().stdout).unwrap();
    let received = &report["received"];
    let (foreign, dropped) = (&received["foreign"], &received["dropped_by_kernel"]);
    assert_eq!(foreign.as_u64().unwrap() + dropped.as_u64().unwrap(), all, "{report}");
}

#[test]
fn captured_jumbo_frames_are_replayed_whole() {
    let (left, right) = jumbo_veth();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = PcapWriter::new(file.reopen().unwrap()).unwrap();
    for length in [9014, 60, 3841, 9015] {
        let packet = PcapPacket::new(Duration::ZERO, length, &[2; 9015][..length as usize]);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let before = right.exec("cat /sys/class/net/eth0/statistics/rx_bytes");
    let output = pktgen(&format!(
        "replay --interface eth0 --netns {} --file {} -o json",
        left.name(),
        file.path().display()
    ));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = 9014 + 60 + 3841;
    assert_eq!((&report["bytes"], &report["too_large"]), (&bytes.into(), &1.into()), "{report}");
    let after = right.exec("cat /sys/class/net/eth0/statistics/rx_bytes");
    let [before, after] = [before, after].map(|text| text.trim().parse::<u64>().unwrap());
    assert_eq!(after - before, bytes);
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

#[test]
fn what_cannot_work_is_refused_with_its_reason() {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "eth0", &right, "eth0");
    let refused = |line: &str| {
        let output = pktgen(&format!("{line} --interface eth0 --netns {}", left.name()));
        assert!(!output.status.success(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    };
    let send = "send --src 10.0.0.1 --dst 10.0.0.2 --dst-mac 2:2:2:2:2:2 --seconds 0.1";
    let error = refused(&format!("{send} --size 1515"));
    assert!(error.contains("do not fit its MTU of 1500: 1514 is the most"), "{error}");
    let error = refused(&format!("{send} --size 9000"));
    assert!(error.contains("do not fit its MTU of 1500"), "{error}");
    let error = refused(&format!("{send} --size 9231"));
    assert!(error.contains("too large: 9230 is the most"), "{error}");
    let error = refused("replay --file /dev/null");
    assert!(error.contains("neither pcap nor pcapng"), "{error}");
    right.ip("link set dev eth0 down");
    let error = refused(send);
    assert!(error.contains("eth0 has no carrier"), "{error}");
    left.ip("link set dev eth0 down");
    let error = refused(send);
    assert!(error.contains("eth0 is down: ip link set eth0 up"), "{error}");
}

#[test]
fn a_lack_of_privilege_is_told() {
    let program = env!("CARGO_BIN_EXE_margay-pktgen");
    let copy = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::copy(program, &copy).unwrap();
    std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy);
    let output = command.args(["sink", "--interface", "lo", "--seconds", "1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("not run as root"), "{error}");
}
