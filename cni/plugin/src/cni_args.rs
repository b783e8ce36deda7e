//! What CNI_ARGS says: `KEY=VALUE;KEY=VALUE`.

use std::net::IpAddr;

use margay_cni_api::{CniError, Code, Orchestrator, Workload};
use margay_model::Mac;

use crate::environment::is_identifier;

/// The arguments that mean something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CniArgs {
    namespace: String,
    pod: String,
    uid: String,
    /// `IP`: an address that the runtime asks for.
    pub(crate) ip: Option<IpAddr>,
    /// `MAC`: an Ethernet address that the runtime asks for.
    pub(crate) mac: Option<Mac>,
}

/// The namespace of what Kubernetes did not start; as Calico's.
const NO_NAMESPACE: &str = "default";

/// Longest name of a Kubernetes object.
const LONGEST_NAME: usize = 253;

// === impl CniArgs ===

impl CniArgs {
    /// Parses the arguments. Unknown ones are an error unless `IgnoreUnknown` is true, as in the
    /// reference library.
    pub(crate) fn parse(text: &str) -> Result<Self, CniError> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| bad(format!("CNI_ARGS has {pair:?}, which is not KEY=VALUE")))?;
            match key {
                "IgnoreUnknown" => ignore_unknown = boolean(value)?,
                "K8S_POD_NAMESPACE" => args.namespace = name(key, value)?,
                "K8S_POD_NAME" => args.pod = name(key, value)?,
                "K8S_POD_UID" => args.uid = value.to_owned(),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => args.ip = optional(key, value)?,
                "MAC" => args.mac = optional(key, value)?,
                _ => unknown.push(key),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            return Err(bad(format!(
                "CNI_ARGS has unknown keys {}; add IgnoreUnknown=1 to have them ignored",
                unknown.join(", ")
            )));
        }
        if !args.namespace.is_empty() && args.pod.is_empty() {
            return Err(bad("CNI_ARGS has K8S_POD_NAMESPACE but no K8S_POD_NAME"));
        }
        Ok(args)
    }

    /// The workload: the Pod when both its namespace and its name are given (podman gives a name
    /// alone), else the container itself.
    pub(crate) fn workload(&self, container_id: &str) -> Workload {
        if self.namespace.is_empty() || self.pod.is_empty() {
            return Workload {
                orchestrator: Orchestrator::Cni,
                namespace: NO_NAMESPACE.to_owned(),
                pod: container_id.to_owned(),
                uid: String::new(),
            };
        }
        Workload {
            orchestrator: Orchestrator::K8s,
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            uid: self.uid.clone(),
        }
    }
}

fn bad(msg: impl Into<String>) -> CniError {
    CniError::new(
        Code::BAD_ENVIRONMENT,
        msg,
        "CNI_ARGS is a list like K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=1234",
    )
}

fn boolean(value: &str) -> Result<bool, CniError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(bad(format!("IgnoreUnknown in CNI_ARGS is {value:?}, neither true nor false"))),
    }
}

fn optional<T: std::str::FromStr>(key: &str, value: &str) -> Result<Option<T>, CniError>
where
    T::Err: std::fmt::Display,
{
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|error| bad(format!("{key} in CNI_ARGS is {value:?}: {error}")))
}

/// A name of a Kubernetes object, checked loosely: enough that it is one path component.
fn name(key: &str, value: &str) -> Result<String, CniError> {
    let good = value.is_empty() || (value.len() <= LONGEST_NAME && is_identifier(value));
    if good {
        return Ok(value.to_owned());
    }
    Err(bad(format!("{key} in CNI_ARGS is {value:?}, which is no name of a Kubernetes object")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerds_arguments_name_the_pod() {
        let args = CniArgs::parse(
            "K8S_POD_UID=u-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web;\
             K8S_POD_INFRA_CONTAINER_ID=abc",
        )
        .expect("as containerd sends them");
        let workload = args.workload("abc");
        assert_eq!(workload.orchestrator, Orchestrator::K8s);
        assert_eq!((workload.namespace, workload.pod), ("prod".into(), "web".into()));
        assert_eq!(workload.uid, "u-1");
    }

    #[test]
    fn podmans_lone_name_leaves_the_container_its_own_workload() {
        let args = CniArgs::parse("IgnoreUnknown=1;K8S_POD_NAME=p1").expect("as podman sends them");
        let workload = args.workload("abc");
        assert_eq!(workload.orchestrator, Orchestrator::Cni);
        assert_eq!((workload.namespace, workload.pod), ("default".into(), "abc".into()));
    }

    #[test]
    fn unknown_keys_are_named_unless_they_are_to_be_ignored() {
        let error = CniArgs::parse("FOO=1;BAR=2").expect_err("unknown");
        assert_eq!(error.code, Code::BAD_ENVIRONMENT);
        assert!(error.msg.contains("FOO, BAR"), "{error}");
        assert!(CniArgs::parse("FOO=1;IgnoreUnknown=true").is_ok());
    }

    #[test]
    fn contradictions_name_their_keys() {
        for (text, named) in [
            ("K8S_POD_NAMESPACE=prod", "K8S_POD_NAME"),
            ("K8S_POD_NAMESPACE=../x;K8S_POD_NAME=y", "K8S_POD_NAMESPACE"),
            ("IP=ten", "IP"),
            ("MAC=1:2", "MAC"),
            ("IgnoreUnknown=perhaps", "IgnoreUnknown"),
            ("nonsense", "nonsense"),
        ] {
            let error = CniArgs::parse(text).expect_err(text);
            assert_eq!(error.code, Code::BAD_ENVIRONMENT);
            assert!(error.msg.contains(named), "{text}: {error}");
        }
    }
}
