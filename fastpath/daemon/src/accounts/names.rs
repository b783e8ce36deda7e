//! Names of rules and endpoints, also of those that are gone: flows outlive them by a moment.

use std::collections::HashMap;
use std::sync::Arc;

use margay_engine::Snapshot;
use margay_engine::snapshot::Place;
use margay_model::{EndpointKey, HostEndpoint, PolicyKey};
use margay_tables::addr::Addr;

/// How long an endpoint that is gone is remembered, in milliseconds.
const REMEMBERED: u32 = 10_000;
/// Rules that are remembered at most.
const MOST: usize = 1 << 16;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Names {
    rules: HashMap<u32, (PolicyKey, u32)>,
    gone: HashMap<Addr, (EndpointKey, u32)>,
    /// The tier of each policy that was asked for, and whether the snapshot in force says so.
    tiers: HashMap<PolicyKey, (Option<Arc<str>>, bool)>,
}

// === impl Names ===

impl Names {
    /// The policy, and the rule's place in its document, of a number; as it was, where it is gone.
    pub(super) fn rule(&mut self, snapshot: &Snapshot, id: u32) -> Option<(PolicyKey, u32)> {
        match snapshot.classifier.rule(id) {
            Some(name) => {
                if self.rules.len() >= MOST {
                    self.rules.clear();
                }
                self.rules.insert(id, name.clone());
                Some(name)
            }
            None => self.rules.get(&id).cloned(),
        }
    }

    /// Remembers the endpoints that are in the old snapshot and not in the new one.
    pub(super) fn moved_on(&mut self, old: &Snapshot, new: &Snapshot, now: u32) {
        if self.tiers.len() >= MOST {
            self.tiers.clear();
        }
        self.tiers.values_mut().for_each(|(_, fresh)| *fresh = false);
        self.gone.retain(|_, (_, since)| now.wrapping_sub(*since) <= REMEMBERED);
        for workload in old.endpoints.iter() {
            for address in &workload.endpoint.addresses {
                let address = Addr::from(*address);
                if !matches!(new.place(address), Some(Place::Pod(_))) {
                    self.gone.insert(address, (workload.endpoint.key.clone(), now));
                }
            }
        }
    }

    /// The tier that a policy stands in; as it was, where the policy is gone.
    pub(super) fn tier(&mut self, snapshot: &Snapshot, policy: &PolicyKey) -> Option<Arc<str>> {
        if let Some((tier, true)) = self.tiers.get(policy) {
            return tier.clone();
        }
        let of_pods = (snapshot.endpoints.iter()).flat_map(|pod| {
            pod.endpoint.tiers.iter().chain(pod.endpoint.pending.iter().flat_map(|p| p.iter()))
        });
        let of_hosts = snapshot.guards.iter().flat_map(|guard| {
            let HostEndpoint { untracked, pre_dnat, forward, tiers, .. } = &*guard.endpoint;
            [untracked, pre_dnat, forward, tiers].into_iter().flat_map(|tiers| tiers.iter())
        });
        let found = (of_pods.chain(of_hosts))
            .find(|tier| tier.ingress.contains(policy) || tier.egress.contains(policy))
            .map(|tier| tier.name.clone());
        let known = self.tiers.entry(policy.clone()).or_default();
        *known = (found.or(known.0.take()), true);
        known.0.clone()
    }

    /// The endpoint of this node that has an address, or had it a moment ago.
    pub(super) fn endpoint(&self, snapshot: &Snapshot, address: Addr) -> Option<EndpointKey> {
        match snapshot.place(address) {
            Some(Place::Pod(index)) => Some(snapshot.workload(*index)?.endpoint.key.clone()),
            _ => self.gone.get(&address).map(|(key, _)| key.clone()),
        }
    }
}
