//! One call of a plugin.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::netns::Netns;

/// A call of `margay-cni` that is being put together.
#[derive(Debug)]
pub(crate) struct Call {
    command: Command,
    config: String,
}

/// The error object of a failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u64,
    pub(crate) msg: String,
    pub(crate) details: String,
}

/// Folder of the built plugins.
fn plugins() -> &'static str {
    let folder = Path::new(env!("CARGO_BIN_EXE_margay-cni")).parent();
    folder.and_then(Path::to_str).expect("the plugins are in a folder")
}

/// Where Debian puts the reference plugins.
pub(crate) const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

// === impl Call ===

impl Call {
    /// A call on the node, with nothing but the verb and the path.
    pub(crate) fn new(node: &Netns, verb: &str) -> Self {
        Self::of(node, env!("CARGO_BIN_EXE_margay-cni"), verb)
    }

    /// The same of another executable.
    pub(crate) fn of(node: &Netns, executable: &str, verb: &str) -> Self {
        let mut command = node.command(executable);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CNI_")) {
            command.env_remove(name);
        }
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", format!("{}:{REFERENCE_PLUGINS}", plugins()));
        Self { command, config: String::new() }
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn config(mut self, config: Value) -> Self {
        self.config = config.to_string();
        self
    }

    /// Changes a key of the configuration.
    pub(crate) fn set(self, key: &str, value: Value) -> Self {
        let mut config: Value = serde_json::from_str(&self.config).expect("a configuration");
        config[key] = value;
        self.config(config)
    }

    pub(crate) fn raw_config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// Starts the call and leaves it running.
    pub(crate) fn spawn(mut self) -> Child {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A plugin that refuses its variables does not read.
        let _ = stdin.write_all(self.config.as_bytes());
        child
    }

    pub(crate) fn output(self) -> Output {
        self.spawn().wait_with_output().expect("the plugin ends")
    }

    /// Demands success; what was printed, or null.
    pub(crate) fn good(self) -> Value {
        let said = format!("{self:?}");
        let output = self.output();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}: {stdout}{stderr}");
        if stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Demands failure with an error object on standard output.
    pub(crate) fn bad(self) -> Failure {
        Failure::of(&self.output())
    }
}

// === impl Failure ===

impl Failure {
    pub(crate) fn of(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "a failure exits with 1: {stdout}");
        let error: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
        assert!(error["cniVersion"].is_string(), "{error}");
        Self {
            code: error["code"].as_u64().expect("a code"),
            msg: error["msg"].as_str().expect("a message").to_owned(),
            details: error["details"].as_str().unwrap_or_default().to_owned(),
        }
    }
}
