//! `policy simulate` on a large cluster, against the contract's time. Only a release build is
//! meant to keep it: `cargo test --release -p margayctl --test scale -- --ignored --nocapture`.
//! With `MARGAY_SCALE_DIR` the datastore and `flows.jsonl` are left there, e.g. for a profiler.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::margayctl;
use serde_json::json;

const NAMESPACES: usize = 100;
const PODS: usize = 5_000;
const POLICIES: usize = 10_000;
const FLOWS: usize = 100_000;
const LIMIT: Duration = Duration::from_secs(5);

/// A sequence that is the same in every run (Knuth's 64-bit linear congruence).
struct Sequence(u64);

// === impl Sequence ===

impl Sequence {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn pod_address(pod: usize) -> String {
    format!("10.{}.{}.{}", 1 + pod / 62_500, pod / 250 % 250, 1 + pod % 250)
}

/// Namespaces with labels, nodes, tiers, sets of networks, services.
fn surroundings() -> String {
    let mut text = String::new();
    for i in 0..NAMESPACES {
        let (team, env) = (i % 10, ["prod", "test", "dev"][i % 3]);
        write!(
            text,
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ns-{i}\n  labels: {{team: t{team}, env: {env}}}\n"
        )
        .unwrap();
        write!(
            text,
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: node-{i}}}\nstatus:\n  addresses:\n  - {{type: InternalIP, address: 192.168.0.{i}}}\n"
        )
        .unwrap();
        let nets: Vec<_> = (0..50).map(|net| format!("172.{}.{net}.0/24", 16 + i % 16)).collect();
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: set-{i}\n  labels: {{set: s{i}}}\nspec: {{nets: [{}]}}\n",
            nets.join(", ")
        )
        .unwrap();
        for service in 0..5 {
            write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service}, namespace: ns-{i}}}\nspec:\n  clusterIP: 10.200.{i}.{service}\n  selector: {{app: a{service}}}\n  ports:\n  - {{port: 80, targetPort: http}}\n"
            )
            .unwrap();
        }
    }
    for (tier, order) in [("security", 100), ("platform", 200), ("application", 300)] {
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: {tier}}}\nspec: {{order: {order}, defaultAction: Pass}}\n"
        )
        .unwrap();
    }
    text
}

fn pod(i: usize) -> String {
    let (app, role, version) = (i % 53, ["front", "middle", "back"][i % 3], i % 4);
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-{i}\n  namespace: ns-{}\n  labels:\n    app: a{app}\n    role: {role}\n    version: v{version}\nspec:\n  nodeName: node-{}\n  serviceAccountName: sa-{}\n  containers:\n  - name: main\n    ports:\n    - {{name: http, containerPort: 8080}}\n    - {{name: dns, containerPort: 53, protocol: UDP}}\nstatus:\n  phase: Running\n  podIP: {address}\n  podIPs:\n  - ip: {address}\n",
        i % NAMESPACES,
        i % NAMESPACES,
        i % 7,
        address = pod_address(i),
    )
}

/// A policy: of four, two are Kubernetes', one Calico's of a namespace, one Calico's of the
/// cluster.
fn policy(i: usize) -> String {
    let namespace = i % NAMESPACES;
    let (app, peer, port) = (i % 53, i * 7 % 53, 1000 + i % 500);
    match i % 4 {
        0 => format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p-{i}, namespace: ns-{namespace}}}\nspec:\n  podSelector:\n    matchLabels: {{app: a{app}}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    - podSelector: {{matchLabels: {{app: a{peer}}}}}\n    - namespaceSelector: {{matchLabels: {{team: t{team}}}}}\n    ports:\n    - {{protocol: TCP, port: {port}}}\n    - {{protocol: TCP, port: http}}\n  egress:\n  - to:\n    - ipBlock: {{cidr: 10.0.0.0/8, except: [10.{team}.0.0/16]}}\n    ports:\n    - {{port: 1, endPort: 9000}}\n",
            team = i % 10,
        ),
        1 => format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p-{i}, namespace: ns-{namespace}}}\nspec:\n  podSelector:\n    matchExpressions:\n    - {{key: role, operator: In, values: [front, back]}}\n    - {{key: version, operator: NotIn, values: [v{}]}}\n  ingress:\n  - from:\n    - ipBlock: {{cidr: 198.51.{}.0/24}}\n    - ipBlock: {{cidr: 203.0.113.0/24, except: [203.0.113.{}/32]}}\n  - from:\n    - namespaceSelector: {{matchExpressions: [{{key: env, operator: Exists}}]}}\n      podSelector: {{matchLabels: {{role: front}}}}\n    ports: [{{protocol: UDP, port: dns}}, {{protocol: TCP, port: {port}}}]\n",
            i % 4,
            i % 256,
            i % 256,
        ),
        2 => format!(
            "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p-{i}, namespace: ns-{namespace}}}\nspec:\n  tier: {}\n  order: {}\n  selector: app == \"a{app}\" && role != \"back\"\n  types: [Ingress, Egress]\n  ingress:\n  - action: Allow\n    protocol: TCP\n    source: {{selector: 'app in {{\"a{peer}\", \"a{app}\"}}', namespaceSelector: 'team == \"t{}\"'}}\n    destination: {{ports: [{port}, \"8000:8100\", http]}}\n  - action: Pass\n  egress:\n  - action: Deny\n    protocol: UDP\n    destination: {{nets: [10.99.0.0/16], notPorts: [53]}}\n  - action: Pass\n",
            ["security", "platform", "application", "default"][i / 4 % 4],
            i % 1000,
            i % 10,
        ),
        _ => format!(
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p-{i}}}\nspec:\n  tier: {}\n  order: {}\n  selector: {}\n  types: [Ingress]\n  ingress:\n  - action: Deny\n    source: {{selector: set == \"s{}\"}}\n  - action: Allow\n    protocol: TCP\n    source: {{nets: [192.0.2.{}/32, 10.1.0.0/20]}}\n    destination: {{ports: [{port}]}}\n  - action: Pass\n    notProtocol: ICMP\n",
            ["security", "platform", "application", "default"][i / 4 % 4],
            i % 1000,
            match i / 4 % 50 {
                0 => "all()".to_owned(),
                1 => format!("app starts with \"a{}\"", app / 10),
                2 => format!("has(version) && !(role == \"front\") && app contains \"{app}\""),
                _ => format!("app == \"a{app}\" && version in {{\"v{}\", \"v9\"}}", i % 4),
            },
            i % 100,
            i % 256,
        ),
    }
}

/// One or two conditions on labels, each of which a large part of all pods fulfils.
fn broad(random: &mut Sequence) -> String {
    let condition = match random.below(6) {
        0 => format!("version == 'v{}'", random.below(4)),
        1 => format!("role != '{}'", ["front", "middle", "back"][random.below(3)]),
        2 => format!("app in {{'a{}', 'a{}'}}", random.below(53), random.below(53)),
        3 => format!("app starts with 'a{}'", random.below(6)),
        4 => "has(role)".to_owned(),
        _ => format!("!(app == 'a{}')", random.below(53)),
    };
    if random.below(5) < 2 { format!("{condition} && {}", broad(random)) } else { condition }
}

/// A policy that selects many pods and lets many in: of the cluster, or of a namespace.
fn broad_policy(i: usize, random: &mut Sequence) -> String {
    let (kind, namespace) = match i % 2 {
        0 => ("GlobalNetworkPolicy", String::new()),
        _ => ("NetworkPolicy", format!(", namespace: ns-{}", i % NAMESPACES)),
    };
    let mut rule = |side: &str| {
        let action = ["Allow", "Allow", "Deny", "Pass"][random.below(4)];
        let port = [53, 80, 1000 + random.below(500), 8080][random.below(4)];
        let ports = if random.below(2) == 0 {
            format!("destination: {{ports: [{port}]}}, ")
        } else {
            String::new()
        };
        let protocol = ["TCP", "UDP"][random.below(2)];
        match side {
            "source" => format!(
                "{{action: {action}, protocol: {protocol}, {ports}source: {{selector: \"{}\"}}}}",
                broad(random)
            ),
            _ => format!(
                "{{action: {action}, protocol: {protocol}, destination: {{selector: \"{}\"}}}}",
                broad(random)
            ),
        }
    };
    let (ingress, egress) = ([rule("source"), rule("source")].join(", "), rule("destination"));
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: p-{i}{namespace}}}\nspec:\n  tier: {}\n  order: {}\n  selector: \"{}\"\n  types: [{}]\n  ingress: [{ingress}]\n  egress: [{egress}]\n",
        ["security", "platform", "application", "default"][i / 4 % 4],
        i % 1000,
        broad(random),
        ["Ingress", "Egress", "Ingress, Egress"][i % 3],
    )
}

/// How a datastore is laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// In a few files.
    Few,
    /// A file for each pod and policy.
    Many,
    /// In a few files, with policies that concern thousands of pods each.
    Broad,
}

fn write_datastore(dir: &Path, layout: Layout) {
    fs::write(dir.join("surroundings.yaml"), surroundings()).unwrap();
    let mut random = Sequence(2);
    let mut policy = |i| match layout {
        Layout::Broad => broad_policy(i, &mut random),
        _ => policy(i),
    };
    let objects = (0..PODS).map(|i| ("pod", i, pod(i)));
    let objects = objects.chain((0..POLICIES).map(|i| ("policy", i, policy(i))));
    if layout != Layout::Many {
        let text: String = objects.map(|(.., text)| text).collect();
        fs::write(dir.join("objects.yaml"), text).unwrap();
        return;
    }
    for (what, i, text) in objects {
        fs::write(dir.join(format!("{what}-{i}.yaml")), text).unwrap();
    }
}

fn flows() -> String {
    let mut random = Sequence(1);
    let mut text = String::new();
    for i in 0..FLOWS {
        let mut address = |i: usize| match i % 10 {
            0 => format!("198.51.100.{}", random.below(256)),
            1 => format!("172.{}.{}.9", 16 + random.below(16), random.below(50)),
            _ => pod_address(random.below(PODS)),
        };
        let (src, dst) = (address(i), address(i / 10));
        let dst = if i % 8 == 7 { format!("10.200.{}.{}", i % 100, i % 5) } else { dst };
        let line = match i % 6 {
            0 => json!({"src": src, "dst": dst, "protocol": "UDP", "srcPort": 4000, "dstPort": 53}),
            1 => json!({"src": src, "dst": dst, "protocol": "ICMP", "icmpType": 8, "icmpCode": 0}),
            2 => json!({"src": src, "dst": dst, "protocol": "TCP", "dstPort": 8080}),
            3 => json!({"src": src, "dst": dst, "protocol": "TCP", "dstPort": 80}),
            _ => json!({"src": src, "dst": dst, "protocol": 6, "dstPort": 1000 + i % 500}),
        };
        writeln!(text, "{line}").unwrap();
    }
    text
}

fn within_the_limit(layout: Layout) {
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("MARGAY_SCALE_DIR");
    let dir = kept.map_or_else(|| temporary.path().to_owned(), |dir| Path::new(&dir).to_owned());
    let store = dir.join(format!("{layout:?}"));
    fs::create_dir_all(&store).unwrap();
    write_datastore(&store, layout);
    let file = dir.join("flows.jsonl");
    fs::write(&file, flows()).unwrap();
    let url = format!("dir:{}", store.display());
    let begun = Instant::now();
    let output = margayctl(
        &["--datastore", &url, "policy", "simulate", "--flows", file.to_str().unwrap()],
        "",
    );
    let took = begun.elapsed();
    eprintln!("{FLOWS} flows, {POLICIES} policies, {PODS} pods, {layout:?}: {took:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), FLOWS);
    assert!(took <= LIMIT, "{took:?}");
}

#[test]
#[ignore = "only a release build keeps the time"]
fn a_large_cluster_in_a_few_files_is_simulated_in_time() {
    within_the_limit(Layout::Few);
}

#[test]
#[ignore = "only a release build keeps the time"]
fn a_large_cluster_in_many_files_is_simulated_in_time() {
    within_the_limit(Layout::Many);
}

#[test]
#[ignore = "only a release build keeps the time"]
fn policies_that_concern_thousands_of_pods_each_are_simulated_in_time() {
    within_the_limit(Layout::Broad);
}
