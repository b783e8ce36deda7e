//! The procedures of RFC 2544 and RFC 8219 on devices whose limits are known: the kernel forwards
//! from one namespace to another, and nftables drops what is above a rate.

#[path = "../../../fastpath/xsk/tests/rig/mod.rs"]
mod rig;

use std::process::{Command, Output};

use rig::{Namespace, veth};
use serde_json::Value;

/// Packets a second that the limited device lets through, and its burst: 50 ms of them, since a
/// machine that is busy elsewhere sends late and then more at once.
const RATE: f64 = 20_000.0;
const BURST: u32 = 1000;

/// Two ends with a forwarding kernel between them.
struct Device {
    left: Namespace,
    kernel: Namespace,
    right: Namespace,
}

impl Device {
    fn new() -> Self {
        let (left, kernel, right) = (Namespace::new(), Namespace::new(), Namespace::new());
        for (end, inner, network) in [(&left, "a", "10.1.0"), (&right, "b", "10.2.0")] {
            veth(end, "eth0", &kernel, inner);
            kernel.ip(&format!("addr add {network}.254/24 dev {inner}"));
            let mac = hex(end.mac("eth0"));
            kernel.ip(&format!("neigh replace {network}.1 lladdr {mac} dev {inner} nud permanent"));
        }
        kernel.exec("sysctl -qw net.ipv4.ip_forward=1");
        Self { left, kernel, right }
    }

    /// Drops what is above a rate, forwarded in either direction.
    fn limited(rate: f64, burst: u32) -> Self {
        let device = Self::new();
        device.kernel.exec("nft add table ip t");
        device.kernel.exec("nft add chain ip t f { type filter hook forward priority 0 ; }");
        let rule = format!("limit rate over {rate}/second burst {burst} packets drop");
        device.kernel.exec(&format!("nft add rule ip t f {rule}"));
        device
    }

    fn run(&self, line: &str, mac: [u8; 6]) -> Output {
        let all = format!(
            "{line} --interface eth0 --netns {} --sink-interface eth0 --sink-netns {} --src 10.1.0.1 \
             --dst 10.2.0.1 --dst-mac {} --settle 0.1 -o json",
            self.left.name(),
            self.right.name(),
            hex(mac)
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_margay-pktgen"));
        command.args(all.split_whitespace()).output().unwrap()
    }

    fn measure(&self, line: &str) -> Value {
        let output = self.run(line, self.kernel.mac("a"));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
        eprintln!("{words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn hex(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// That there is a note with these words in it.
fn noted(report: &Value, words: &str) {
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains(words)), "{words}: {notes:?}");
}

#[test]
fn the_search_finds_the_rate_above_which_a_device_loses() {
    let device = Device::limited(RATE, BURST);
    let report = device.measure(
        "rfc2544 throughput --sizes 64,512 --max-rate 90000 --seconds 1 --pause 0.2 --resolution 0.02",
    );
    for row in report["rows"].as_array().unwrap() {
        let found = row["throughput"]["packets_per_second"].as_f64().unwrap();
        // The burst passes beside the rate.
        let most = RATE + f64::from(BURST);
        assert!((RATE * 0.95..most * 1.02).contains(&found), "{report}");
        assert_eq!(row["throughput"]["limited_by_device"], true, "{report}");
    }
    noted(&report, "trials of 1 s; RFC 2544 wants 60 s");
}

#[test]
fn a_device_that_loses_nothing_is_not_said_to_be_the_limit() {
    let device = Device::new();
    let report = device.measure(
        "rfc2544 throughput latency --sizes 64 --max-rate 5000 --seconds 0.3 --pause 0 --repeats 3",
    );
    let row = &report["rows"][0];
    assert_eq!(row["throughput"]["packets_per_second"], 5000.0, "{report}");
    assert_eq!(row["throughput"]["limited_by_device"], false, "{report}");
    noted(&report, "the device may do more");
    let latency = &row["latency"];
    assert_eq!((&latency["repeats"], &latency["rate"]), (&3.into(), &5000.0.into()), "{report}");
    let of = |what: &str| latency[what].as_f64().unwrap();
    assert!(0.0 < of("min") && of("min") <= of("p50") && of("p50") <= of("max"), "{report}");
    noted(&report, "latency: 3 times; RFC 2544 wants 20");
}

#[test]
fn loss_is_told_by_rate_until_twice_nothing_is_lost() {
    let device = Device::limited(RATE, BURST);
    let report = device.measure("rfc2544 loss --sizes 64 --max-rate 40000 --seconds 1 --pause 0.2");
    let points = report["rows"][0]["loss"].as_array().unwrap();
    let lost = |percent: u32| {
        let point = points.iter().find(|point| point["percent"] == percent);
        point.map(|point| point["lost"].as_f64().unwrap())
    };
    // 40,000 offered; 20,000 and a burst of 1,000 pass.
    assert!((0.40..0.55).contains(&lost(100).unwrap()), "{report}");
    assert!((0.25..0.40).contains(&lost(70).unwrap()), "{report}");
    assert_eq!(lost(50), Some(0.0), "{report}");
    assert!(points.len() < 10, "it ends before the lowest rates: {report}");
}

#[test]
fn rates_that_cannot_be_met_are_told_and_not_believed() {
    let device = Device::limited(RATE, BURST);
    let report = device.measure(
        "rfc2544 throughput loss --sizes 64 --max-rate 900000000 --seconds 0.3 --pause 0.1 --resolution 0.1",
    );
    noted(&report, "not every rate asked for could be sent");
    let row = &report["rows"][0];
    assert_eq!(row["throughput"]["rate_kept"], false, "{report}");
    let points = row["loss"].as_array().unwrap();
    let rate = |place: usize| points[place]["rate"].as_f64().unwrap();
    assert_eq!(
        (&points[0]["percent"], &points[0]["rate_kept"]),
        (&100.into(), &false.into()),
        "{report}"
    );
    assert!(rate(4) < rate(0) * 0.9, "tenths of what could be sent: {report}");
}

#[test]
fn the_longest_burst_is_the_one_that_a_device_holds() {
    let device = Device::limited(2000.0, 500);
    let report = device.measure(
        "rfc2544 back-to-back --sizes 64 --seconds 0.05 --repeats 1 --pause 0.4 --resolution 0.02",
    );
    let found = &report["rows"][0]["back_to_back"];
    let frames = found["frames"].as_f64().unwrap();
    assert!((480.0..700.0).contains(&frames), "{report}");
    assert_eq!(found["limited_by_device"], true, "{report}");
}

#[test]
fn both_directions_are_measured_at_once() {
    let device = Device::new();
    let back = hex(device.kernel.mac("b"));
    let report = device.measure(&format!(
        "rfc2544 throughput --sizes 64,1518 --max-rate 3000 --seconds 0.3 --pause 0 --flows 10 --both \
         {back}"
    ));
    assert_eq!(report["both_directions"], true, "{report}");
    for row in report["rows"].as_array().unwrap() {
        assert_eq!(row["throughput"]["packets_per_second"], 3000.0, "{report}");
    }
    let sums = device.kernel.exec("cat /sys/class/net/a/statistics/tx_packets");
    assert!(sums.trim().parse::<u64>().unwrap() >= 1000, "packets go back: {sums}");
}

#[test]
fn jumbo_frames_are_measured_in_both_directions() {
    let device = Device::new();
    device.kernel.ip("link set dev a mtu 9000");
    device.kernel.ip("link set dev b mtu 9000");
    device.left.ip("link set dev eth0 mtu 9000");
    device.right.ip("link set dev eth0 mtu 9000");
    let back = hex(device.kernel.mac("b"));
    let report = device.measure(&format!(
        "rfc8219 throughput --sizes 64,4096,9018,9216 --max-rate 2000 --seconds 0.3 --pause 0 --both \
         {back}"
    ));
    let rows = report["rows"].as_array().unwrap();
    let sizes: Vec<_> = rows.iter().map(|row| row["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [64, 4096, 9018]);
    noted(&report, "frames of [9216] bytes left out");
    for row in rows {
        assert_eq!(row["throughput"]["packets_per_second"], 2000.0, "{report}");
    }
}

#[test]
fn tunnels_are_measured_with_their_overhead_and_delay_variation() {
    let device = Device::new();
    let report = device.measure(
        "rfc8219 all --rate 2000 --max-rate 2000 --seconds 0.2 --pause 0 --repeats 1 --overhead 50",
    );
    assert_eq!((&report["overhead"], &report["standard"]), (&50.into(), &"RFC 8219".into()));
    let rows = report["rows"].as_array().unwrap();
    let sizes: Vec<_> = rows.iter().map(|row| row["size"].as_u64().unwrap()).collect();
    assert_eq!(
        sizes,
        [64, 128, 256, 512, 768, 1024, 1280],
        "1518 and 50 do not fit an MTU of 1500"
    );
    noted(&report, "left out");
    for row in rows {
        let pdv = row["variation"]["pdv"].as_f64().unwrap();
        let span = row["variation"]["ipdv_max"].as_f64().unwrap();
        assert!(pdv >= 0.0 && span > 0.0, "{row}");
    }
}

#[test]
fn where_nothing_arrives_that_is_said_before_any_trial() {
    let device = Device::new();
    let output = device.run("rfc2544 all --sizes 64", [2, 2, 2, 2, 2, 2]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("nothing arrived"), "{error}");
    assert!(error.contains("own the Ethernet address"), "{error}");
}
