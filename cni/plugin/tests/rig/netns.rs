//! Network namespaces, and what is seen in them.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A namespace that is deleted with the value.
pub(crate) struct Netns {
    name: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

// === impl Netns ===

impl Netns {
    /// Makes a namespace; fails the test with the reason when that is not allowed.
    pub(crate) fn new(role: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mgn-{}-{count}-{role}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.expect("this test runs ip(8) of the package iproute2");
        assert!(
            made.status.success(),
            "this test makes network namespaces and has to run as root: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Self { name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that runs within the namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command line within the namespace and demands that it succeeds.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_run(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let program = words.next().expect("a command");
        self.command(program).args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The links, as `ip -j -d link` shows them.
    pub(crate) fn links(&self) -> Vec<Value> {
        self.json("ip -j -d link")
    }

    pub(crate) fn link(&self, name: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == name)
    }

    /// What a command prints as a list in JSON.
    pub(crate) fn json(&self, line: &str) -> Vec<Value> {
        let text = self.run(line);
        if text.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// The global addresses of an interface, as ADDRESS/LENGTH.
    pub(crate) fn addresses(&self, name: &str) -> Vec<String> {
        let links = self.json(&format!("ip -j address show dev {name} scope global"));
        let infos = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
        infos
            .filter_map(|info| Some(format!("{}/{}", info["local"].as_str()?, info["prefixlen"])))
            .collect()
    }

    /// A sysctl by its path below `/proc/sys/net`.
    pub(crate) fn sysctl(&self, key: &str) -> String {
        self.run(&format!("cat /proc/sys/net/{key}")).trim().to_owned()
    }

    /// Whether `ethtool -k` calls a feature on.
    pub(crate) fn feature(&self, interface: &str, feature: &str) -> bool {
        let features = self.run(&format!("ethtool -k {interface}"));
        let line = features.lines().find_map(|line| line.trim().strip_prefix(feature));
        line.unwrap_or_else(|| panic!("{feature} in {features}")).starts_with(": on")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // One that a test deleted itself is gone already.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
