//! The kernel's part of what is in force, and when it has to be looked after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tracing::{error, warn};

use super::Control;
use crate::host;
use crate::kernel::{KernelView, Link};

/// What of the kernel Margay's own routes, rules and addresses stand on: the kernel takes routes
/// away with their source address or with a link that goes down.
#[derive(Default)]
pub(super) struct Grounds {
    links: Arc<BTreeMap<u32, Link>>,
    addresses: Arc<BTreeSet<(u32, IpNet)>>,
    own_removed: u64,
}

// === impl Grounds ===

impl Grounds {
    pub(super) fn of(view: &KernelView) -> Self {
        let KernelView { links, addresses, own_removed, .. } = view.clone();
        Self { links, addresses, own_removed }
    }

    pub(super) fn are(&self, view: &KernelView) -> bool {
        (&self.links, &self.addresses, self.own_removed)
            == (&view.links, &view.addresses, view.own_removed)
    }
}

// === impl Control ===

impl Control {
    /// The kernel's part, where it is not as it should be.
    pub(super) async fn apply_to_kernel(&mut self) {
        let desired = host::desired(&self.state, &self.fronts, &self.view, &self.parts.desired);
        if desired == self.parts.desired && self.grounds.are(&self.view) {
            return;
        }
        match self.parts.host.apply(&desired).await {
            Ok((_, changes)) => {
                if desired == self.parts.desired && !changes.is_empty() {
                    warn!(?changes, "somebody changed the host port; it is put back");
                }
                self.grounds = Grounds::of(&self.view);
                self.parts.desired = desired;
                self.refused = None;
            }
            Err(refusal) => {
                let told = self.refused.replace(refusal.to_string());
                if told != self.refused {
                    let error = &refusal as &dyn std::error::Error;
                    error!(error, "the host port is not as it should be");
                }
            }
        }
    }
}
