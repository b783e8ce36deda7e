//! Runs it, and `margayctl` beside it.

use std::path::PathBuf;
use std::process::Output;

use margay_protocol::socket;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::margayctl;
use crate::seen::flows;
use crate::told::Told;

/// A dataplane that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    _runtime: Runtime,
}

impl Running {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let _context = runtime.enter();
        let (listener, file) = socket::bind(&dir.path().join("margayd.sock")).unwrap();
        runtime.spawn(async move {
            let _file = file;
            socket::serve(
                listener,
                Told { flows: flows(), ..Told::default() },
                std::future::pending(),
            )
            .await
        });
        drop(_context);
        Self { dir, _runtime: runtime }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("margayd.sock")
    }

    pub(crate) fn run(&self, command: &str) -> Output {
        let (dataplane, agent) = (self.socket(), self.dir.path().join("agent.sock"));
        let options = [
            format!("--dataplane=unix:{}", dataplane.display()),
            format!("--agent=unix:{}", agent.display()),
        ];
        let words = options.iter().map(String::as_str).chain(command.split_whitespace());
        margayctl(&words.collect::<Vec<_>>(), "")
    }

    pub(crate) fn good(&self, command: &str) -> String {
        let output = self.run(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.good(&format!("{command} -o json"))).unwrap()
    }
}
