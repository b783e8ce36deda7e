//! The process: signals, logs, health.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

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
    let is_mended =
        |told: &crate::dataplane::Told| told.state.pools.values().all(|pool| !pool.nat_outgoing);
    dataplane.until("told of the mended document", is_mended).await;
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
