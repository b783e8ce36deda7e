//! Packets that wait until the kernel knows their next hop's Ethernet address.
//!
//! Arrives: [`Request::Neighbour`](crate::Request::Neighbour). Leaves: a question to the kernel at
//! most once a second for each next hop; the packets when it is answered; drops when it is not.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::punt::{PortId, Punt};

/// Milliseconds between two questions for one next hop.
const ASK_EVERY: u64 = 1000;

/// How much may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets for each next hop; a further one pushes the oldest out.
    pub per_hop: usize,
    /// Packets in total; a further one is refused.
    pub total: usize,
    /// Milliseconds that a packet waits.
    pub timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_hop: 16, total: 1024, timeout_ms: 3000 }
    }
}

/// What became of a packet that came to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Packets that were lost to make room, or the packet itself.
    pub dropped: usize,
    /// Whether the kernel is to be asked.
    pub ask: bool,
}

/// The waiting packets of all next hops.
#[derive(Debug)]
pub struct Neighbours {
    limits: Limits,
    hops: BTreeMap<(PortId, IpAddr), Hop>,
    len: usize,
}

#[derive(Debug)]
struct Hop {
    asked_at: u64,
    /// Oldest first, each with the time at which it is given up.
    queue: VecDeque<(u64, Punt)>,
}

// === impl Neighbours ===

impl Neighbours {
    /// Nothing waits yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, hops: BTreeMap::new(), len: 0 }
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A packet comes to wait.
    pub fn hold(&mut self, now_ms: u64, egress: PortId, addr: IpAddr, punt: Punt) -> Held {
        let hop = self.hops.get(&(egress, addr));
        let queued = hop.map_or(0, |hop| hop.queue.len());
        let ask = hop.is_none_or(|hop| now_ms >= hop.asked_at.saturating_add(ASK_EVERY));
        let makes_room = queued > 0 && queued >= self.limits.per_hop;
        if self.limits.per_hop == 0 || (self.len >= self.limits.total && !makes_room) {
            return Held { dropped: 1, ask: false };
        }
        let hop = self
            .hops
            .entry((egress, addr))
            .or_insert_with(|| Hop { asked_at: now_ms, queue: VecDeque::new() });
        if ask {
            hop.asked_at = now_ms;
        }
        if makes_room {
            hop.queue.pop_front();
        } else {
            self.len += 1;
        }
        hop.queue.push_back((now_ms.saturating_add(self.limits.timeout_ms), punt));
        Held { dropped: usize::from(makes_room), ask }
    }

    /// The packets that waited for one next hop, oldest first; they wait no more.
    pub fn release(&mut self, egress: PortId, addr: IpAddr) -> Vec<Punt> {
        let Some(hop) = self.hops.remove(&(egress, addr)) else { return Vec::new() };
        self.len -= hop.queue.len();
        hop.queue.into_iter().map(|(_, punt)| punt).collect()
    }

    /// The packets that waited too long.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Punt> {
        self.remove_where(|_, deadline, _| deadline <= now_ms)
    }

    /// The packets that came from a port or were to leave by it.
    pub fn port_gone(&mut self, port: PortId) -> Vec<Punt> {
        self.remove_where(|egress, _, punt| egress == port || punt.ingress.port() == Some(port))
    }

    fn remove_where(&mut self, lost: impl Fn(PortId, u64, &Punt) -> bool) -> Vec<Punt> {
        let mut out = Vec::new();
        self.hops.retain(|(egress, _), hop| {
            for (deadline, punt) in std::mem::take(&mut hop.queue) {
                if lost(*egress, deadline, &punt) {
                    out.push(punt);
                } else {
                    hop.queue.push_back((deadline, punt));
                }
            }
            !hop.queue.is_empty()
        });
        self.len -= out.len();
        out
    }
}
