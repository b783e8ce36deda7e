//! The limits of pods, with what of them is used up.

use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::{Bandwidth, Dscp, Limits, Usage};

use super::Workload;
use super::port::PortId;
use crate::bucket::Bucket;

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

/// The buckets of the last snapshot: they go on in the next as they are, unless the limits change.
#[derive(Debug, Default)]
pub(super) struct Keep(HashMap<PortId, (Limits, Arc<PortLimits>)>);

// === impl Keep ===

impl Keep {
    /// The buckets of these pods.
    pub(super) fn update(&mut self, workloads: &[Workload]) -> ByPort {
        let mut old = std::mem::take(&mut self.0);
        let mut ports = Vec::new();
        for workload in workloads.iter().filter(|w| !w.endpoint.limits.is_none()) {
            let (port, limits) = (workload.port, workload.endpoint.limits);
            let kept = old.remove(&port).filter(|(before, _)| *before == limits);
            let (_, buckets) = kept.unwrap_or_else(|| (limits, Arc::new((&limits).into())));
            let index = usize::from(port.0);
            if ports.len() <= index {
                ports.resize(index + 1, None);
            }
            if let Some(slot) = ports.get_mut(index) {
                *slot = Some(buckets.clone());
            }
            self.0.insert(port, (limits, buckets));
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
