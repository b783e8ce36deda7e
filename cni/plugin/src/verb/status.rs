//! STATUS: would an ADD succeed?

use margay_cni_api::{CniError, Code, Readiness, Status};

use crate::config::NetConf;
use crate::delegate::Delegate;
use crate::environment::{Environment, Verb};

/// STATUS need not come with CNI_PATH; without one the IPAM plugin goes unasked.
pub(super) fn run(environment: &Environment, config: &NetConf) -> Result<(), CniError> {
    judge(config.agent().call(Status {}))?;
    if environment.path.is_empty() {
        return Ok(());
    }
    Delegate::find(environment, config, None)
        .and_then(|delegate| delegate.call(Verb::Status))
        .map_err(unavailable)
}

/// The agent's answer as an error of STATUS, if it is one. An agent that is away cannot serve an
/// ADD, but what runs goes on without it.
pub(crate) fn judge(answer: Result<Readiness, CniError>) -> Result<(), CniError> {
    match answer.map_err(unavailable)? {
        Readiness::Ready => Ok(()),
        Readiness::NotReady { reason } => Err(CniError::new(Code::NOT_AVAILABLE, reason, "")),
        Readiness::Degraded { reason } => Err(CniError::new(Code::DEGRADED, reason, "")),
    }
}

/// Any error that is not of STATUS' own means that an ADD cannot be served.
fn unavailable(error: CniError) -> CniError {
    match error.code {
        Code::NOT_AVAILABLE | Code::DEGRADED => error,
        _ => CniError { code: Code::NOT_AVAILABLE, ..error },
    }
}
