//! Runs the built `margayctl` on small datastores.

#![allow(dead_code, reason = "each test uses a part")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with these documents.
pub(crate) fn datastore(documents: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("all.yaml"), documents).unwrap();
    dir
}

/// Runs `margayctl` with arguments and standard input.
pub(crate) fn margayctl(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margayctl"));
    command.args(arguments);
    for variable in ["MARGAY_DATASTORE", "MARGAY_AGENT", "MARGAY_DATAPLANE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // Besides reading: the command answers before it has read everything. One that reads no
        // input may be gone before this is written.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output().unwrap()
    })
}

/// A datastore that commands are run on.
pub(crate) struct Store {
    pub(crate) dir: TempDir,
}

impl Store {
    /// With these documents.
    pub(crate) fn with(documents: &str) -> Self {
        Self { dir: datastore(documents) }
    }

    /// Without any.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Runs a command, the words of which no space is in, with standard input.
    pub(crate) fn run(&self, command: &str, input: &str) -> Output {
        let url = format!("--datastore=dir:{}", self.dir.path().display());
        let words: Vec<_> = std::iter::once(&*url).chain(command.split_whitespace()).collect();
        margayctl(&words, input)
    }

    /// What a command that succeeds says.
    pub(crate) fn good(&self, command: &str, input: &str) -> String {
        let output = self.run(command, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that succeeds says, as JSON.
    pub(crate) fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.good(&format!("{command} -o json"), "")).unwrap()
    }

    /// What a command that fails complains about.
    pub(crate) fn bad(&self, command: &str, input: &str) -> String {
        let output = self.run(command, input);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{command}: {text}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The names of the files that people could have written.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "state").collect();
        names.sort();
        names
    }
}

/// The answers to lines of input, and what was said on standard error.
pub(crate) fn simulate(documents: &str, lines: &str) -> (Vec<Value>, String) {
    simulate_with(&[], documents, lines)
}

/// The same with options.
pub(crate) fn simulate_with(
    options: &[&str],
    documents: &str,
    lines: &str,
) -> (Vec<Value>, String) {
    let dir = datastore(documents);
    let url = format!("dir:{}", dir.path().display());
    let words = [&["--datastore", &url, "policy", "simulate"], options].concat();
    let output = margayctl(&words, lines);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), errors)
}

/// A flow of `SRC > DST PROTOCOL [PORT | TYPE/CODE]` as a line of input.
pub(crate) fn line(flow: &str) -> String {
    let words: Vec<_> = flow.split_whitespace().collect();
    let mut value = json!({"src": words[0], "dst": words[2], "protocol": words[3]});
    if let Some(last) = words.get(4) {
        match last.split_once('/') {
            Some((kind, code)) => {
                value["icmpType"] = json!(kind);
                value["icmpCode"] = json!(code);
            }
            None => value["dstPort"] = json!(last.parse::<u16>().unwrap()),
        }
    }
    value.to_string()
}

/// An answer as `VERDICT out SIDE in SIDE [to BACKEND]`, with a side as `none`, `allow POLICY#RULE`
/// or `deny end of TIER`, and behind it what host endpoints on the way say.
pub(crate) fn words(answer: &Value) -> String {
    let side = |side: &Value| {
        let verdict = side["verdict"].as_str().unwrap();
        match (side["policy"].as_str(), side["tier"].as_str()) {
            (Some(policy), tier) => {
                assert_eq!(tier.is_none(), policy.starts_with("Profile/"), "{answer}");
                format!("{verdict} {policy}#{}", side["rule"])
            }
            (None, Some(tier)) => format!("{verdict} end of {tier}"),
            (None, None) => verdict.to_owned(),
        }
    };
    let mut text = format!(
        "{} out {} in {}",
        answer["verdict"].as_str().unwrap_or_else(|| panic!("{answer}")),
        side(&answer["egress"]),
        side(&answer["ingress"])
    );
    if let Some(backend) = answer["backend"].as_str() {
        text += &format!(" to {backend}");
    }
    for passage in answer["passages"].as_array().into_iter().flatten() {
        let way = if passage["direction"] == "ingress" { "into" } else { "from" };
        let (node, host) = (passage["node"].as_str(), passage["hostEndpoint"].as_str());
        text += &format!("; {way} {} at {} {}", node.unwrap(), host.unwrap(), side(passage));
    }
    text
}

/// Asks about flows and compares with what is expected.
pub(crate) fn expect(documents: &str, table: &[(&str, &str)]) {
    expect_with(&[], documents, table);
}

/// The same with options.
pub(crate) fn expect_with(options: &[&str], documents: &str, table: &[(&str, &str)]) {
    let lines: String = table.iter().map(|(flow, _)| line(flow) + "\n").collect();
    let (answers, errors) = simulate_with(options, documents, &lines);
    assert_eq!(errors, "");
    assert_eq!(answers.len(), table.len());
    for (answer, (flow, expected)) in answers.iter().zip(table) {
        assert_eq!(words(answer), *expected, "{flow}");
    }
}

/// Asks about flows and compares the verdicts: `+FLOW` for allowed, `-FLOW` for denied.
pub(crate) fn expect_verdicts(documents: &str, flows: &[&str]) {
    let lines: String = flows.iter().map(|flow| line(&flow[1..]) + "\n").collect();
    let (answers, errors) = simulate(documents, &lines);
    assert_eq!(errors, "");
    assert_eq!(answers.len(), flows.len());
    for (answer, flow) in answers.iter().zip(flows) {
        let expected = if flow.starts_with('+') { "allow" } else { "deny" };
        assert_eq!(answer["verdict"], expected, "{flow}: {answer}");
    }
}

/// Three pods of the namespace `x` (10.1.0.1–3), `y` (10.2.0.1–3) and `z` (10.3.0.1–3), each with
/// the label `pod: a|b|c` and ports 80 (`serve-80`) and 81, as the upstream tests have them. The
/// namespaces have a label `ns` with their name. All run on node `n` (192.168.0.1) but those of
/// `z`, which run on `m` (192.168.0.2).
pub(crate) fn three_by_three() -> String {
    let mut text = String::new();
    for (node, address) in [("n", "192.168.0.1"), ("m", "192.168.0.2")] {
        text += &format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nstatus: {{addresses: [{{type: \
             InternalIP, address: {address}}}]}}\n---\n"
        );
    }
    for (i, ns) in ["x", "y", "z"].into_iter().enumerate() {
        let node = if ns == "z" { "m" } else { "n" };
        text += &format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {ns}, labels: {{ns: {ns}}}}}\n---\n"
        );
        for (j, pod) in ["a", "b", "c"].into_iter().enumerate() {
            text += &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, namespace: {ns}, labels: \
                 {{pod: {pod}}}}}\nspec:\n  nodeName: {node}\n  containers:\n  - name: c\n    \
                 ports: [{{name: serve-80, containerPort: 80}}, {{name: serve-80-sctp, \
                 containerPort: 80, protocol: SCTP}}]\nstatus: {{podIP: 10.{}.0.{}}}\n---\n",
                i + 1,
                j + 1
            );
        }
    }
    text
}
