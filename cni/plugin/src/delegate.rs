//! The IPAM plugin, run as a child ("Section 4: Plugin Delegation").

use std::env;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use margay_cni_api::{CniError, Code};
use serde_json::Value;

use crate::config::NetConf;
use crate::environment::{Environment, Verb};
use crate::result::CniResult;
use crate::version::{SUPPORTED, SpecVersion};

/// The IPAM plugin of one call.
#[derive(Debug)]
pub(crate) struct Delegate {
    kind: String,
    executable: PathBuf,
    config: Value,
    version: SpecVersion,
}

/// Calico's name for its own IPAM plugin. Its configurations are ours.
const CALICO_IPAM: &str = "calico-ipam";

/// What stands for the node's Pod CIDR in a `host-local` configuration of Calico.
const POD_CIDR: [(&str, bool); 2] = [("usePodCidr", false), ("usePodCidrIPv6", true)];

// === impl Delegate ===

impl Delegate {
    /// Finds the plugin in CNI_PATH. `pod_cidrs` are the node's, in place of `usePodCidr`; none
    /// where only existing reservations matter.
    pub(crate) fn find(
        environment: &Environment,
        config: &NetConf,
        pod_cidrs: Option<&[String]>,
    ) -> Result<Self, CniError> {
        let kind = match config.ipam.kind.as_str() {
            CALICO_IPAM => "margay-ipam",
            other => other,
        };
        if environment.path.is_empty() {
            return Err(CniError::new(
                Code::BAD_ENVIRONMENT,
                format!("CNI_PATH is missing; it is where the IPAM plugin {kind} is looked for"),
                "the container runtime sets it to its folder of CNI plugins, as /opt/cni/bin",
            ));
        }
        let executable = environment.path.iter().map(|folder| folder.join(kind)).find(|path| {
            path.metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        });
        let executable = executable.ok_or_else(|| {
            CniError::new(
                Code::INVALID_CONFIG,
                format!("ipam.type: {kind} is in no folder of CNI_PATH"),
                "install the IPAM plugin beside margay-cni, or name another one",
            )
        })?;
        let mut raw = config.raw.clone();
        if kind == "host-local"
            && let Some(ipam) = raw.get_mut("ipam")
        {
            fill_in_pod_cidrs(ipam, pod_cidrs)?;
        }
        Ok(Self { kind: kind.to_owned(), executable, config: raw, version: config.version })
    }

    /// ADD: the addresses.
    pub(crate) fn add(&self) -> Result<CniResult, CniError> {
        let output = self.run(Verb::Add)?.unwrap_or_default();
        let value = serde_json::from_slice(&output).map_err(|error| {
            CniError::new(
                Code::DECODE,
                format!("IPAM plugin {}: its result is no JSON: {error}", self.kind),
                "",
            )
        })?;
        let result = CniResult::parse(value)?;
        if result.ips.is_empty() {
            return Err(CniError::new(
                Code::NO_ADDRESS,
                format!("IPAM plugin {}: it assigned no address", self.kind),
                "look at \"ipam\" in the network configuration",
            ));
        }
        Ok(result)
    }

    /// Any verb without a result; one that the plugin's version does not know passes.
    pub(crate) fn call(&self, verb: Verb) -> Result<(), CniError> {
        self.run(verb).map(drop)
    }

    /// Runs the verb in the configuration's version, or, where the plugin is older than that, in
    /// the newest version that it knows; none when that version does not know the verb.
    fn run(&self, verb: Verb) -> Result<Option<Vec<u8>>, CniError> {
        // An old plugin answers a verb it has never heard of with whatever it misses first, so
        // the rare verbs are preceded by the question.
        if !matches!(verb, Verb::Gc | Verb::Status) {
            match self.execute(verb, self.version) {
                Err(error) if error.code == Code::INCOMPATIBLE_VERSION => {}
                done => return done.map(Some),
            }
        }
        let version = self.newest_version()?;
        if version.knows(verb) { self.execute(verb, version).map(Some) } else { Ok(None) }
    }

    /// The newest version that both sides know.
    fn newest_version(&self) -> Result<SpecVersion, CniError> {
        let answer = self.execute(Verb::Version, self.version)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let theirs = answer["supportedVersions"].as_array().cloned().unwrap_or_default();
        let known = |version: &SpecVersion| theirs.iter().any(|their| their == version.as_str());
        SUPPORTED.into_iter().rev().find(known).ok_or_else(|| {
            CniError::new(
                Code::INCOMPATIBLE_VERSION,
                format!("IPAM plugin {} supports none of our versions", self.kind),
                "install a newer release of it",
            )
        })
    }

    fn execute(&self, verb: Verb, version: SpecVersion) -> Result<Vec<u8>, CniError> {
        let mut config = self.config.clone();
        config["cniVersion"] = Value::from(version.as_str());
        let output = self.spawn(verb, &config).map_err(|error| {
            CniError::new(
                Code::IO,
                format!("running IPAM plugin {}: {error}", self.executable.display()),
                "",
            )
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failure(verb, &output))
    }

    /// The child inherits the CNI_* variables; only the verb may differ, when an ADD is undone, and
    /// what it does not know of a pod's arguments it is to ignore, as they are ours.
    fn spawn(&self, verb: Verb, config: &Value) -> io::Result<Output> {
        let arguments = env::var("CNI_ARGS").unwrap_or_default();
        let ours = "IgnoreUnknown=1";
        let arguments = match arguments.as_str() {
            "" => ours.to_owned(),
            given if given.contains("IgnoreUnknown=") => given.to_owned(),
            given => format!("{ours};{given}"),
        };
        let mut child = Command::new(&self.executable)
            .env("CNI_COMMAND", verb.to_string())
            .env("CNI_ARGS", arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that answers without reading closes the pipe first.
            match stdin.write_all(config.to_string().as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        child.wait_with_output()
    }

    /// The child's own error, or what else it said.
    fn failure(&self, verb: Verb, output: &Output) -> CniError {
        if let Ok(error) = serde_json::from_slice::<CniError>(&output.stdout) {
            return CniError { msg: format!("IPAM plugin {}: {}", self.kind, error.msg), ..error };
        }
        let said = String::from_utf8_lossy(&output.stdout);
        CniError::new(
            Code::IO,
            format!(
                "IPAM plugin {}: {verb} ended with {}: {}",
                self.kind,
                output.status,
                said.trim()
            ),
            "",
        )
    }
}

/// Puts the node's Pod CIDRs where `subnet` or `ranges[][].subnet` asks for them. Where none are
/// given the whole family stands in: host-local wants a subnet even to release.
fn fill_in_pod_cidrs(ipam: &mut Value, pod_cidrs: Option<&[String]>) -> Result<(), CniError> {
    let nested = ipam.get("ranges").and_then(Value::as_array).map_or(0, Vec::len);
    if let Some(subnet) = ipam.get_mut("subnet") {
        fill_in(subnet, pod_cidrs)?;
    }
    for set in 0..nested {
        let ranges = ipam["ranges"][set].as_array_mut().into_iter().flatten();
        for subnet in ranges.filter_map(|range| range.get_mut("subnet")) {
            fill_in(subnet, pod_cidrs)?;
        }
    }
    Ok(())
}

fn fill_in(subnet: &mut Value, pod_cidrs: Option<&[String]>) -> Result<(), CniError> {
    let asked =
        |(name, _): &&(&str, bool)| subnet.as_str().is_some_and(|s| s.eq_ignore_ascii_case(name));
    let Some(&(name, v6)) = POD_CIDR.iter().find(asked) else { return Ok(()) };
    let anything = if v6 { "::/0" } else { "0.0.0.0/0" };
    let cidr = match pod_cidrs {
        None => anything,
        Some(cidrs) => cidrs.iter().find(|cidr| cidr.contains(':') == v6).ok_or_else(|| {
            CniError::new(
                Code::INVALID_CONFIG,
                format!("ipam.subnet: {name}, but the node has no Pod CIDR of that family"),
                "set spec.podCIDRs of the Node object, or name a subnet",
            )
        })?,
    };
    *subnet = Value::from(cidr);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_cidrs_stand_in_for_calicos_words() {
        let mut ipam = json!({
            "type": "host-local",
            "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}], [{"subnet": "10.9.0.0/24"}]],
        });
        let cidrs = ["10.1.2.0/24".to_owned(), "fd00:1::/80".to_owned()];
        fill_in_pod_cidrs(&mut ipam, Some(&cidrs)).expect("a CIDR of each family");
        let subnets: Vec<_> =
            ipam["ranges"].as_array().into_iter().flatten().map(|set| &set[0]["subnet"]).collect();
        assert_eq!(subnets, ["10.1.2.0/24", "fd00:1::/80", "10.9.0.0/24"]);
    }

    #[test]
    fn a_node_without_a_pod_cidr_of_the_family_is_an_error_only_when_addresses_are_wanted() {
        let ipam = || json!({"type": "host-local", "subnet": "usePodCidrIPv6"});
        for cidrs in [&[][..], &["10.1.2.0/24".to_owned()]] {
            let error = fill_in_pod_cidrs(&mut ipam(), Some(cidrs)).expect_err("no IPv6");
            assert_eq!(error.code, Code::INVALID_CONFIG);
        }
        let mut released = ipam();
        fill_in_pod_cidrs(&mut released, None).expect("a release needs none");
        assert_eq!(released["subnet"], "::/0");
    }
}
