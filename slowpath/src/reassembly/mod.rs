//! Datagrams in pieces are put together, so that ports can be read and one decision holds for all
//! of them (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! Arrives: [`Request::Reassemble`](crate::Request::Reassemble). Leaves: the whole datagram as
//! though it had been received so, behind its first fragment's outer headers; or drops.
//!
//! A datagram whose pieces overlap is lost with all that comes of it later (RFC 5722; for IPv4 the
//! same, since no honest sender overlaps); an exact copy of a piece is ignored. IPv6 senders are told
//! of what cannot be put together, as who puts it together does (RFC 8200, section 4.5); IPv4's are
//! not, as this node is not the packet's destination (RFC 1812, section 5.2.7.3).
//!
//! This file bounds memory and time; [`datagram`] joins the pieces of one datagram.

mod datagram;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::punt::{Ingress, Past, PortId, Punt, Request};
use datagram::{Datagram, Insert, Piece, Unfit};

/// What a datagram, and each of its pieces, counts against the limits besides the bytes.
const OVERHEAD: usize = 128;

/// How much may be kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in total; above, the oldest datagrams are lost.
    pub total_bytes: usize,
    /// Bytes of one source on one port; above, its own oldest datagrams are lost.
    pub source_bytes: usize,
    /// Pieces of one datagram: tiny ones are dear to keep.
    pub pieces: usize,
    /// Milliseconds from a datagram's first piece to its last.
    pub timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 16 << 20,
            source_bytes: 2 << 20,
            // 65,535 bytes at the smallest MTU that hosts must take (576), and some.
            pieces: 128,
            timeout_ms: 30_000,
        }
    }
}

/// What became of the pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of this piece.
    pub progress: Progress,
    /// Pieces that are lost, perhaps this one, perhaps those of other datagrams.
    pub dropped: usize,
}

/// What became of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for others, or it is among the dropped.
    Waiting,
    /// It was there already.
    Duplicate,
    /// It fits no datagram, for which this byte of it is to blame, and its sender is to be told.
    Unfit {
        /// Offset in the IP packet.
        pointer: u32,
    },
    /// It was the last that was missing.
    Whole {
        /// The frame with the whole datagram.
        frame: Vec<u8>,
        /// The pieces it was made of.
        pieces: usize,
    },
}

/// What was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Pieces that are lost.
    pub pieces: usize,
    /// First pieces of IPv6 datagrams, whose senders are to be told.
    pub first: Vec<Punt>,
}

/// Who pays for the memory. Pieces from different ports never meet, so a pod cannot spoil what
/// others send.
type Source = (Ingress, IpAddr);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: Source,
    dst: IpAddr,
    /// 0 for IPv6, where the protocol does not tell datagrams apart.
    protocol: u8,
    ident: u32,
}

/// The datagrams of which pieces are missing.
#[derive(Debug)]
pub struct Reassembly {
    limits: Limits,
    datagrams: BTreeMap<Key, Datagram>,
    /// Every datagram by age.
    by_age: BTreeMap<u64, Key>,
    /// The same for each source.
    by_source: BTreeMap<(Source, u64), Key>,
    source_bytes: BTreeMap<Source, usize>,
    bytes: usize,
    pieces: usize,
    next_serial: u64,
}

// === impl Reassembly ===

impl Reassembly {
    /// Nothing is kept yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            datagrams: BTreeMap::new(),
            by_age: BTreeMap::new(),
            by_source: BTreeMap::new(),
            source_bytes: BTreeMap::new(),
            bytes: 0,
            pieces: 0,
            next_serial: 0,
        }
    }

    /// Pieces that wait.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Bytes that count against the limits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a piece. What is too old by now must have been given up before: [`Self::expire`].
    pub fn add(&mut self, now_ms: u64, punt: &Punt) -> Outcome {
        let (progress, dropped) = match Piece::parse(punt) {
            Ok(piece) if piece.is_alone() => match piece.unfragmented() {
                Some(frame) => (Progress::Whole { frame, pieces: 1 }, 0),
                None => (Progress::Waiting, 1),
            },
            Ok(piece) => self.add_piece(now_ms, &piece),
            Err(Unfit { pointer: Some(pointer) }) => (Progress::Unfit { pointer }, 1),
            Err(Unfit { pointer: None }) => (Progress::Waiting, 1),
        };
        Outcome { progress, dropped }
    }

    /// Gives up datagrams that wait too long.
    pub fn expire(&mut self, now_ms: u64) -> Expired {
        let mut expired = Expired::default();
        while let Some((_, key)) = self.by_age.first_key_value() {
            let key = *key;
            if self.datagrams.get(&key).is_some_and(|d| d.deadline > now_ms) {
                break;
            }
            let Some(datagram) = self.take(&key) else { break };
            expired.pieces += datagram.pieces();
            let request = Request::Reassemble;
            expired.first.extend(datagram.first().map(|(frame, ip_start)| Punt {
                ingress: key.source.0,
                past: Past::default(),
                frame,
                ip_start,
                request,
            }));
        }
        expired
    }

    /// Gives up what came from a port; returns how many pieces are lost.
    pub fn port_gone(&mut self, port: PortId) -> usize {
        let of_port = |key: &&Key| key.source.0.port() == Some(port);
        let keys: Vec<_> = self.datagrams.keys().filter(of_port).copied().collect();
        keys.iter().map(|key| self.lose(key)).sum()
    }

    fn add_piece(&mut self, now_ms: u64, piece: &Piece<'_>) -> (Progress, usize) {
        let key = piece.key();
        let is_new = !self.datagrams.contains_key(&key);
        let cost = piece.cost() + if is_new { OVERHEAD } else { 0 };
        let mut dropped = self.make_room(&key, cost);
        if !self.fits(&key.source, cost) {
            return (Progress::Waiting, dropped + 1);
        }
        let mut datagram = self.take(&key).unwrap_or_else(|| {
            self.next_serial += 1;
            Datagram::new(self.next_serial, now_ms.saturating_add(self.limits.timeout_ms))
        });
        let progress = match datagram.insert(piece, self.limits.pieces) {
            Insert::Kept if datagram.is_complete() => {
                let pieces = datagram.pieces();
                return match datagram.join() {
                    Some(frame) => (Progress::Whole { frame, pieces }, dropped),
                    None => (Progress::Waiting, dropped + pieces),
                };
            }
            Insert::Kept => Progress::Waiting,
            Insert::Duplicate => Progress::Duplicate,
            Insert::Spoiled { lost } => {
                dropped += lost;
                Progress::Waiting
            }
        };
        self.put(key, datagram);
        (progress, dropped)
    }

    /// Loses the oldest datagrams but `keep`, the source's own first, until `cost` more bytes fit
    /// or nothing is left to lose.
    fn make_room(&mut self, keep: &Key, cost: usize) -> usize {
        let mut lost = 0;
        while !self.fits(&keep.source, cost) {
            let own = (keep.source, 0)..=(keep.source, u64::MAX);
            let oldest = if self.source_fits(&keep.source, cost) {
                self.by_age.values().find(|key| *key != keep)
            } else {
                self.by_source.range(own).map(|(_, key)| key).find(|key| *key != keep)
            };
            let Some(oldest) = oldest.copied() else { break };
            lost += self.lose(&oldest);
        }
        lost
    }

    fn fits(&self, source: &Source, cost: usize) -> bool {
        self.bytes + cost <= self.limits.total_bytes && self.source_fits(source, cost)
    }

    fn source_fits(&self, source: &Source, cost: usize) -> bool {
        let used = self.source_bytes.get(source).copied().unwrap_or(0);
        used + cost <= self.limits.source_bytes
    }

    fn lose(&mut self, key: &Key) -> usize {
        self.take(key).map_or(0, |datagram| datagram.pieces())
    }

    /// Takes a datagram out of the books. With [`Self::put`] the only place that changes the sums.
    fn take(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.by_age.remove(&datagram.serial);
        self.by_source.remove(&(key.source, datagram.serial));
        self.pieces -= datagram.pieces();
        self.bytes -= datagram.cost();
        if let Some(used) = self.source_bytes.get_mut(&key.source) {
            *used -= datagram.cost();
            if *used == 0 {
                self.source_bytes.remove(&key.source);
            }
        }
        Some(datagram)
    }

    fn put(&mut self, key: Key, datagram: Datagram) {
        self.by_age.insert(datagram.serial, key);
        self.by_source.insert((key.source, datagram.serial), key);
        self.pieces += datagram.pieces();
        self.bytes += datagram.cost();
        *self.source_bytes.entry(key.source).or_default() += datagram.cost();
        self.datagrams.insert(key, datagram);
    }
}
