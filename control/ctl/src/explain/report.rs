//! What is told about a flow.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use margay_model::PolicyKey;
use margay_resources::v3::Protocol;
use serde::Serialize;

use super::service::ServiceReport;
use super::staged::StagedReport;
use super::walk::Walk;
use crate::court::flow::Flow;
use crate::court::verdict::{Fate, Side};

/// Everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) flow: FlowReport,
    pub(super) verdict: Fate,
    /// What decided, in a sentence.
    pub(super) because: String,
    pub(super) source: PartyReport,
    pub(super) destination: PartyReport,
    pub(super) service: Option<ServiceReport>,
    pub(super) egress: SideReport,
    pub(super) ingress: SideReport,
    /// Where the service led.
    pub(super) backend: Option<SocketAddr>,
    /// What staged policies would change.
    pub(super) staged: Option<StagedReport>,
}

/// The flow, as it was sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowReport {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: String,
    pub(super) src_port: Option<u16>,
    pub(super) dst_port: Option<u16>,
    pub(super) icmp_type: Option<u8>,
    pub(super) icmp_code: Option<u8>,
}

/// Who is at an end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartyReport {
    /// `pod`, `host endpoint`, `node`, `service` or `outside`.
    pub(super) what: &'static str,
    /// Namespace and name; none for what is outside.
    pub(super) name: Option<String>,
    pub(super) address: IpAddr,
    /// The host endpoint that polices a node's address.
    pub(super) host_endpoint: Option<String>,
    pub(super) node: Option<Arc<str>>,
    pub(super) labels: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) profiles: Vec<PolicyKey>,
}

/// What an end says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SideReport {
    #[serde(flatten)]
    pub(super) side: Side,
    /// Why no policy was asked.
    pub(super) not_asked: Option<&'static str>,
    /// How the policies came to it.
    #[serde(flatten)]
    pub(super) walk: Option<Walk>,
}

// === impl SideReport ===

impl SideReport {
    /// A side whose policies are not asked.
    pub(super) fn without_policies(side: &Side, why: &'static str) -> Self {
        Self { side: side.clone(), not_asked: Some(why), walk: None }
    }

    /// A side whose policies were asked.
    pub(super) fn walked(walk: Walk) -> Self {
        Self { side: walk.conclusion.clone(), not_asked: None, walk: Some(walk) }
    }

    /// The side with what the classifier said, which counts.
    pub(super) fn decided(self, side: Side) -> Self {
        if self.side != side {
            tracing::error!(
                "the steps shown lead to {:?}, the classifier says {side:?}: please report this",
                self.side
            );
        }
        Self { side, ..self }
    }
}

// === impl FlowReport ===

impl From<&Flow> for FlowReport {
    fn from(flow: &Flow) -> Self {
        Self {
            src: flow.src,
            dst: flow.dst,
            protocol: Protocol::of_number(flow.protocol).to_string(),
            src_port: flow.src_port,
            dst_port: flow.dst_port,
            icmp_type: flow.icmp.map(|(kind, _)| kind),
            icmp_code: flow.icmp.and_then(|(_, code)| code),
        }
    }
}
