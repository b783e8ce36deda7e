//! `trace` and `capture`.

use serde_json::{Value, json};

use crate::running::Running;

#[test]
fn a_packets_way_is_told_stage_by_stage() {
    let node = Running::start();
    let expected = "\
1970-01-01T00:00:01.5Z  worker 1, generation 42
  received  cali1, 54 bytes: IPv4 10.65.0.2 → 10.96.0.10 ttl 64 · TCP 4000 → 80 SYN
  parse     TCP 10.65.0.2:4000 → 10.96.0.10:80
  flow      miss, decided now; TCP SYN_SENT, allow
  service   x/web:http → 10.65.1.9:8080
  egress    NetworkPolicy/x/out#3
  route     eth0, vxlan to node n2 (192.0.2.1 → 192.0.2.2), MTU 1450
  rewrite   TCP 10.65.0.2:4000 → 10.65.1.9:8080
  forwarded eth0, 104 bytes: IPv4 192.0.2.1 → 192.0.2.2 ttl 64 · UDP 50000 → 4789 · VXLAN 4096 · \
IPv4 10.65.0.2 → 10.65.1.9 ttl 64 · TCP 4000 → 80 SYN

";
    assert_eq!(node.good("trace --count 1"), expected);

    let output = node.run("trace --count 2 -o json");
    let lines = String::from_utf8(output.stdout).unwrap();
    let ways: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&ways[0]["fate"], &ways[0]["to"]), (&json!("forwarded"), &json!("eth0")));
    assert_eq!(ways[0]["route"]["outerDst"], "192.0.2.2");
    assert_eq!((&ways[1]["fate"], &ways[1]["reason"]), (&json!("dropped"), &json!("malformed")));
    assert!(String::from_utf8_lossy(&output.stderr).contains("7 more packets matched"));
}

#[test]
fn a_dry_run_asks_for_the_packet_that_was_described_or_captured() {
    let node = Running::start();
    let told = |options: &str| node.good(&format!("trace --dry-run {options}"));
    for (options, frame) in [
        ("--src 10.0.0.1 --dst 10.0.0.2 --dport 80", "TCP 40000 → 80 SYN"),
        ("--src fd00::1 --dst fd00::2 --dport 53 --protocol UDP", "UDP 40000 → 53"),
        ("--src 10.0.0.1 --dst 10.0.0.2 --protocol ICMP --ttl 3", "10.0.0.2 ttl 3 · ICMP 8/0"),
        ("--src fd00::1 --dst fd00::2 --protocol ICMPv6", "ICMPv6 128/0"),
        ("--src 10.0.0.1 --dst 10.0.0.2 --protocol SCTP --dport 9", "protocol 132"),
    ] {
        assert!(told(options).contains(frame), "{options}: {}", told(options));
    }
    assert!(told("--src 10.0.0.1 --dst 10.0.0.2 --dport 1 --from cali9").contains("cali9, "));

    let file = node.dir.path().join("x.pcapng");
    let said = node.run(&format!("capture --count 2 -w {}", file.display()));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(": 3 frames written to "), "{said}");
    let again = told(&format!("--pcap {}", file.display()));
    // Both sides of the one that was forwarded, one of the one that was dropped.
    assert_eq!(again.matches("received").count(), 3, "{again}");
    assert!(again.contains("VXLAN 4096"), "{again}");

    // Cut off within its last block.
    let cut = node.dir.path().join("cut.pcapng");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &whole[..whole.len() - 3]).unwrap();
    // Packets without Ethernet headers: raw IP, LINKTYPE_RAW.
    let raw = node.dir.path().join("raw.pcap");
    let header = [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535, 101];
    std::fs::write(&raw, header.map(u32::to_be_bytes).as_flattened()).unwrap();

    let (cut, raw) = (format!("trace --dry-run --pcap {}", cut.display()), raw.display());
    for (command, why) in [
        (&*cut, "cut.pcapng: "),
        (&*format!("trace --dry-run --pcap {raw}"), "no Ethernet headers"),
        ("trace --dry-run --src 10.0.0.1 --dst 10.0.0.2 --protocol ICMPv6", "another family"),
        ("trace --dry-run --src 10.0.0.1 --dst 10.0.0.2 --dport 1 --drops", "--drops"),
        ("trace --dry-run", "--src and --dst"),
        ("trace --dry-run --src 10.0.0.1 --dst fd00::1 --dport 1", "different families"),
        ("trace --dry-run --src 10.0.0.1 --dst 10.0.0.2", "--dport"),
        ("trace --dry-run --pcap /nowhere/x", "/nowhere/x"),
        ("trace --src 10.0.0.1 --dst 10.0.0.2", "--dry-run"),
        ("trace --pod nobody", "default/nobody is no pod"),
    ] {
        let output = node.run(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(why), "{command}: {errors}");
    }
}
