//! A directory, an agent, a dataplane, and files that appear by renaming.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use margay_agent::config::{Config, Given};
use margay_cni_api::Client;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::dataplane::FakeDataplane;

/// Names of pods and policies that most tests use.
pub(crate) const POOL: &str = r"
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, natOutgoing: true}
";

/// A directory that several agents share.
pub(crate) struct Directory {
    dir: TempDir,
}

/// An agent that runs in this process until it is dropped.
pub(crate) struct Agent {
    pub(crate) config: Config,
    task: JoinHandle<Result<(), margay_agent::AgentError>>,
}

// === impl Directory ===

impl Directory {
    pub(crate) fn new() -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir(this.documents()).expect("a folder");
        this
    }

    /// Where the documents are.
    pub(crate) fn documents(&self) -> PathBuf {
        self.dir.path().join("documents")
    }

    /// Puts a document in place as editors and tools do: written beside, renamed over. Returns the
    /// moment of the renaming.
    pub(crate) fn write(&self, name: &str, text: &str) -> Instant {
        let beside = self.dir.path().join("beside");
        fs::write(&beside, text).expect("a file");
        let now = Instant::now();
        fs::rename(beside, self.documents().join(name)).expect("renamed");
        now
    }

    pub(crate) fn remove(&self, name: &str) -> Instant {
        let now = Instant::now();
        fs::remove_file(self.documents().join(name)).expect("removed");
        now
    }

    /// Where a node's dataplane serves.
    pub(crate) fn dataplane_socket(&self, node: &str) -> PathBuf {
        self.dir.path().join(node).join("margayd.sock")
    }

    pub(crate) fn dataplane(&self, node: &str) -> FakeDataplane {
        FakeDataplane::serve(&self.dataplane_socket(node))
    }

    /// What an agent of this directory is told.
    pub(crate) fn given(&self, node: &str, node_ip: &str) -> Given {
        Given {
            node: Some(node.into()),
            datastore: Some(format!("dir:{}", self.documents().display())),
            dataplane: Some(format!("unix:{}", self.dataplane_socket(node).display())),
            socket: Some(self.dir.path().join(node).join("agent.sock")),
            node_ip: Some(node_ip.into()),
            metrics: Some(free_address()),
            authz: None,
            flow_logs: None,
            flow_logs_otlp: None,
            log: None,
            nodeport_addresses: None,
            connections_outlive_policies: None,
            tcp_strict: None,
            clamp_mss: None,
            masquerade_all: None,
            keep_source_ports: None,
            icmp_errors_per_second: None,
            config: None,
        }
    }

    pub(crate) fn agent(&self, node: &str, node_ip: &str) -> Agent {
        let config = Config::resolve(self.given(node, node_ip)).expect("a good configuration");
        let task = tokio::spawn(margay_agent::run(config.clone(), std::future::pending()));
        Agent { config, task }
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

// === impl Agent ===

impl Agent {
    /// A client as the CNI plugins have it, once the agent listens.
    pub(crate) async fn cni(&self) -> Client {
        wait_for_socket(&self.config.socket).await;
        Client::new(&self.config.socket)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until somebody listens.
pub(crate) async fn wait_for_socket(path: &Path) {
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nobody listens on {}", path.display());
}
