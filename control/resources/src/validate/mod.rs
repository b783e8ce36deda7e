//! What is wrong with an object beyond the types of its fields.
//!
//! - [`metadata`]: names, labels, annotations; [`text`]: what texts may look like;
//! - [`rule`] and [`policy`]: Calico's policies, profiles, tiers and sets;
//! - [`kubernetes`] and [`service`]: the objects of Kubernetes;
//! - [`endpoint`], [`pool`], [`bgp`], [`node`]: the rest of Calico's.

mod text;
mod metadata;
mod rule;
mod policy;
mod kubernetes;
mod service;
mod endpoint;
mod pool;
mod bgp;
mod node;

use crate::field::{Problem, Report};
use crate::resource::Resource;

/// Everything that is wrong with the object.
pub(crate) fn validate(resource: &Resource) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = Report::new(&mut problems);
    report.within("metadata", |report| metadata::check(resource, report));
    report.within("spec", |report| spec(resource, report));
    match resource {
        Resource::Pod(pod) => kubernetes::pod_status(pod, &mut report),
        Resource::EndpointSlice(slice) => service::slice(slice, &mut report),
        Resource::KubernetesNode(node) => kubernetes::node_status(node, &mut report),
        _ => {}
    }
    problems
}

/// Members of one network set: what Felix gives a set of addresses room for (`MaxIpsetSize`).
const MAX_MEMBERS: usize = 1 << 20;

/// Checks the specification of those kinds that have one.
fn spec(resource: &Resource, report: &mut Report<'_>) {
    let kind = resource.kind();
    match resource {
        Resource::Namespace(_)
        | Resource::KubernetesNode(_)
        | Resource::EndpointSlice(_)
        | Resource::ServiceAccount(_)
        | Resource::ClusterInformation(_)
        | Resource::IpamBlock(_)
        | Resource::BlockAffinity(_)
        | Resource::IpamHandle(_)
        // Its nets have types.
        | Resource::IpReservation(_) => {}
        Resource::NetworkSet(o) | Resource::GlobalNetworkSet(o) => {
            let (nets, domains) = (o.spec.nets.len(), &o.spec.allowed_egress_domains);
            let why = format!("has {nets} members; {MAX_MEMBERS} are allowed");
            report.wrong_if(nets > MAX_MEMBERS, "nets", why);
            report.each("allowedEgressDomains", domains, |report, name| text::domain(report, name));
        }
        Resource::Pod(o) => kubernetes::pod(o, report),
        Resource::Service(o) => service::service(o, report),
        Resource::ServiceCidr(o) => service::cidrs(o, report),
        Resource::KubernetesNetworkPolicy(o) => {
            o.spec.iter().for_each(|spec| kubernetes::policy(spec, report));
        }
        Resource::ClusterNetworkPolicy(o) => kubernetes::cluster_policy(&o.spec, report),
        Resource::NetworkPolicy(o)
        | Resource::GlobalNetworkPolicy(o)
        | Resource::StagedNetworkPolicy(o)
        | Resource::StagedGlobalNetworkPolicy(o) => policy::policy(kind, &o.spec, report),
        Resource::StagedKubernetesNetworkPolicy(o) => policy::staged_kubernetes(&o.spec, report),
        Resource::Tier(o) => policy::tier(o, report),
        Resource::Profile(o) => policy::profile(&o.spec, report),
        Resource::HostEndpoint(o) => endpoint::host(&o.spec, report),
        Resource::WorkloadEndpoint(o) => endpoint::workload(&o.spec, report),
        Resource::IpPool(o) => pool::pool(&o.spec, report),
        Resource::IpamConfiguration(o) => pool::configuration(&o.spec, report),
        Resource::BgpConfiguration(o) => bgp::configuration(o, report),
        Resource::BgpPeer(o) => bgp::peer(&o.spec, report),
        Resource::BgpFilter(o) => bgp::filter(&o.spec, report),
        Resource::Node(o) => node::node(&o.spec, report),
        Resource::CalicoNodeStatus(o) => node::status(&o.spec, report),
        Resource::KubeControllersConfiguration(o) => node::controllers(&o.spec, report),
        Resource::FelixConfiguration(o) => {
            text::selector(report, "nodeSelector", o.spec.node_selector().unwrap_or_default());
            crate::conf::check(&o.spec, report);
        }
    }
}

#[cfg(test)]
mod tests;
