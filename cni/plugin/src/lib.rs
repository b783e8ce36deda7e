//! Margay's CNI plugin and its IPAM plugin: CNI specification 1.1.0, 1.0.0, 0.4.0 and 0.3.1.
//!
//! What decides anything is the node's agent; the plugin makes and removes the pod's interface
//! and asks. In the order of use:
//! - [`run`] with a [`Role`]: the whole life of one call;
//! - `environment`, `cni_args`: what the variables say; `config`, `fields`: what the network
//!   configuration says; `version`: which specification holds;
//! - `verb`: ADD, DEL, CHECK, GC and STATUS of the interface plugin; `ipam`: the same of the IPAM
//!   plugin;
//! - `delegate`: the IPAM plugin, run as a child;
//! - `veth`: the pod's interface; on `netns`, `netlink` and `sysctl`;
//! - `result`: what ADD answers, in each version's shape;
//! - `log`: where the log goes.

mod environment;

mod cni_args;

mod config;

mod fields;

mod version;

mod verb;

mod ipam;

mod delegate;

mod veth;

mod netns;

mod netlink;

mod sysctl;

mod result;

mod log;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use margay_cni_api::{CniError, Code};
use serde_json::{Value, json};

use crate::config::NetConf;
use crate::environment::{Environment, Verb};
use crate::version::SpecVersion;

/// Which of the two plugins an executable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The interface plugin.
    Interface,
    /// The IPAM plugin.
    Ipam,
}

/// What a call prints when it succeeds; nothing for most verbs.
type Output = Option<Value>;

/// One call: the environment and standard input in, standard output and the exit code out.
///
/// Errors are JSON on standard output, as libcni reads them; the exit code is then 1.
pub fn run(role: Role) -> ExitCode {
    if let Some(answer) = flags(role) {
        return answer;
    }
    let mut version = SpecVersion::LATEST.to_string();
    let outcome = call(role, &mut version);
    let (text, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value, ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(code = error.code.0, details = error.details, "{}", error.msg);
            (error_json(&error, &version), ExitCode::FAILURE)
        }
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Checks a network configuration as a call would, and does nothing with it.
///
/// # Errors
/// What the call would print.
pub fn examine(configuration: Value) -> Result<(), CniError> {
    NetConf::parse(configuration).map(drop)
}

/// `--version` and `--help`: the one thing a plugin is ever asked for by arguments.
fn flags(role: Role) -> Option<ExitCode> {
    let name = role.name();
    let text = match std::env::args().nth(1).as_deref() {
        Some("--version" | "-V") => format!("{name} {}", env!("CARGO_PKG_VERSION")),
        Some("--help" | "-h") => format!(
            "{name}: a CNI plugin of Margay, run by container runtimes.\n\nThe verb comes in \
             CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION), the network configuration on \
             standard input.\nSpecification: https://www.cni.dev/docs/spec/"
        ),
        _ => return None,
    };
    Some(match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Decodes in the order of trust (variables, JSON, version, keys), then runs the verb. `version`
/// becomes the configuration's as soon as it is known, so that errors carry it.
fn call(role: Role, version: &mut String) -> Result<Output, CniError> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    let config = read_config(environment.verb)?;
    if let Some(text) = config.get("cniVersion").and_then(Value::as_str) {
        text.clone_into(version);
    }
    if environment.verb == Verb::Version {
        return Ok(Some(version::answer(version)));
    }
    let config = NetConf::parse(config)?;
    config.version.demand(environment.verb)?;
    log::start(&config.log)?;
    tracing::info!(
        verb = %environment.verb,
        plugin = role.name(),
        network = config.name,
        container = environment.container_id,
        interface = environment.ifname,
        netns = environment.netns,
        "called"
    );
    match role {
        Role::Interface => verb::run(&environment, &config),
        Role::Ipam => ipam::run(&environment, &config),
    }
}

fn read_config(verb: Verb) -> Result<Value, CniError> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).map_err(|error| {
        CniError::new(
            Code::IO,
            format!("reading the configuration from standard input: {error}"),
            "",
        )
    })?;
    // A probe for versions may come without a configuration.
    if verb == Verb::Version && text.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    serde_json::from_slice(&text).map_err(|error| {
        CniError::new(
            Code::DECODE,
            format!("the network configuration on standard input is no JSON: {error}"),
            "look at the file in the runtime's CNI folder (/etc/cni/net.d)",
        )
    })
}

fn error_json(error: &CniError, version: &str) -> Value {
    let mut object = json!({ "cniVersion": version, "code": error.code, "msg": error.msg });
    if !error.details.is_empty() {
        object["details"] = Value::from(error.details.as_str());
    }
    object
}

// === impl Role ===

impl Role {
    /// The role that the executable's name asks for: a copy or link of `margay-cni` whose name
    /// ends in `ipam` is the IPAM plugin.
    pub fn from_executable() -> Self {
        let name = std::env::args_os().next().unwrap_or_default();
        let stem = Path::new(&name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.ends_with("ipam") { Self::Ipam } else { Self::Interface }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Interface => "margay-cni",
            Self::Ipam => "margay-ipam",
        }
    }
}
