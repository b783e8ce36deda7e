//! What holds of every frame that leaves, by what arrived before: asked of etherparse and of a few
//! lists, never of the node's own tables.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use margay_engine::{Counters, Fate, PortId, Why};

use super::program::Arrival;
use super::scene::{FORBIDDEN, OPEN_PORT, SERVED};
use super::seen::{Seen, Talk};
use crate::support::{A, B, HOST, N, WIRE, ip, sums_are_right};

/// Addresses by what they are.
struct Known {
    served: [IpAddr; 4],
    forbidden: [IpNet; 2],
    nodes: [IpAddr; 3],
    pods: [(PortId, [IpAddr; 2]); 3],
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| Known {
    served: SERVED.map(ip),
    forbidden: FORBIDDEN.map(|net| net.parse().expect("a network")),
    nodes: ["192.0.2.1", "203.0.113.1", "2001:db8:1::1"].map(ip),
    pods: [(A, 2), (B, 3), (N, 4)]
        .map(|(port, n)| (port, [ip(&format!("10.65.0.{n}")), ip(&format!("fd00:65::{n}"))])),
});

/// The state in which nothing is served.
const UNSERVED: usize = 4;

/// Largest IP packet on any port.
const MTU: usize = 1500;

/// Where a frame that leaves came from.
pub(super) enum Origin<'a> {
    /// It arrived and was forwarded at once.
    Direct(&'a Arrival),
    /// It arrived at that port and the slow path put it back.
    Again(PortId),
    /// The slow path made it.
    Made,
}

// === impl Origin ===

impl Origin<'_> {
    fn port(&self) -> Option<PortId> {
        match self {
            Self::Direct(arrival) => Some(arrival.from),
            Self::Again(port) => Some(*port),
            Self::Made => None,
        }
    }
}

/// What arrived so far, as far as it matters to what leaves.
#[derive(Default)]
pub(super) struct Watch {
    /// Milliseconds since the beginning.
    pub(super) passed: u64,
    /// The state's number.
    pub(super) edit: usize,
    /// What was sent to the node and not dropped.
    asked: BTreeSet<Talk>,
    /// The kernel has sent something with a TTL of 0, as only it may.
    timeless: bool,
    /// Sources of what came from where anybody may send.
    strangers: BTreeSet<IpAddr>,
    /// What pod b sent and was not refused, and what was delivered to it.
    from_b: BTreeSet<Talk>,
    to_b: BTreeSet<Talk>,
    /// A packet of a tunnel that does not end here has come: what is in it is nobody's business.
    nested: bool,
}

// === impl Watch ===

impl Watch {
    /// A frame came, and that was its fate.
    pub(super) fn arrives(&mut self, arrival: &Arrival, fate: &Fate) {
        let from = arrival.from;
        let Some(outer) = arrival.frame.get(14..).and_then(Seen::of_packet) else { return };
        // A tunnel that ends here is opened; others' are nobody's business.
        let ends_here = from == WIRE && KNOWN.nodes.contains(&outer.dst);
        let inner = Seen::of_frame(&arrival.frame).unwrap_or(outer);
        let seen = if ends_here { inner } else { outer };
        self.nested |= !ends_here && inner.bytes.len() != outer.bytes.len();
        if matches!(from, WIRE | HOST) {
            self.strangers.insert(seen.src);
        }
        self.timeless |= from == HOST && seen.ttl == 0;
        if matches!(fate, Fate::Drop(_)) {
            return;
        }
        if let Some((_, addrs)) = KNOWN.pods.iter().find(|(port, _)| *port == from) {
            // What is asked of the link is answered by the slow path alone, whoever asks.
            let of_link =
                matches!(fate, Fate::Punt(punt) if matches!(punt.why, Why::Ndisc | Why::Arp));
            let ours = addrs.contains(&seen.src) || of_link;
            assert!(ours, "a pod sends from {}: {fate:?} of {:02x?}", seen.src, arrival.frame);
        }
        if let (WIRE, Fate::Forward(_)) = (from, fate) {
            let spoofed = KNOWN.pods.iter().any(|(_, addrs)| addrs.contains(&seen.src));
            // A pod that is gone has no address.
            let gone = self.edit == 2 && KNOWN.pods[2].1.contains(&seen.src);
            assert!(!spoofed || gone, "{} comes from outside: {:02x?}", seen.src, arrival.frame);
        }
        if let Some(talk) = seen.talk() {
            self.asked.insert(talk);
            if from == B {
                self.from_b.insert(talk);
                let away = KNOWN.forbidden.iter().any(|net| net.contains(&talk.dst.0));
                if away && matches!(fate, Fate::Forward(_)) {
                    let answers = self.to_b.contains(&talk.reversed());
                    assert!(answers, "pod b speaks to {}: {:02x?}", talk.dst.0, arrival.frame);
                }
            }
        }
    }

    /// A frame leaves. `clean` says that all it is made of was as it should be.
    pub(super) fn leaves(&mut self, port: PortId, frame: &[u8], origin: &Origin<'_>, clean: bool) {
        match frame.get(12..14) {
            Some([8, 6]) => return assert_eq!(frame.len(), 42, "an ARP packet: {frame:02x?}"),
            Some([0x08, 0x00] | [0x86, 0xdd]) => {}
            _ => panic!("no IP leaves by {port:?}: {frame:02x?}"),
        }
        let packet = &frame[14..];
        let outer = Seen::of_packet(packet).unwrap_or_else(|| panic!("unread: {frame:02x?}"));
        assert_eq!(outer.bytes.len(), packet.len(), "as long as it says: {frame:02x?}");
        assert!(packet.len() <= MTU, "{} bytes leave by {port:?}", packet.len());
        if packet[0] >> 4 == 4 {
            let header = &packet[..usize::from(packet[0] & 15) * 4];
            assert_eq!(super::sum(header), 0xffff, "IPv4 header of {frame:02x?}");
        }
        if clean {
            sums_are_right(packet);
        }
        let seen = match port {
            WIRE if !self.nested => Seen::of_frame(frame).unwrap_or(outer),
            _ => outer,
        };
        assert!(seen.ttl > 0 || port == HOST || self.timeless, "TTL 0 leaves: {frame:02x?}");
        if let Some(talk) = seen.talk() {
            self.served(port, &talk, frame);
            if port == B {
                self.delivered(&talk, origin, frame);
            }
        } else if port == B && seen.is_error() {
            self.told(&seen, origin, frame);
        }
    }

    /// A service's address is translated on the way there, and stands only in answers to who asked.
    fn served(&self, port: PortId, talk: &Talk, frame: &[u8]) {
        let has_ports = matches!(talk.protocol, 6 | 17 | 132);
        if !has_ports || self.nested {
            return;
        }
        let served = |addr: &IpAddr| KNOWN.served.contains(addr);
        if served(&talk.dst.0) && self.edit != UNSERVED && !self.strangers.contains(&talk.dst.0) {
            panic!("{talk:?} leaves untranslated by {port:?}: {frame:02x?}");
        }
        if served(&talk.src.0) && !self.strangers.contains(&talk.src.0) {
            let answers = self.asked.contains(&talk.reversed());
            assert!(answers, "nobody asked for {talk:?} by {port:?}: {frame:02x?}");
        }
    }

    /// Pod b is sent what its policy allows: its open port, answers, what the node itself says and
    /// what it says to itself.
    fn delivered(&mut self, talk: &Talk, origin: &Origin<'_>, frame: &[u8]) {
        self.to_b.insert(*talk);
        let from = origin.port();
        let open = talk.protocol == 6 && talk.dst.1 == OPEN_PORT;
        let answers = self.from_b.contains(&talk.reversed());
        let nodes = from == Some(HOST) || KNOWN.nodes.contains(&talk.src.0) && from.is_none();
        let itself = from == Some(B);
        // A datagram that is cut again comes from the slow path: who sent it is not known here.
        let cut = from.is_none();
        assert!(open || answers || nodes || itself || cut, "pod b gets {talk:?}: {frame:02x?}");
    }

    /// Pod b is told of errors about conversations of its own.
    fn told(&self, error: &Seen<'_>, origin: &Origin<'_>, frame: &[u8]) {
        if matches!(origin, Origin::Direct(arrival) if arrival.from == HOST) {
            return;
        }
        // Headers that are longer than the quotation say nothing of ports.
        if let Some(talk) = error.quoted().and_then(|quoted| quoted.talk()) {
            // An error may be quicker than the answer that it is about.
            let sent = self.from_b.contains(&talk) || self.to_b.contains(&talk.reversed());
            assert!(sent, "pod b is told of {talk:?}: {frame:02x?}");
        }
    }
}

/// What the counters said at the beginning.
pub(super) struct Account(Sums);

#[derive(Clone, Copy)]
struct Sums {
    rx: u64,
    tx: u64,
    drops: u64,
    punts: u64,
    injected: u64,
    consumed: u64,
}

// === impl Account ===

impl Account {
    pub(super) fn of(counters: &Counters) -> Self {
        Self(Sums::of(counters))
    }

    /// Received and injected frames are those sent, dropped and punted; punts have ended, except
    /// for those that wait.
    pub(super) fn is_even(&self, counters: &Counters, waiting: usize) {
        let (then, now) = (self.0, Sums::of(counters));
        let came = now.rx - then.rx + now.injected - then.injected;
        let went = now.tx - then.tx + now.drops - then.drops + now.punts - then.punts;
        assert_eq!(came, went, "frames are conserved");
        let open = (now.punts - then.punts).checked_sub(now.consumed - then.consumed);
        assert_eq!(open, Some(waiting as u64), "each punt ends once");
    }
}

impl Sums {
    fn of(counters: &Counters) -> Self {
        let ports = || (0..8).map(PortId);
        let (drops, [punts, injected, consumed]) = counters.by_reason();
        let sum = |counts: &[u64]| counts.iter().sum();
        Self {
            rx: ports().map(|port| counters.rx(port).0).sum(),
            tx: ports().map(|port| counters.tx(port).0).sum(),
            drops: sum(&drops),
            punts: sum(&punts),
            injected: sum(&injected),
            consumed: sum(&consumed),
        }
    }
}
