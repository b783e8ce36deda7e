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
    /// What host endpoints say on the way between the ends.
    pub(super) passages: Vec<PassageReport>,
    /// What was assumed, since the datastore does not tell.
    pub(super) assumed: Vec<String>,
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
    /// The lists that a host endpoint is asked before or instead, as far as they were reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lists: Vec<ListReport>,
    /// How the policies came to it.
    #[serde(flatten)]
    pub(super) walk: Option<Walk>,
}

/// A list of a host endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListReport {
    /// `untracked`, `preDNAT` or `forward`.
    pub(super) list: &'static str,
    #[serde(flatten)]
    pub(super) walk: Walk,
}

/// A host endpoint on the way.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PassageReport {
    pub(super) node: Arc<str>,
    pub(super) host_endpoint: Arc<str>,
    /// `ingress` where the flow comes into the node, `egress` where it leaves it.
    pub(super) direction: &'static str,
    /// The flow as it is judged there, if it is another than the sender's.
    pub(super) flow: Option<FlowReport>,
    /// By which interface.
    pub(super) by: String,
    #[serde(flatten)]
    pub(super) side: SideReport,
}

// === impl SideReport ===

impl SideReport {
    /// A side whose policies are not asked.
    pub(super) fn without_policies(side: &Side, why: &'static str) -> Self {
        Self { side: side.clone(), not_asked: Some(why), lists: Vec::new(), walk: None }
    }

    /// A side whose policies were asked: lists first, then the others if they were reached.
    pub(super) fn walked(lists: Vec<ListReport>, walk: Option<Walk>) -> Self {
        let last = walk.as_ref().or(lists.last().map(|list| &list.walk));
        let side = last.map_or(Side::NONE, |walk| walk.conclusion.clone());
        Self { side, not_asked: None, lists, walk }
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
