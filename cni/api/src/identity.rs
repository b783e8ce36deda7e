//! Which attachment and which workload a request is about.

use serde::{Deserialize, Serialize};

/// One interface of one container in one network: the identity that the CNI specification keys
/// everything by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `name` of the network configuration.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// An attachment within a network that is named beside it; the shape of an entry of
/// `cni.dev/valid-attachments`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttachmentRef {
    /// CNI_CONTAINERID.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// Who started the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Orchestrator {
    /// CNI_ARGS named a Kubernetes Pod.
    K8s,
    /// Anything else (ctr, podman): there is no Pod object.
    Cni,
}

/// What the container is a part of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Who started it.
    pub orchestrator: Orchestrator,
    /// K8S_POD_NAMESPACE, or `default` without Kubernetes.
    pub namespace: String,
    /// K8S_POD_NAME, or the container's id without Kubernetes.
    pub pod: String,
    /// K8S_POD_UID; empty when the runtime does not tell.
    #[serde(default)]
    pub uid: String,
}

// === impl Attachment ===

impl Attachment {
    /// The IPAM handle that holds the attachment's addresses: `NETWORK.CONTAINERID`, as Calico's.
    pub fn handle(&self) -> String {
        format!("{}.{}", self.network, self.container_id)
    }

    /// The attachment without its network.
    pub fn to_ref(&self) -> AttachmentRef {
        AttachmentRef { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}

// === impl Workload ===

impl Workload {
    /// The legacy IPAM handle of Calico, `NAMESPACE.POD`, under which older releases kept
    /// addresses.
    pub fn legacy_handle(&self) -> String {
        format!("{}.{}", self.namespace, self.pod)
    }
}
