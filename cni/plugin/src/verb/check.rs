//! CHECK: is everything still as ADD left it? Additional addresses and routes are tolerated.

use std::fmt::Debug;
use std::net::IpAddr;

use margay_cni_api::{CheckEndpoint, CniError, Code};
use margay_model::Mac;

use super::Subject;
use super::add::plan;
use crate::delegate::Delegate;
use crate::environment::Verb;
use crate::netns::Netns;
use crate::result::CniResult;
use crate::veth;

pub(super) fn run(subject: &Subject<'_>) -> Result<(), CniError> {
    let Subject { environment, config, agent, attachment, workload, host_name } = subject;
    let result = config.demand_prev_result()?;
    let addresses = result.addresses_of(&environment.ifname);
    if addresses.is_empty() {
        return Err(wrong(format!("prevResult has no address of {}", environment.ifname)));
    }
    check_host_end(subject)?;
    check_pod_end(subject, result, &addresses)?;
    agent.call(CheckEndpoint {
        attachment: attachment.clone(),
        workload: workload.clone(),
        host_interface: host_name.clone(),
        addresses,
    })?;
    // Addresses that the Pod brought itself (ipAddrsNoIpam) are reserved nowhere.
    if !plan(subject)?.addresses.is_empty() {
        return Ok(());
    }
    Delegate::find(environment, config, None)?.call(Verb::Check)
}

fn check_host_end(subject: &Subject<'_>) -> Result<(), CniError> {
    let Subject { attachment, host_name, .. } = subject;
    match veth::find_host_end(attachment, host_name)? {
        None => Err(wrong(format!("the host's end {host_name} is missing"))),
        Some(link) if !link.up => Err(wrong(format!("the host's end {host_name} is down"))),
        Some(_) => Ok(()),
    }
}

fn check_pod_end(
    subject: &Subject<'_>,
    result: &CniResult,
    addresses: &[IpAddr],
) -> Result<(), CniError> {
    let environment = subject.environment;
    let name = &environment.ifname;
    let netns = Netns::open(&environment.netns)?;
    let pod = veth::inspect(&netns, name)?
        .ok_or_else(|| wrong(format!("the pod's interface {name} is missing")))?;
    if !pod.up {
        return Err(wrong(format!("the pod's interface {name} is down")));
    }
    let promised = result
        .interfaces
        .iter()
        .find(|interface| interface.name == *name && !interface.sandbox.is_empty())
        .and_then(|interface| interface.mac.parse::<Mac>().ok());
    if promised.is_some() && promised != pod.mac {
        return Err(wrong(format!("the pod's interface {name} has another Ethernet address")));
    }
    demand_all(name, "address", addresses, &pod.addresses)?;
    demand_all(name, "default route by", &veth::gateways(addresses), &pod.gateways)
}

fn demand_all<T: PartialEq + Debug>(
    name: &str,
    what: &str,
    wanted: &[T],
    there: &[T],
) -> Result<(), CniError> {
    match wanted.iter().find(|wanted| !there.contains(wanted)) {
        None => Ok(()),
        Some(missing) => {
            Err(wrong(format!("the pod's interface {name} has lost its {what} {missing:?}")))
        }
    }
}

fn wrong(msg: String) -> CniError {
    CniError::new(Code::CHECK_FAILED, msg, "let the runtime recreate the container's sandbox")
}
