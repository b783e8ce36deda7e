//! `node status`, `flows`, `counters` and `version`, asked of a dataplane that is not one.

mod common;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::Output;
use std::sync::Arc;

use common::margayctl;
use etherparse::PacketBuilder;
use margay_model::flow::{FlowCount, FlowTuple, FlowView};
use margay_protocol::proto::sighting::Fate;
use margay_protocol::{Dataplane, FlowFilter, proto, socket};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// A SYN of a pod to a service that left through a tunnel.
fn forwarded() -> proto::Sighting {
    let [src, service, backend] = [[10, 65, 0, 2], [10, 96, 0, 10], [10, 65, 1, 9]];
    let tuple = |dst: [u8; 4], dst_port| proto::FlowTuple {
        src: src.into(),
        dst: dst.into(),
        protocol: 6,
        src_port: 4000,
        dst_port,
    };
    let answer = proto::FlowTuple {
        src: backend.into(),
        dst: src.into(),
        protocol: 6,
        src_port: 8080,
        dst_port: 4000,
    };
    let frame = |dst| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64);
        let mut frame = Vec::new();
        ip.tcp(4000, 80, 1, 100).syn().write(&mut frame, &[]).unwrap();
        frame
    };
    let mut after = Vec::new();
    let outer = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
    let inner = [&[8, 0, 0, 0, 0, 16, 0, 0][..], &frame(backend)].concat();
    outer.udp(50_000, 4789).write(&mut after, &inner).unwrap();
    proto::Sighting {
        time_ns: 1_500_000_000,
        worker: 1,
        generation: 42,
        from: "cali1".into(),
        before: frame(service),
        after,
        arriving: Some(tuple(service, 80)),
        lookup: proto::Lookup::Miss.into(),
        flow: Some(proto::Flow {
            orig: Some(tuple(service, 80)),
            reply: Some(answer),
            state: "SYN_SENT".into(),
            allowed: true,
            egress: Some(proto::RuleHit { policy: "NetworkPolicy/x/out".into(), rule: 3 }),
            ..Default::default()
        }),
        leaving: Some(tuple(backend, 8080)),
        service: "x/web:http".into(),
        hop: Some(proto::Hop {
            interface: "eth0".into(),
            node: "n2".into(),
            encapsulation: "vxlan".into(),
            outer_src: vec![192, 0, 2, 1],
            outer_dst: vec![192, 0, 2, 2],
            mtu: 1450,
            reachable: true,
            ..Default::default()
        }),
        fate: Some(Fate::Forwarded("eth0".into())),
        ..Default::default()
    }
}

/// Six bytes that were no packet.
fn dropped() -> proto::Sighting {
    let (reason, sentence) = ("malformed".into(), "Too short.".into());
    proto::Sighting {
        from: "cali1".into(),
        before: vec![1, 2, 3, 4, 5, 6],
        lookup: proto::Lookup::None.into(),
        fate: Some(Fate::Dropped(proto::Reason { reason, sentence })),
        missed: 7,
        ..Default::default()
    }
}

/// Answers what it was told.
struct Told {
    flows: Vec<FlowView>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Dataplane for Told {
    type SyncStream = Answers<proto::FromDaemon>;
    type ListFlowsStream = Answers<proto::Flow>;
    type ListNamesStream = Answers<proto::NameAddress>;
    type TraceStream = Answers<proto::Sighting>;
    type ProbeStream = Answers<proto::Sighting>;
    type WatchFlowsStream = Answers<proto::FlowReports>;

    async fn sync(
        &self,
        _: Request<Streaming<proto::FromAgent>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        Err(Status::unimplemented("nobody's agent"))
    }

    async fn list_flows(
        &self,
        call: Request<proto::FlowFilter>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let filter = FlowFilter::try_from(call.into_inner())?;
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let wanted = self.flows.iter().filter(|flow| filter.matches(flow)).take(limit);
        let answers: Vec<_> = wanted.map(|flow| Ok(proto::Flow::from(flow))).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn list_names(
        &self,
        _: Request<proto::ListNamesRequest>,
    ) -> Result<Response<Self::ListNamesStream>, Status> {
        let used = |pattern: &str| proto::NameUse {
            set: "d:1".into(),
            patterns: vec![pattern.into()],
            policies: vec!["NetworkPolicy/x/out".into()],
        };
        let row = |name: &str, last, remaining_ms, uses| proto::NameAddress {
            name: name.into(),
            address: vec![192, 0, 2, last],
            remaining_ms,
            uses,
        };
        let rows = [
            row("www.example.com", 1, 59_001, vec![used("*.example.com")]),
            row("old.example.com", 2, 0, vec![used("*.example.com")]),
            row("nobody.example.net", 3, 5_000, vec![]),
        ];
        Ok(Response::new(Box::pin(tokio_stream::iter(rows.map(Ok)))))
    }

    async fn list_rule_counts(
        &self,
        _: Request<proto::ListRuleCountsRequest>,
    ) -> Result<Response<proto::RuleCounts>, Status> {
        let count = |policy: &str, rule, ingress, allowed| proto::RuleCount {
            policy: policy.into(),
            rule,
            ingress,
            allowed,
            connections: 3,
            packets: 12,
            bytes: 3400,
        };
        Ok(Response::new(proto::RuleCounts {
            counts: vec![
                count("NetworkPolicy/shop/front", 1, true, true),
                count("Tier//default", 0, true, false),
                count("", 0, false, false),
            ],
            flows_lost: 7,
            denials_unremembered: 0,
        }))
    }

    async fn watch_flows(
        &self,
        _: Request<proto::WatchFlowsRequest>,
    ) -> Result<Response<Self::WatchFlowsStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn get_counters(
        &self,
        _: Request<proto::GetCountersRequest>,
    ) -> Result<Response<proto::Counters>, Status> {
        let reason = |reason: &str, packets| proto::ReasonCounter {
            reason: reason.into(),
            packets,
            sentence: format!("what {reason} means"),
        };
        Ok(Response::new(proto::Counters {
            ports: vec![proto::PortCounters {
                port: "cali1".into(),
                rx_packets: 10,
                rx_bytes: 1000,
                tx_packets: 7,
                tx_bytes: 700,
            }],
            drops: vec![reason("policy", 3), reason("spoof", 0)],
            punts: vec![reason("arp", 2)],
            injected: vec![reason("arp", 2)],
            consumed: vec![],
            flow_misses: 4,
            flow_evictions: 0,
        }))
    }

    async fn trace(
        &self,
        call: Request<proto::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let request = call.into_inner();
        if request.pod == "default/nobody" {
            return Err(Status::not_found("default/nobody is no pod of this node"));
        }
        let sightings = [forwarded(), dropped()].into_iter().take(request.limit as usize);
        let answers: Vec<_> = sightings.map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    /// Says of each frame where it was to come from, and gives it back.
    async fn probe(
        &self,
        call: Request<proto::ProbeRequest>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        let frames = call.into_inner().frames.into_iter();
        let answers: Vec<_> = frames
            .map(|frame| Ok(proto::Sighting { before: frame.bytes, from: frame.from, ..dropped() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        let fallback = proto::ModeFallback {
            mode: proto::XdpMode::Zerocopy.into(),
            reason: "the driver of eth0 has none".into(),
        };
        Ok(Response::new(proto::Status {
            release: "9.8.7".into(),
            version: 1,
            node: "n1".into(),
            uptime_ms: 61_500,
            generation: 42,
            agent_connected: true,
            state_origin: proto::StateOrigin::Agent.into(),
            state: Some(proto::StateCounts { endpoints: 2, policies: 5, ..Default::default() }),
            workers: vec![proto::Worker { index: 0, cpu: Some(3), sleeping: true, packets: 17 }],
            ports: vec![proto::Port {
                name: "eth0".into(),
                ifindex: 4,
                role: proto::PortRole::Uplink.into(),
                kind: proto::PortKind::Native.into(),
                mode: proto::XdpMode::Copy.into(),
                queues: 1,
                fallbacks: vec![fallback],
                up: true,
                endpoint: String::new(),
            }],
            flow_table: Some(proto::FlowTable { capacity: 1000, used: 2, denied: 1 }),
            shortcut: Some(proto::Shortcut { connections: 3 }),
            endpoints_down: vec![proto::EndpointStatus {
                key: "x/a/eth0".into(),
                up: false,
                reason: "cali9 is gone".into(),
            }],
            ..Default::default()
        }))
    }
}

/// A dataplane that runs until it is dropped.
struct Running {
    dir: TempDir,
    _runtime: Runtime,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let _context = runtime.enter();
        let (listener, file) = socket::bind(&dir.path().join("margayd.sock")).unwrap();
        runtime.spawn(async move {
            let _file = file;
            socket::serve(listener, Told { flows: flows() }, std::future::pending()).await
        });
        drop(_context);
        Self { dir, _runtime: runtime }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("margayd.sock")
    }

    fn run(&self, command: &str) -> Output {
        let (dataplane, agent) = (self.socket(), self.dir.path().join("agent.sock"));
        let options = [
            format!("--dataplane=unix:{}", dataplane.display()),
            format!("--agent=unix:{}", agent.display()),
        ];
        let words = options.iter().map(String::as_str).chain(command.split_whitespace());
        margayctl(&words.collect::<Vec<_>>(), "")
    }

    fn good(&self, command: &str) -> String {
        let output = self.run(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.good(&format!("{command} -o json"))).unwrap()
    }
}

/// A connection through a service that is allowed, and one that is denied.
fn flows() -> Vec<FlowView> {
    let tuple = |src: &str, dst: &str, protocol, ports: (u16, u16)| FlowTuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol,
        src_port: ports.0,
        dst_port: ports.1,
    };
    let allowed = FlowView {
        orig: tuple("10.0.0.1", "10.96.0.10", 6, (4000, 80)),
        reply: tuple("10.0.0.2", "10.0.0.1", 6, (8080, 4000)),
        orig_count: FlowCount { packets: 5, bytes: 500 },
        reply_count: FlowCount { packets: 4, bytes: 4000 },
        state: "ESTABLISHED",
        idle_ms: 1_250,
        allowed: true,
        denied: None,
        shortcut: true,
        egress: Some((Arc::from("Profile//kns.x"), 0)),
        ingress: None,
    };
    let denied = FlowView {
        orig: tuple("fd00::1", "fd00::2", 58, (7, 0)),
        reply: tuple("fd00::2", "fd00::1", 58, (7, 0)),
        reply_count: FlowCount::default(),
        state: "DENIED",
        allowed: false,
        denied: Some(margay_model::DropReason::Policy),
        shortcut: false,
        egress: None,
        ..allowed.clone()
    };
    vec![allowed, denied]
}

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
fn connections_are_listed_with_both_directions_and_what_decided() {
    let node = Running::start();
    let flows = node.json("flows");
    let expected = json!({
        "orig": {"src": "10.0.0.1", "dst": "10.96.0.10", "protocol": "TCP", "srcPort": 4000, "dstPort": 80},
        "reply": {"src": "10.0.0.2", "dst": "10.0.0.1", "protocol": "TCP", "srcPort": 8080, "dstPort": 4000},
        "origCount": {"packets": 5, "bytes": 500}, "replyCount": {"packets": 4, "bytes": 4000},
        "state": "ESTABLISHED", "idleMs": 1250, "verdict": "allow", "shortcut": true,
        "egress": {"policy": "Profile//kns.x", "rule": 0}, "ingress": null,
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
    node.good(&format!("capture --count 2 -w {}", file.display()));
    let again = told(&format!("--pcap {}", file.display()));
    // Both sides of the one that was forwarded, one of the one that was dropped.
    assert_eq!(again.matches("received").count(), 3, "{again}");
    assert!(again.contains("VXLAN 4096"), "{again}");

    for (command, why) in [
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

#[test]
fn policy_diff_tells_which_connections_documents_would_cut() {
    let node = Running::start();
    let pod = |name: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{pod: \
             {name}}}}}\nstatus: {{podIP: {ip}}}\n---\n"
        )
    };
    let store = common::datastore(&(pod("a", "10.0.0.1") + &pod("b", "10.0.0.2")));
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
