//! ADD: gives the container its interface, and answers when its policy is in force.
//!
//! The pod's end stays down until the agent says so; whatever fails before leaves nothing behind.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_cni_api::{AddEndpoint, CniError, Code, DelEndpoint, EndpointPlan, PlanEndpoint};
use margay_model::Mac;

use super::Subject;
use crate::delegate::Delegate;
use crate::environment::Verb;
use crate::netns::Netns;
use crate::result::{CniResult, Interface, Ip, Route};
use crate::veth::{self, Pair};

/// What has been made so far; dropped unless [`Undo::keep`] is called, it is unmade in reverse.
#[derive(Debug)]
struct Undo<'a> {
    subject: &'a Subject<'a>,
    addresses: Option<&'a Delegate>,
    pair: bool,
    endpoint: bool,
}

pub(super) fn run(subject: &Subject<'_>) -> Result<CniResult, CniError> {
    // 1. Nothing is made before the agent answers and the namespace is ours alone.
    let plan = plan(subject)?;
    let netns = Netns::open(&subject.environment.netns)?;
    netns.lock()?;
    veth::prepare(&netns, &subject.attachment, &subject.host_name)?;

    // 2. Addresses. From here on everything that fails is undone.
    let delegate = delegate(subject, &plan)?;
    let mut undo = Undo::new(subject);
    undo.addresses = delegate.as_ref();
    let addresses = match &delegate {
        Some(delegate) => delegate.add()?.ips.iter().map(|ip| ip.address.addr()).collect(),
        None => plan.addresses.clone(),
    };

    // 3. The pair, configured, the pod's end down.
    let mac = mac(subject, &plan)?;
    undo.pair = true;
    let pair = veth::create(&netns, &subject.attachment, &subject.host_name, &plan, mac)?;
    let forwarding = subject.config.allow_ip_forwarding;
    veth::configure(&netns, &pair, &addresses, plan.tx_checksum_offload, forwarding)?;
    veth::raise_host_end(&pair)?;

    // 4. The policy, in force.
    undo.endpoint = true;
    add_endpoint(subject, &pair, &addresses)?;

    // 5. The pod may speak.
    veth::open(&netns, &pair, &addresses)?;
    undo.keep();
    Ok(result(subject, &pair, &addresses))
}

/// How the agent wants the interface.
pub(super) fn plan(subject: &Subject<'_>) -> Result<EndpointPlan, CniError> {
    subject.agent.call(PlanEndpoint {
        attachment: subject.attachment.clone(),
        workload: subject.workload.clone(),
        mtu: subject.config.mtu,
        allow_ip_addrs_no_ipam: subject.config.allow_ip_addrs_no_ipam,
    })
}

/// The IPAM plugin, unless the Pod brings its own addresses.
fn delegate(subject: &Subject<'_>, plan: &EndpointPlan) -> Result<Option<Delegate>, CniError> {
    if !plan.addresses.is_empty() {
        return Ok(None);
    }
    Delegate::find(subject.environment, subject.config, Some(&plan.pod_cidrs)).map(Some)
}

/// The Pod's annotation goes before the runtime's wish, and that before chance.
fn mac(subject: &Subject<'_>, plan: &EndpointPlan) -> Result<Mac, CniError> {
    match plan.mac.or(subject.config.mac).or(subject.environment.args.mac) {
        Some(mac) => Ok(mac),
        None => veth::random_mac(),
    }
}

fn add_endpoint(subject: &Subject<'_>, pair: &Pair, addresses: &[IpAddr]) -> Result<(), CniError> {
    let request = AddEndpoint {
        attachment: subject.attachment.clone(),
        workload: subject.workload.clone(),
        netns: subject.environment.netns.clone(),
        host_interface: pair.host_name.clone(),
        mac: pair.pod_mac,
        addresses: addresses.to_vec(),
        mtu: pair.mtu,
        host_ports: subject.config.host_ports.clone(),
        bandwidth: subject.config.bandwidth,
        timeout_s: subject.config.policy_timeout_s,
    };
    subject.agent.call(request).map(drop)
}

/// The host's end, then the pod's, after whatever an earlier plugin of the list made.
fn result(subject: &Subject<'_>, pair: &Pair, addresses: &[IpAddr]) -> CniResult {
    let mut result = subject.config.prev_result.clone().unwrap_or_default();
    let index = i32::try_from(result.interfaces.len() + 1).ok();
    let host = Interface {
        name: pair.host_name.clone(),
        mac: veth::HOST_MAC.to_string(),
        mtu: Some(pair.mtu),
        ..Interface::default()
    };
    let pod = Interface {
        name: pair.pod_name.clone(),
        mac: pair.pod_mac.to_string(),
        mtu: Some(pair.mtu),
        sandbox: subject.environment.netns.clone(),
        ..Interface::default()
    };
    result.interfaces.extend([host, pod]);
    let gateways = veth::gateways(addresses);
    for address in addresses {
        let gateway = gateways.iter().copied().find(|g| g.is_ipv4() == address.is_ipv4());
        result.ips.push(Ip { address: IpNet::from(*address), gateway, interface: index });
    }
    result.routes.extend(gateways.iter().map(|gateway| Route::default_by(*gateway)));
    result
}

// === impl Undo ===

impl<'a> Undo<'a> {
    fn new(subject: &'a Subject<'a>) -> Self {
        Self { subject, addresses: None, pair: false, endpoint: false }
    }

    /// The ADD succeeded.
    fn keep(mut self) {
        (self.addresses, self.pair, self.endpoint) = (None, false, false);
    }
}

impl Drop for Undo<'_> {
    /// Errors are logged only: the runtime has to see the one that made the ADD fail, and calls
    /// DEL after it, which tries again.
    fn drop(&mut self) {
        let Subject { agent, attachment, workload, host_name, .. } = self.subject;
        if self.endpoint {
            let request =
                DelEndpoint { attachment: attachment.clone(), workload: workload.clone() };
            report("the endpoint", agent.call(request).map(drop));
        }
        if self.pair {
            report("the veth pair", veth::delete(attachment, host_name));
        }
        if let Some(delegate) = self.addresses {
            report("the addresses", delegate.call(Verb::Del));
        }
    }
}

fn report(what: &str, undone: Result<(), CniError>) {
    match undone {
        Ok(()) => tracing::info!("undid {what}"),
        Err(CniError { code: Code(code), msg, .. }) => {
            tracing::warn!(code, msg, "could not undo {what}; DEL will");
        }
    }
}
