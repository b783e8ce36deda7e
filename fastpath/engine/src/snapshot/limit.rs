//! The limits of pods, with what of them is used up.

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{Bandwidth, Dscp, Endpoint, Limits, Usage};

use super::Workload;
use super::port::PortId;
use crate::bucket::Bucket;
use crate::roster::Roster;

/// The buckets of both directions of a pod.
#[derive(Debug)]
pub(crate) struct PortLimits {
    /// What comes to the pod.
    pub(crate) ingress: Buckets,
    /// What the pod sends.
    pub(crate) egress: Buckets,
    /// What its packets to outside are marked with.
    pub(crate) dscp: Option<Dscp>,
}

/// The buckets of one direction.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Of packets.
    pub(crate) packets: Option<Bucket>,
    /// Of bits.
    pub(crate) bits: Option<Bucket>,
    /// Of bits, for bursts.
    pub(crate) peak: Option<Bucket>,
}

/// The buckets by the number of their port; ports behind the last limited one are left out.
pub(crate) type ByPort = Arc<[Option<Arc<PortLimits>>]>;

/// How many connections a pod may have in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    /// So many.
    pub(crate) limit: u32,
    /// Those that it has.
    pub(crate) roster: Arc<Roster>,
}

/// Of the connections that a pod begins, and of those that others begin with it.
pub(crate) type BothWays = [Option<Connections>; 2];

/// What was kept by the last snapshot. It goes on in the next: buckets as they are unless the limits
/// change, connections whatever the limit is.
#[derive(Debug, Default)]
pub(super) struct Keep {
    buckets: HashMap<PortId, (Limits, Arc<PortLimits>)>,
    rosters: HashMap<PortId, BothWays>,
}

// === impl Keep ===

impl Keep {
    /// What the last snapshot knew of connections; [`Keep::connections`] goes on with it.
    pub(super) fn take_connections(&mut self) -> HashMap<PortId, BothWays> {
        std::mem::take(&mut self.rosters)
    }

    /// The connections of a pod.
    pub(super) fn connections(
        &mut self,
        old: &mut HashMap<PortId, BothWays>,
        port: PortId,
        endpoint: &Endpoint,
    ) -> BothWays {
        let Limits { ingress, egress, .. } = endpoint.limits;
        let limits = [egress.connections, ingress.connections];
        if limits == [None; 2] {
            return BothWays::default();
        }
        let mut kept = old.remove(&port).unwrap_or_default().into_iter();
        let both = limits.map(|limit| {
            let roster = kept.next().flatten().map(|kept| kept.roster);
            Some(Connections { limit: limit?, roster: roster.unwrap_or_default() })
        });
        self.rosters.insert(port, both.clone());
        both
    }

    /// The buckets of these pods.
    pub(super) fn buckets(&mut self, workloads: &[Workload]) -> ByPort {
        let mut old = std::mem::take(&mut self.buckets);
        let mut ports = Vec::new();
        for workload in workloads {
            let (port, limits) = (workload.port, workload.endpoint.limits.of_packets());
            if limits.is_none() {
                continue;
            }
            let kept = old.remove(&port).filter(|(before, _)| *before == limits);
            let (_, buckets) = kept.unwrap_or_else(|| (limits, Arc::new((&limits).into())));
            let index = usize::from(port.0);
            if ports.len() <= index {
                ports.resize(index + 1, None);
            }
            if let Some(slot) = ports.get_mut(index) {
                *slot = Some(buckets.clone());
            }
            self.buckets.insert(port, (limits, buckets));
        }
        ports.into()
    }
}

impl From<&Limits> for PortLimits {
    fn from(limits: &Limits) -> Self {
        Self { ingress: limits.ingress.into(), egress: limits.egress.into(), dscp: limits.dscp }
    }
}

impl From<Usage> for Buckets {
    fn from(usage: Usage) -> Self {
        let bits = |Bandwidth { rate, burst, .. }| Bucket::shaping(rate, burst);
        let peak = usage.bandwidth.and_then(|bandwidth| bandwidth.peak);
        Self {
            packets: usage.packets.map(|p| Bucket::policing(p.rate.into(), p.burst.into())),
            bits: usage.bandwidth.map(bits),
            peak: peak.map(|peak| Bucket::shaping(peak.rate, u64::from(peak.burst) * 8)),
        }
    }
}
