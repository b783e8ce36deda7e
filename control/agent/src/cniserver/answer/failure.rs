//! Errors as the CNI specification shapes them.

use margay_cni_api::{CniError, Code};
use margay_datastore as datastore;
use margay_ipam as ipam;
use margay_resources::ResourceError;

use crate::pipeline::WaitError;
use crate::publisher::NotInForce;

/// A document's that is there, is bad and was never good: without it the pod would be outside the
/// policies that are meant for it. A person has to act, and the runtime tries until then.
pub(super) fn of_refusal(error: datastore::Error) -> CniError {
    let datastore::Error::Refused { key, file, problems } = &error else { return of_store(error) };
    let complaint = |p: &datastore::Problem| format!("{}:{}: {p}", file.display(), p.line);
    let complaints: Vec<_> = problems.iter().map(complaint).collect();
    let details = format!("correct the document: {}", complaints.join("; "));
    CniError::new(Code::TRY_AGAIN_LATER, format!("the document of {key} is refused"), details)
}

/// The datastore's, when it is not what was asked for that is wrong.
pub(super) fn of_store(error: datastore::Error) -> CniError {
    let (code, mend) = match &error {
        datastore::Error::Unavailable { .. }
        | datastore::Error::Locked { .. }
        | datastore::Error::Conflict { .. }
        | datastore::Error::AlreadyExists(_) => (Code::TRY_AGAIN_LATER, "try again"),
        _ => (Code::IO, "look at the agent's log and at its --datastore"),
    };
    CniError::new(code, in_full(&error), mend)
}

/// Address management's.
pub(super) fn of_ipam(error: ipam::Error) -> CniError {
    use ipam::Error;
    let (code, mend) = match error {
        Error::Store(error) => return of_store(error),
        Error::Contended(_) => (Code::TRY_AGAIN_LATER, "try again"),
        Error::Exhausted { .. } => {
            (Code::NO_ADDRESS, "add an IPPool, or look for leaks with margayctl ipam check")
        }
        Error::NoPool { .. } => (Code::NO_ADDRESS, "add an IPPool that fits"),
        Error::PoolUnusable(_) => {
            (Code::NO_ADDRESS, "correct ipam.ipv4_pools, ipam.ipv6_pools or the Pod's annotations")
        }
        Error::NotInPool(_)
        | Error::UseNotAllowed { .. }
        | Error::Taken(_)
        | Error::ForeignBlock { .. } => (Code::NO_ADDRESS, "ask for another address"),
        _ => (Code::IO, "look at margayctl ipam check"),
    };
    CniError::new(code, in_full(&error), mend)
}

/// A change's that did not come into force in time.
pub(super) fn of_wait(error: WaitError) -> CniError {
    let mend = match &error {
        WaitError::Datastore(_) | WaitError::Slow(_) => "look at the agent's --datastore",
        WaitError::NotInForce(NotInForce::NotConnected { .. }) => {
            "start margayd, or let the agent's --dataplane name its --socket, then try again"
        }
        WaitError::NotInForce(_) => "look at margayd's log, then try again",
    };
    CniError::new(Code::TRY_AGAIN_LATER, in_full(&error), mend)
}

/// An object's that the datastore holds and nobody can read.
pub(super) fn of_object(error: ResourceError) -> CniError {
    CniError::new(Code::IO, in_full(&error), "correct the document")
}

/// An error with all its reasons.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut reason = error.source();
    while let Some(error) = reason {
        text.push_str(": ");
        text.push_str(&error.to_string());
        reason = error.source();
    }
    text
}
