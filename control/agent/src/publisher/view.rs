//! What is known about the dataplane, for whoever waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use margay_model::EndpointKey;
use tokio::sync::watch;

use super::Revision;

/// The dataplane as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Whether the dataplane is connected and greeted.
    pub(crate) connected: bool,
    /// Revision in force on all workers; 0 until this connection acknowledged a full state.
    pub(crate) in_force: Revision,
    /// The dataplane's generation.
    pub(crate) generation: u64,
    /// Why each endpoint is down, or that it is up; absent until the dataplane said so.
    pub(crate) endpoints: BTreeMap<EndpointKey, Result<(), String>>,
    /// The last failure of the connection or refusal; `None` once a revision was acknowledged.
    pub(crate) trouble: Option<String>,
    /// Counters since the agent started.
    pub(crate) counts: Counts,
}

/// What the publisher did since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that were greeted.
    pub(crate) connections: u64,
    /// Full states that were sent.
    pub(crate) full_states: u64,
    /// Deltas that were sent.
    pub(crate) commits: u64,
    /// Changes that were sent, those of full states included.
    pub(crate) updates: u64,
    /// Full states and deltas that the dataplane refused.
    pub(crate) refusals: u64,
}

/// A revision is not in force in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::enum_variant_names, reason = "each says what is not so")]
pub(crate) enum NotInForce {
    /// Nobody answers on the dataplane's socket.
    #[error("margayd is not connected{}", because(.trouble))]
    NotConnected {
        /// The last failure.
        trouble: Option<String>,
    },
    /// The dataplane has not acknowledged it.
    #[error("margayd has not put the change in force within {after:?}{}", because(.trouble))]
    NotAcknowledged {
        /// How long it was waited for.
        after: Duration,
        /// The last failure.
        trouble: Option<String>,
    },
    /// The policy is in force, the interface is not attached.
    #[error("margayd has not attached the interface of {endpoint}: {reason}")]
    NotAttached {
        /// The endpoint.
        endpoint: EndpointKey,
        /// The dataplane's reason.
        reason: String,
    },
}

/// Waits until a revision is in force and, if one is named, an endpoint is attached.
///
/// A dataplane that connects while this waits is as good as one that was there before.
pub(crate) async fn in_force(
    view: &mut watch::Receiver<View>,
    revision: Revision,
    endpoint: Option<&EndpointKey>,
    patience: Duration,
) -> Result<(), NotInForce> {
    let reached = |view: &View| {
        view.in_force >= revision
            && endpoint.is_none_or(|key| view.endpoints.get(key) == Some(&Ok(())))
    };
    if let Ok(Ok(_)) = tokio::time::timeout(patience, view.wait_for(reached)).await {
        return Ok(());
    }
    // Out of time, or the publisher ended with the process: what is missing is in the view.
    Err(view.borrow().lacking(revision, endpoint, patience))
}

fn because(trouble: &Option<String>) -> String {
    trouble.as_ref().map(|t| format!(": {t}")).unwrap_or_default()
}

// === impl View ===

impl View {
    /// Whether something is in force in the dataplane.
    pub(crate) fn forwards(&self) -> bool {
        self.in_force > Revision::default()
    }

    /// What keeps the revision from being in force.
    fn lacking(
        &self,
        revision: Revision,
        endpoint: Option<&EndpointKey>,
        after: Duration,
    ) -> NotInForce {
        let trouble = self.trouble.clone();
        if !self.connected {
            return NotInForce::NotConnected { trouble };
        }
        match endpoint {
            Some(endpoint) if self.in_force >= revision => {
                let reason = match self.endpoints.get(endpoint) {
                    Some(Err(reason)) => reason.clone(),
                    Some(Ok(())) | None => format!("no word about it within {after:?}"),
                };
                NotInForce::NotAttached { endpoint: endpoint.clone(), reason }
            }
            _ => NotInForce::NotAcknowledged { after, trouble },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    async fn wait(view: View, endpoint: Option<&str>) -> Result<(), NotInForce> {
        let (_tell, mut view) = watch::channel(view);
        let endpoint: Option<EndpointKey> = endpoint.map(Into::into);
        in_force(&mut view, Revision(5), endpoint.as_ref(), SOON).await
    }

    fn connected(revision: u64) -> View {
        View { connected: true, in_force: Revision(revision), ..View::default() }
    }

    #[tokio::test]
    async fn a_later_revision_and_an_attached_endpoint_are_in_force() {
        let mut view = connected(6);
        assert_eq!(wait(view.clone(), None).await, Ok(()));
        view.endpoints.insert("a".into(), Ok(()));
        assert_eq!(wait(view, Some("a")).await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let trouble = Some("refused".to_owned());
        let away = View { trouble: trouble.clone(), ..View::default() };
        assert_eq!(wait(away, None).await, Err(NotInForce::NotConnected { trouble }));
        assert_eq!(
            wait(connected(4), Some("a")).await,
            Err(NotInForce::NotAcknowledged { after: SOON, trouble: None })
        );
        let mut view = connected(5);
        let silent = wait(view.clone(), Some("a")).await.unwrap_err().to_string();
        assert_eq!(
            silent,
            "margayd has not attached the interface of a: no word about it within 10ms"
        );
        view.endpoints.insert("a".into(), Err("no such interface".into()));
        let down = wait(view, Some("a")).await.unwrap_err().to_string();
        assert_eq!(down, "margayd has not attached the interface of a: no such interface");
    }

    #[tokio::test]
    async fn an_acknowledgement_that_comes_while_waiting_counts() {
        let (tell, mut view) = watch::channel(View::default());
        let waiting = tokio::spawn(async move {
            in_force(&mut view, Revision(1), None, Duration::from_secs(5)).await
        });
        tell.send_replace(connected(1));
        assert_eq!(waiting.await.expect("the waiter ends"), Ok(()));
    }
}
