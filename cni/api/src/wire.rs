//! The envelope of requests and answers.
//!
//! ```text
//! → {"version":1,"request":"release","attachment":{…},"workload":{…}}
//! ← {"ok":{"existed":true}}            or            ← {"error":{"code":11,"msg":"…"}}
//! ```

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::answer::{Deleted, Done, EndpointPlan, Lease, Readiness, Swept};
use crate::error::CniError;
use crate::request::{
    AddEndpoint, AddressStatus, Allocate, CheckAddress, CheckEndpoint, DelEndpoint, GcAddresses,
    GcEndpoints, PlanEndpoint, Release, Status,
};

/// Version of this protocol; an agent refuses every other.
pub const PROTOCOL: u32 = 1;

/// Longest line that either side reads, in bytes, its newline included.
pub const MAX_LINE: usize = 4 << 20;

/// Any request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase")]
pub enum Request {
    /// See [`PlanEndpoint`].
    PlanEndpoint(PlanEndpoint),
    /// See [`Allocate`].
    Allocate(Allocate),
    /// See [`Release`].
    Release(Release),
    /// See [`CheckAddress`].
    CheckAddress(CheckAddress),
    /// See [`AddEndpoint`].
    AddEndpoint(AddEndpoint),
    /// See [`DelEndpoint`].
    DelEndpoint(DelEndpoint),
    /// See [`CheckEndpoint`].
    CheckEndpoint(CheckEndpoint),
    /// See [`GcEndpoints`].
    GcEndpoints(GcEndpoints),
    /// See [`GcAddresses`].
    GcAddresses(GcAddresses),
    /// See [`Status`].
    Status(Status),
    /// See [`AddressStatus`].
    AddressStatus(AddressStatus),
}

/// A line to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL`] of the sender.
    pub version: u32,
    /// What it asks.
    #[serde(flatten)]
    pub request: Request,
}

/// A line from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response<T> {
    /// The answer.
    Ok(T),
    /// Why there is none.
    Error(CniError),
}

/// A request, and the type of its answer.
pub trait Call: Into<Request> {
    /// What the agent answers.
    type Answer: Serialize + DeserializeOwned;
}

macro_rules! calls {
    ($($request:ident => $answer:ident,)*) => {$(
        impl From<$request> for Request {
            fn from(request: $request) -> Self {
                Self::$request(request)
            }
        }

        impl Call for $request {
            type Answer = $answer;
        }
    )*};
}

calls! {
    PlanEndpoint => EndpointPlan,
    Allocate => Lease,
    Release => Deleted,
    CheckAddress => Done,
    AddEndpoint => Done,
    DelEndpoint => Deleted,
    CheckEndpoint => Done,
    GcEndpoints => Swept,
    GcAddresses => Swept,
    Status => Readiness,
    AddressStatus => Readiness,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attachment, Code, Orchestrator, Workload};

    #[test]
    fn a_release_on_the_wire_is_one_flat_object() {
        let request = Release {
            attachment: Attachment {
                network: "margay".into(),
                container_id: "c1".into(),
                ifname: "eth0".into(),
            },
            workload: Workload {
                orchestrator: Orchestrator::K8s,
                namespace: "prod".into(),
                pod: "web".into(),
                uid: "u".into(),
            },
        };
        let envelope = Envelope { version: PROTOCOL, request: request.into() };
        let text = serde_json::to_string(&envelope).expect("an envelope always serialises");
        assert_eq!(
            text,
            r#"{"version":1,"request":"release","attachment":{"network":"margay","containerId":"c1","ifname":"eth0"},"workload":{"orchestrator":"k8s","namespace":"prod","pod":"web","uid":"u"}}"#
        );
        assert_eq!(serde_json::from_str::<Envelope>(&text).expect("what we wrote"), envelope);
    }

    #[test]
    fn an_answer_is_either_ok_or_an_error() {
        let ok: Response<Deleted> =
            serde_json::from_str(r#"{"ok":{"existed":true}}"#).expect("an answer");
        assert_eq!(ok, Response::Ok(Deleted { existed: true }));
        let error: Response<Deleted> =
            serde_json::from_str(r#"{"error":{"code":11,"msg":"later"}}"#).expect("an error");
        assert_eq!(error, Response::Error(CniError::new(Code::TRY_AGAIN_LATER, "later", "")));
        assert!(serde_json::from_str::<Response<Deleted>>("{}").is_err());
    }
}
