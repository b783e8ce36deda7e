//! DEL: takes the container's interface away. Whatever is gone already is success, so that it can
//! be called any number of times, with an empty CNI_NETNS and without `prevResult`.

use margay_cni_api::{CniError, DelEndpoint};

use super::Subject;
use crate::delegate::Delegate;
use crate::environment::Verb;
use crate::netns::Netns;
use crate::veth;

/// Every step is tried, whatever became of those before; the first error is the answer, and the
/// runtime calls again.
///
/// The order: the endpoint goes out of force first, so that the dataplane lets go of the
/// interface before it vanishes; the addresses are freed last, when nothing uses them any more.
pub(super) fn run(subject: &Subject<'_>) -> Result<(), CniError> {
    let Subject { environment, config, agent, attachment, workload, host_name } = subject;
    // An ADD of this container that is still under way ends first.
    let netns = Netns::open_if_there(&environment.netns);
    let locked = netns.as_ref().map_or(Ok(()), Netns::lock);
    let forgotten = agent
        .call(DelEndpoint { attachment: attachment.clone(), workload: workload.clone() })
        .map(drop);
    let deleted = veth::delete(attachment, host_name);
    let released =
        Delegate::find(environment, config, None).and_then(|delegate| delegate.call(Verb::Del));
    locked.and(forgotten).and(deleted).and(released)
}
