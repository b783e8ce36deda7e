//! GC: forgets whatever belongs to no attachment that the runtime calls valid. It goes on after
//! an error, and reports all of them at its end.

use margay_cni_api::{Attachment, AttachmentRef, CniError, Code, GcEndpoints, Swept};

use crate::config::NetConf;
use crate::delegate::Delegate;
use crate::environment::{Environment, Verb};
use crate::veth;

pub(super) fn run(environment: &Environment, config: &NetConf) -> Result<(), CniError> {
    let NetConf { name: network, valid_attachments: valid, .. } = config;
    let attachment = |valid: &AttachmentRef| Attachment {
        network: network.clone(),
        container_id: valid.container_id.clone(),
        ifname: valid.ifname.clone(),
    };
    let kept: Vec<_> = valid.iter().map(attachment).collect();
    // In the order of DEL: endpoint, interface, addresses.
    let mut failures = Vec::new();
    match config.agent().call(GcEndpoints { network: network.clone(), valid: valid.clone() }) {
        Ok(swept) => note(&mut failures, swept),
        Err(error) => failures.push(error.to_string()),
    }
    let steps = [
        veth::delete_stale(network, &kept),
        Delegate::find(environment, config, None).and_then(|delegate| delegate.call(Verb::Gc)),
    ];
    failures.extend(steps.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    conclude(&failures)
}

/// Takes what a collection of the agent says.
pub(crate) fn note(failures: &mut Vec<String>, swept: Swept) {
    tracing::info!(removed = ?swept.removed, "collected");
    failures.extend(swept.errors);
}

/// Good, or one error with everything that went wrong.
pub(crate) fn conclude(failures: &[String]) -> Result<(), CniError> {
    if failures.is_empty() {
        return Ok(());
    }
    Err(CniError::new(
        Code::GC_INCOMPLETE,
        format!("not everything could be collected: {}", failures.join("; ")),
        "the next GC tries again",
    ))
}
