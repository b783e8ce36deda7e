//! A network namespace for a test.

use std::future::Future;

/// Runs a test's body in a fresh network namespace with its loopback up, on a thread and a runtime
/// of its own, so that everything it starts stays inside. The namespace goes with the thread.
///
/// # Panics
/// Without the right to make namespaces: these tests want root.
pub(super) fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a network namespace needs root (CAP_SYS_ADMIN)");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let handle = super::connect().unwrap();
            let lo = rtnetlink::LinkUnspec::new_with_index(1).up().build();
            handle.link().set(lo).execute().await.unwrap();
            body().await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command in the namespace and returns what it prints.
///
/// # Panics
/// It cannot be run, or fails.
pub(super) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let output = std::process::Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Another namespace, with an interface moved into it; it goes when this is dropped.
pub(super) struct Elsewhere(std::process::Child);

impl Elsewhere {
    /// Moves `link` there and gives it an address and a state of up.
    pub(super) fn with(link: &str, address: &str) -> Self {
        let sleeper = std::process::Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut there = Self(sleeper.unwrap());
        // The line says that the namespace has been entered.
        let mut line = [0];
        let output = there.0.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut line).unwrap();
        run(&format!("ip link set {link} netns {}", there.0.id()));
        there.run(&format!("ip addr add {address} dev {link}"));
        there.run(&format!("ip link set {link} up"));
        there
    }

    /// The process that keeps the namespace.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs a command there.
    pub(super) fn run(&self, command: &str) -> String {
        run(&format!("nsenter --net --target {} {command}", self.pid()))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
