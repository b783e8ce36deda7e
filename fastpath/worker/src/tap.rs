//! Taps: packets that somebody wants to see on their way. Without one a worker pays one comparison a
//! batch; with one, the packets that nobody wants go on in their batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use crossbeam::queue::ArrayQueue;
use ipnet::IpNet;
use margay_engine::trace::{Seen, Traced};
use margay_engine::{Fate, PortId, Snapshot};
use margay_model::flow::FlowTuple;

/// Packets that wait to be fetched at most.
const QUEUE: usize = 1024;

/// Which packets are wanted; what is empty or `None` wants all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// They came from this port.
    pub from: Option<PortId>,
    /// They leave through this port.
    pub to: Option<PortId>,
    /// An address of theirs, as they arrive or as they leave, lies in one of the networks of each
    /// of these lists.
    pub nets: Vec<Vec<IpNet>>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// A port of theirs, as they arrive or as they leave, in host byte order.
    pub l4_port: Option<u16>,
    /// Only packets that are dropped.
    pub drops: bool,
}

/// Somebody who wants to see packets.
pub struct Tap {
    filter: Filter,
    /// Packets that are still wanted.
    left: AtomicU64,
    sightings: ArrayQueue<Sighting>,
    missed: AtomicU64,
}

/// A packet on its way.
pub struct Sighting {
    /// When it was received.
    pub at: SystemTime,
    /// The worker that had it.
    pub worker: usize,
    /// The frame as it arrived.
    pub before: Vec<u8>,
    /// The frame as the path left it.
    pub after: Vec<u8>,
    /// What became of it.
    pub traced: Traced,
    /// What it was decided by.
    pub snapshot: Arc<Snapshot>,
}

// === impl Filter ===

impl Filter {
    /// Whether a packet may be wanted, as far as can be said before it is decided: how it would
    /// leave is known only if it has a flow.
    fn may_want(&self, seen: &Seen, leaving: Option<&FlowTuple>) -> bool {
        self.from.is_none_or(|port| seen.port == Some(port))
            && match seen.tuple() {
                Some(tuple) => {
                    self.protocol.is_none_or(|wanted| tuple.protocol == wanted)
                        && leaving.is_none_or(|leaving| self.names([&tuple, leaving]))
                }
                None => !self.wants_some_packets(),
            }
    }

    /// Whether a packet is wanted, now that it is decided.
    fn wants(&self, traced: &Traced) -> bool {
        let tuple = traced.seen.tuple();
        let to = |port| traced.fate.egress() == Some(port);
        self.may_want(&traced.seen, traced.leaving.as_ref().or(tuple.as_ref()))
            && self.to.is_none_or(to)
            && (!self.drops || matches!(traced.fate, Fate::Drop(_)))
    }

    /// Whether addresses and ports are wanted: each condition by itself, since a client's packet to
    /// a service names the service as it arrives and the backend as it leaves.
    fn names(&self, tuples: [&FlowTuple; 2]) -> bool {
        let is_in =
            |net: &IpNet| tuples.iter().any(|t| net.contains(&t.src) || net.contains(&t.dst));
        let has =
            |port| tuples.iter().any(|tuple| [tuple.src_port, tuple.dst_port].contains(&port));
        self.nets.iter().all(|nets| nets.iter().any(is_in)) && self.l4_port.is_none_or(has)
    }

    /// Whether only packets are wanted of which the addresses are known.
    fn wants_some_packets(&self) -> bool {
        !self.nets.is_empty() || self.protocol.is_some() || self.l4_port.is_some()
    }
}

// === impl Tap ===

impl Tap {
    /// A tap for at most `limit` packets.
    #[must_use]
    pub fn new(filter: Filter, limit: u64) -> Self {
        let sightings = ArrayQueue::new(QUEUE);
        Self { filter, left: AtomicU64::new(limit), sightings, missed: AtomicU64::new(0) }
    }

    /// The next packet that was seen.
    pub fn take(&self) -> Option<Sighting> {
        self.sightings.pop()
    }

    /// Packets that came too fast to be fetched.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Whether all packets that were wanted have been seen.
    pub fn is_done(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    pub(crate) fn may_want(&self, seen: &Seen, leaving: Option<&FlowTuple>) -> bool {
        !self.is_done() && self.filter.may_want(seen, leaving)
    }

    /// Keeps a packet if it is wanted.
    pub(crate) fn offer(&self, traced: &Traced, sighting: impl FnOnce() -> Sighting) {
        if !self.filter.wants(traced) {
            return;
        }
        let one_less = |left: u64| left.checked_sub(1);
        if self.left.fetch_update(Relaxed, Relaxed, one_less).is_ok()
            && self.sightings.push(sighting()).is_err()
        {
            self.missed.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: [u8; 4], dst: [u8; 4], dst_port: u16) -> FlowTuple {
        FlowTuple { src: src.into(), dst: dst.into(), protocol: 6, src_port: 4000, dst_port }
    }

    fn nets(lists: &[&str]) -> Filter {
        let list = |list: &&str| list.split(' ').map(|net| net.parse().unwrap()).collect();
        Filter { nets: lists.iter().map(list).collect(), ..Filter::default() }
    }

    #[test]
    fn every_condition_must_hold_of_the_packet_as_it_arrives_or_leaves() {
        let arriving = tuple([10, 0, 0, 1], [10, 96, 0, 1], 80);
        let leaving = tuple([10, 0, 0, 1], [10, 0, 0, 2], 8080);
        let wants = |filter: &Filter| filter.names([&arriving, &leaving]);
        assert!(wants(&nets(&[])));
        assert!(wants(&nets(&["9.9.9.9/32 10.0.0.1/32"])));
        assert!(wants(&nets(&["10.96.0.1/32", "10.0.0.2/32"])), "service and backend");
        assert!(!wants(&nets(&["10.0.0.1/32", "9.9.9.9/32"])), "one of them is nowhere");
        let ported = |port| Filter { l4_port: Some(port), ..nets(&["10.0.0.2/32"]) };
        assert!(wants(&ported(80)) && wants(&ported(8080)) && !wants(&ported(53)));
    }
}
