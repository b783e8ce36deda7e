//! Endpoints as WorkloadEndpoint objects, in Calico's shape.

use ipnet::IpNet;
use margay_cni_api::{
    AddEndpoint, Attachment, AttachmentRef, Bandwidth, HostPort, Orchestrator, Workload,
};
use margay_resources::v3::{
    Net, Protocol, QosControls, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec,
};
use margay_resources::{Kind, Resource};
use serde_json::Value;

use super::wishes::Wishes;

/// Annotation: the network configuration that the endpoint belongs to.
const NETWORK: &str = "margay.io/network";

/// Annotation: MTU of the pod's interface, in bytes.
const MTU: &str = "margay.io/mtu";

/// Name of the object: node, orchestrator, workload and interface, dashes within them doubled, as
/// Calico's.
pub(super) fn name(node: &str, workload: &Workload, ifname: &str) -> String {
    let orchestrator = orchestrator(workload);
    let parts = [node, orchestrator, &workload.pod, ifname];
    let name = parts.map(|part| part.replace('-', "--")).join("-");
    // Objects are named in lower case; containers outside of Kubernetes need not be.
    name.to_lowercase().replace('_', "..")
}

fn orchestrator(workload: &Workload) -> &'static str {
    match workload.orchestrator {
        Orchestrator::K8s => "k8s",
        Orchestrator::Cni => "cni",
    }
}

/// The object of an endpoint on `node`.
pub(super) fn build(node: &str, request: &AddEndpoint, wishes: &Wishes) -> Value {
    let AddEndpoint { attachment, workload, .. } = request;
    let is_pod = workload.orchestrator == Orchestrator::K8s;
    let name_if = |wanted: bool| if wanted { workload.pod.clone() } else { String::new() };
    let namespace = &workload.namespace;
    let mut profiles = vec![format!("kns.{namespace}")];
    if !wishes.service_account.is_empty() {
        profiles.push(format!("ksa.{namespace}.{}", wishes.service_account));
    }
    let spec = WorkloadEndpointSpec {
        orchestrator: orchestrator(workload).to_owned(),
        workload: name_if(!is_pod),
        pod: name_if(is_pod),
        node: node.to_owned(),
        container_id: attachment.container_id.clone(),
        endpoint: attachment.ifname.clone(),
        service_account_name: wishes.service_account.clone(),
        ip_networks: request.addresses.iter().map(|ip| Net::from(IpNet::from(*ip))).collect(),
        profiles,
        interface_name: request.host_interface.clone(),
        mac: request.mac.to_string(),
        ports: request.host_ports.iter().map(port).collect(),
        allow_spoofed_source_prefixes: wishes.sources.iter().copied().map(Net::from).collect(),
        qos_controls: qos_controls(request.bandwidth),
        ..WorkloadEndpointSpec::default()
    };
    let name = name(node, workload, &attachment.ifname);
    let mut object = WorkloadEndpoint::named(namespace, &name, spec);
    object.metadata.labels = Some(
        [("namespace", namespace.as_str()), ("orchestrator", orchestrator(workload))]
            .map(|(key, value)| (format!("projectcalico.org/{key}"), value.to_owned()))
            .into(),
    );
    object.metadata.annotations = Some(
        [(NETWORK, attachment.network.clone()), (MTU, request.mtu.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
    );
    Resource::WorkloadEndpoint(Box::new(object)).to_value()
}

/// What the runtime asked for; the Pod's annotations are looked at where the endpoint is compiled.
fn qos_controls(bandwidth: Bandwidth) -> Option<QosControls> {
    let controls = QosControls {
        ingress_bandwidth: bandwidth.ingress_rate,
        ingress_burst: bandwidth.ingress_burst,
        egress_bandwidth: bandwidth.egress_rate,
        egress_burst: bandwidth.egress_burst,
        ..QosControls::default()
    };
    (bandwidth != Bandwidth::default()).then_some(controls)
}

fn port(mapped: &HostPort) -> WorkloadEndpointPort {
    WorkloadEndpointPort {
        name: String::new(),
        protocol: Protocol::of_number(mapped.protocol),
        port: mapped.port,
        host_port: mapped.host_port,
        host_ip: mapped.host_ip.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// An object as an endpoint, if it is one.
pub(super) fn parse(value: &Value) -> Option<WorkloadEndpoint> {
    match Resource::from_value(value) {
        Ok(Resource::WorkloadEndpoint(endpoint)) => Some(*endpoint),
        _ => None,
    }
}

/// Whether the object is the attachment's own.
pub(super) fn belongs_to(endpoint: &WorkloadEndpoint, attachment: &Attachment) -> bool {
    network(endpoint).is_none_or(|network| network == attachment.network)
        && endpoint.spec.container_id == attachment.container_id
        && endpoint.spec.endpoint == attachment.ifname
}

/// The network that the endpoint belongs to; none where Calico made the object.
pub(super) fn network(endpoint: &WorkloadEndpoint) -> Option<&str> {
    endpoint.metadata.annotations.as_ref()?.get(NETWORK).map(String::as_str)
}

/// The endpoint's attachment within its network.
pub(super) fn attachment(endpoint: &WorkloadEndpoint) -> AttachmentRef {
    AttachmentRef {
        container_id: endpoint.spec.container_id.clone(),
        ifname: endpoint.spec.endpoint.clone(),
    }
}

/// The kind of the objects.
pub(super) const KIND: Kind = Kind::WorkloadEndpoint;
