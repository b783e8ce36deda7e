//! What the CNI_* variables say ("Section 2: Execution Protocol", Parameters).

use std::fmt;
use std::path::PathBuf;

use margay_cni_api::{Attachment, CniError, Code, Workload};

use crate::cni_args::CniArgs;

/// CNI_COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The variables, checked. What a verb does not need may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) verb: Verb,
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    pub(crate) args: CniArgs,
    pub(crate) path: Vec<PathBuf>,
}

/// Linux's IFNAMSIZ, less the terminating zero.
const LONGEST_IFNAME: usize = 15;

// === impl Verb ===

impl Verb {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// The variables that the specification demands for this verb. CNI_PATH is missed later,
    /// where a delegate has to be found.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        })
    }
}

// === impl Environment ===

impl Environment {
    /// Reads and checks the variables; empty counts as missing.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| variable(name).unwrap_or_default();
        let command = get("CNI_COMMAND");
        let verb = Verb::parse(&command).ok_or_else(|| match command.as_str() {
            "" => bad("CNI_COMMAND is missing"),
            other => bad(format!("CNI_COMMAND is {other:?}")),
        })?;
        let missing: Vec<_> =
            verb.required().iter().copied().filter(|name| get(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(bad(format!("{verb} needs {}", missing.join(", "))));
        }
        let environment = Self {
            verb,
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: CniArgs::default(),
            path: std::env::split_paths(&get("CNI_PATH"))
                .filter(|folder| !folder.as_os_str().is_empty())
                .collect(),
        };
        if matches!(verb, Verb::Add | Verb::Del | Verb::Check) {
            check_container_id(&environment.container_id)?;
            check_ifname(&environment.ifname)?;
            return Ok(Self { args: CniArgs::parse(&get("CNI_ARGS"))?, ..environment });
        }
        Ok(environment)
    }

    /// The attachment that the call is about, in `network`.
    pub(crate) fn attachment(&self, network: &str) -> Attachment {
        Attachment {
            network: network.to_owned(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// The workload that the call is about.
    pub(crate) fn workload(&self) -> Workload {
        self.args.workload(&self.container_id)
    }
}

fn bad(msg: impl Into<String>) -> CniError {
    CniError::new(
        Code::BAD_ENVIRONMENT,
        msg,
        "the container runtime sets these variables; see \"Parameters\" in the CNI specification",
    )
}

/// "Must not be empty. Must start with an alphanumeric character, optionally followed by any
/// combination of one or more alphanumeric characters, underscore (), dot (.) or hyphen (-)."
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if is_identifier(id) {
        return Ok(());
    }
    Err(bad(format!(
        "CNI_CONTAINERID {id:?} is not letters, digits, '_', '.' and '-' after a letter or digit"
    )))
}

/// As the kernel's dev_valid_name().
fn check_ifname(name: &str) -> Result<(), CniError> {
    let fits = name.len() <= LONGEST_IFNAME && !matches!(name, "." | "..");
    if fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Ok(());
    }
    Err(bad(format!(
        "CNI_IFNAME {name:?} is no interface name: at most {LONGEST_IFNAME} bytes without '/', \
         ':' and blanks"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_missing_variable_is_named() {
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_NETNS", "")]).expect_err("three missing");
        assert_eq!(error.code, Code::BAD_ENVIRONMENT);
        assert_eq!(error.msg, "ADD needs CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME");
    }

    #[test]
    fn an_unknown_command_is_named() {
        assert_eq!(read(&[]).expect_err("none").msg, "CNI_COMMAND is missing");
        let error = read(&[("CNI_COMMAND", "DESTROY")]).expect_err("unknown");
        assert_eq!(error.msg, "CNI_COMMAND is \"DESTROY\"");
    }

    #[test]
    fn del_does_not_need_a_netns() {
        let variables = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
        assert_eq!(read(&variables).expect("enough for a DEL").netns, "");
    }

    #[test]
    fn gc_and_status_read_no_container() {
        assert!(read(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin")]).is_ok());
        assert_eq!(read(&[("CNI_COMMAND", "GC")]).expect_err("no path").msg, "GC needs CNI_PATH");
        assert!(read(&[("CNI_COMMAND", "STATUS")]).is_ok());
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for (id, ifname) in
            [("../x", "eth0"), ("a/b", "eth0"), ("c", "a/b"), ("c", "a b"), ("c", "..")]
        {
            let variables =
                [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)];
            let error = read(&variables).expect_err("refused");
            assert_eq!(error.code, Code::BAD_ENVIRONMENT, "{error}");
        }
        let long =
            [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "sixteen-bytes-xy")];
        assert!(read(&long).expect_err("too long").msg.contains("CNI_IFNAME"));
    }
}
