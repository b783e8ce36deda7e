//! Packets that wait until the kernel knows their next hop's Ethernet address.
//!
//! Arrives: [`Request::Neighbour`](crate::Request::Neighbour). Leaves: a question to the kernel at
//! most once a second for each next hop; the packets when it is answered; drops when it is not.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::punt::{Ingress, PortId, Punt};

/// Milliseconds between two questions for one next hop.
const ASK_EVERY: u64 = 1000;

/// How much may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets for each next hop; a further one pushes the oldest out.
    pub per_hop: usize,
    /// Packets from each ingress, so that nobody fills the room alone; a further one is refused.
    /// Also the questions in a second that its refused packets ask.
    pub per_ingress: usize,
    /// Packets in total; a further one is refused.
    pub total: usize,
    /// Milliseconds that a packet waits.
    pub timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_hop: 16, per_ingress: 128, total: 1024, timeout_ms: 3000 }
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
    guests: BTreeMap<Ingress, Guest>,
    len: usize,
}

/// What one ingress has in the room.
#[derive(Debug, Default)]
struct Guest {
    waiting: usize,
    /// Questions that its refused packets have asked since `asking_since`.
    asked: usize,
    asking_since: u64,
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
        Self { limits, hops: BTreeMap::new(), guests: BTreeMap::new(), len: 0 }
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A packet comes to wait. The kernel is asked for its next hop even if there is no room: the
    /// sender's next packet may find the answer.
    pub fn hold(&mut self, now_ms: u64, egress: PortId, addr: IpAddr, punt: Punt) -> Held {
        let ingress = punt.ingress;
        let hop = self.hops.get(&(egress, addr));
        let due = hop.is_none_or(|hop| now_ms >= hop.asked_at.saturating_add(ASK_EVERY));
        let full = hop.is_some_and(|hop| hop.queue.len() >= self.limits.per_hop);
        let out = hop.and_then(|hop| hop.queue.front()).filter(|_| full).map(|(_, p)| p.ingress);
        let guest = self.guests.entry(ingress).or_default();
        if self.limits.per_hop == 0
            || guest.waiting - usize::from(out == Some(ingress)) >= self.limits.per_ingress
            || self.len - usize::from(out.is_some()) >= self.limits.total
        {
            let ask = due && guest.may_ask(now_ms, self.limits.per_ingress);
            if ask && let Some(hop) = self.hops.get_mut(&(egress, addr)) {
                hop.asked_at = now_ms;
            }
            return Held { dropped: 1, ask };
        }
        guest.waiting += 1;
        self.len += 1;
        let hop = self
            .hops
            .entry((egress, addr))
            .or_insert_with(|| Hop { asked_at: now_ms, queue: VecDeque::new() });
        if due {
            hop.asked_at = now_ms;
        }
        if out.is_some() {
            hop.queue.pop_front();
        }
        hop.queue.push_back((now_ms.saturating_add(self.limits.timeout_ms), punt));
        out.into_iter().for_each(|ingress| self.leave(ingress));
        Held { dropped: usize::from(out.is_some()), ask: due }
    }

    /// One packet of an ingress waits no more.
    fn leave(&mut self, ingress: Ingress) {
        self.len -= 1;
        if let Some(guest) = self.guests.get_mut(&ingress) {
            guest.waiting -= 1;
        }
    }

    /// The packets that waited for one next hop, oldest first; they wait no more.
    pub fn release(&mut self, egress: PortId, addr: IpAddr) -> Vec<Punt> {
        let Some(hop) = self.hops.remove(&(egress, addr)) else { return Vec::new() };
        hop.queue.iter().for_each(|(_, punt)| self.leave(punt.ingress));
        hop.queue.into_iter().map(|(_, punt)| punt).collect()
    }

    /// The packets that waited too long.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Punt> {
        let out = self.remove_where(|_, deadline, _| deadline <= now_ms);
        self.guests.retain(|_, guest| guest.waiting > 0 || !guest.is_quiet(now_ms));
        out
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
        out.iter().for_each(|punt| self.leave(punt.ingress));
        out
    }
}

// === impl Guest ===

impl Guest {
    fn is_quiet(&self, now_ms: u64) -> bool {
        now_ms >= self.asking_since.saturating_add(ASK_EVERY)
    }

    /// Whether a refused packet may ask, `limit` times a second.
    fn may_ask(&mut self, now_ms: u64, limit: usize) -> bool {
        if self.is_quiet(now_ms) {
            (self.asked, self.asking_since) = (0, now_ms);
        }
        self.asked += 1;
        self.asked <= limit
    }
}
