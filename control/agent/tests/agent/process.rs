//! The process: signals, logs, health.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use margay_cni_api::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::cni::{add, call};
use crate::dataplane::Told;
use crate::rig::{Directory, POOL, wait_for_socket};

/// The agent's executable, running.
struct Process {
    child: Child,
    metrics: String,
    log: Arc<Mutex<String>>,
}

// === impl Process ===

impl Process {
    fn start(directory: &Directory, node: &str) -> Self {
        let given = directory.given(node, "192.0.2.1/24");
        let metrics = given.metrics.expect("an address");
        let mut child = Command::new(env!("CARGO_BIN_EXE_margay-agent"))
            .args(["--node", node, "--node-ip", "192.0.2.1/24", "--metrics", &metrics])
            .args(["--datastore", &given.datastore.expect("a datastore")])
            .arg("--socket")
            .arg(given.socket.expect("a socket"))
            .env("MARGAY_DATAPLANE", given.dataplane.expect("a dataplane"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let stderr = child.stderr.take().expect("its standard error");
        let log = Arc::new(Mutex::new(String::new()));
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                sink.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, metrics, log }
    }

    /// Status and body of an answer.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.metrics).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics").expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a whole number")
    }

    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is(self) {
            assert!(begin.elapsed() < Duration::from_secs(10), "never {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_signal_ends_the_process_with_0_and_removes_its_socket() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let mut process = Process::start(&directory, "a");
    let socket = directory.given("a", "192.0.2.1/24").socket.expect("a socket");
    wait_for_socket(&socket).await;
    let pid = Pid::from_raw(process.child.id().cast_signed()).expect("a process");
    kill_process(pid, Signal::TERM).expect("a signal");
    let status = process.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_document_is_logged_with_its_place_and_its_last_good_version_stays() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let process = Process::start(&directory, "a");
    let before = dataplane.until("told a state", |told| told.full_states == 1).await;
    let before = before.state.pools;

    directory.write("pool.yaml", &POOL.replace("natOutgoing: true", "natOutgoing: maybe"));
    process.until("logged", |process| {
        let log = process.log.lock().unwrap();
        log.lines().any(|line| {
            let parts = ["ERROR", "pool.yaml", "line=5", "spec.natOutgoing"];
            parts.iter().all(|part| line.contains(part))
        })
    });
    assert_eq!(dataplane.told().state.pools, before);

    directory.write("pool.yaml", &POOL.replace("natOutgoing: true", "natOutgoing: false"));
    let is_mended = |told: &Told| told.state.pools.values().all(|pool| !pool.nat_outgoing);
    dataplane.until("told of the mended document", is_mended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_not_followed_is_told() {
    let directory = Directory::new();
    let felix = "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, \
        metadata: {name: default}, spec: {natOutgoingExclusions: IPPoolsAndHostIPs}}";
    directory.write("felix.yaml", felix);
    let _dataplane = directory.dataplane("a");
    Process::start(&directory, "a").until("logged", |process| {
        let parts = ["WARN", "default", "spec.natOutgoingExclusions", "has no effect here"];
        let log = process.log.lock().unwrap();
        log.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_once_a_state_is_in_force_and_metrics_say_so() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let process = Process::start(&directory, "a");
    process.until("live", |p| p.get("/liveness").is_some_and(|(status, _)| status == 200));
    let (status, why) = process.get("/readiness").expect("an answer");
    assert_eq!(status, 503);
    assert!(why.contains("margayd") || why.contains("datastore"), "{why}");

    let _dataplane = directory.dataplane("a");
    process.until("ready", |p| p.get("/readiness").is_some_and(|(status, _)| status == 200));
    let (_, text) = process.get("/metrics").expect("metrics");
    for line in ["margay_publisher_connected 1", "margay_publisher_full_states_total 1"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

fn pod(labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p1, namespace: default, labels: {{{labels}}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_label_among_ten_thousand_policies_touches_only_those_that_mention_it() {
    const POLICIES: usize = 10_000;
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    directory.write("pod.yaml", &pod("app: a1, colour: red"));
    let policies = (0..POLICIES).map(|n| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n\
             metadata: {{name: p{n}}}\nspec:\n  selector: app == 'a{n}'\n  types: [Ingress]\n  \
             ingress: [{{action: Allow, source: {{selector: from == 'a{n}'}}}}]\n"
        )
    });
    directory.write("policies.yaml", &policies.collect::<String>());
    let dataplane = directory.dataplane("a");
    let process = Process::start(&directory, "a");
    process.until("ready", |p| p.get("/readiness").is_some_and(|(status, _)| status == 200));
    let client = Client::new(directory.given("a", "192.0.2.1/24").socket.expect("a socket"));
    call(&client, add(10)).await.expect("added");
    let known = |name: &str| {
        format!("margay_datastore_objects{{group=\"projectcalico.org\",kind=\"{name}\"}}")
    };
    assert_eq!(process.metric(&known("GlobalNetworkPolicy")), POLICIES as u64);

    // What is looked at: the policy's selector, that of its rule, and the policies of either app.
    for (labels, policy, touched) in [
        ("app: a1, colour: blue", "p1", [0, 0]),
        ("app: a2, colour: blue", "p2", [2, 1]),
        ("app: a2, colour: blue, from: a2", "p2", [1, 0]),
        ("app: a2, colour: blue, from: a8", "p2", [1, 0]),
        ("app: a1, colour: blue, from: a8", "p1", [2, 1]),
    ] {
        let work = |of: &Process| {
            let names = ["batches", "selectors_evaluated", "policies"];
            names.map(|name| of.metric(&format!("margay_compile_{name}_total")))
        };
        let before = work(&process);
        directory.write("pod.yaml", &pod(labels));
        process.until("compiled", |process| work(process)[0] > before[0]);
        let now = work(&process);
        let done = [now[1] - before[1], now[2] - before[2]];
        assert_eq!(done, touched, "{labels}");
        let in_force = |told: &Told| {
            let tiers = told.state.endpoints.values().flat_map(|endpoint| endpoint.tiers.iter());
            tiers.flat_map(|tier| &tier.ingress).any(|id| id.to_string().ends_with(policy))
        };
        dataplane.until(policy, in_force).await;
    }
}

#[test]
fn an_unusable_configuration_ends_the_process_and_names_the_flag() {
    let output = Command::new(env!("CARGO_BIN_EXE_margay-agent"))
        .args(["--node", "a", "--datastore", "zookeeper:x"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--datastore") && text.contains("dir:PATH"), "{text}");
}
