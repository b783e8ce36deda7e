//! The pieces of one datagram.

use std::collections::BTreeMap;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::{Key, OVERHEAD};
use crate::packet::{self, IPV6_LEN, IpView, Part};
use crate::punt::Punt;

/// An IPv4 packet, and what follows an IPv6 header, is at most this long.
const MAX_LEN: usize = 65_535;
/// ECN codepoint: congestion experienced.
const CE: u8 = 3;
/// Length of an IPv6 fragment header.
const FRAGMENT_LEN: usize = 8;
/// Offsets of the payload length in an IPv6 header, and of the fragment offset in a fragment header.
const PAYLOAD_LENGTH: u32 = 4;
const FRAGMENT_OFFSET: u32 = 2;

/// A checked fragment.
pub(super) struct Piece<'a> {
    punt: &'a Punt,
    view: IpView<'a>,
    part: Part,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    Kept,
    Duplicate,
    /// The datagram cannot be completed any more: `lost` pieces, this one included, are gone.
    Spoiled {
        lost: usize,
    },
}

/// A datagram of which pieces are missing.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Greater for younger ones.
    pub(super) serial: u64,
    /// Milliseconds at which it is given up.
    pub(super) deadline: u64,
    /// Data by offset; never overlapping.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Bytes of data that are there.
    have: usize,
    /// Bytes of data of the whole, known from the last piece.
    total: Option<usize>,
    head: Option<Head>,
    ecn: Ecn,
    spoiled: bool,
}

/// What precedes the data in the first fragment.
#[derive(Debug)]
struct Head {
    /// Ethernet header and, in a tunnel, the outer headers.
    outer: Vec<u8>,
    /// IP headers that the whole datagram keeps, IPv6's without the fragment header.
    inner: Vec<u8>,
    /// IPv6's fragment header, and the offset in `inner` of the byte that named it.
    fragment: Option<([u8; FRAGMENT_LEN], usize)>,
}

/// Why a packet is no piece that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// The byte of the IPv6 packet that its sender is to be told of.
    pub(super) pointer: Option<u32>,
}

/// Which ECN codepoints the pieces carry (RFC 3168, section 5.3).
#[derive(Clone, Copy, Debug, Default)]
struct Ecn {
    incapable: bool,
    congested: bool,
}

// === impl Piece ===

impl<'a> Piece<'a> {
    /// The fragment of a punt.
    ///
    /// # Errors
    /// What is none or can belong to no datagram: no data, a length that leaves a gap no other can
    /// fill, an end beyond the largest datagram. Of the last two an IPv6 sender is told (RFC 8200,
    /// section 4.5).
    pub(super) fn parse(punt: &'a Punt) -> Result<Self, Unfit> {
        let silent = Unfit { pointer: None };
        let view = IpView::parse(punt.packet()).ok_or(silent)?;
        let part = view.part.ok_or(silent)?;
        let piece = Self { punt, view, part };
        let len = piece.data().len();
        if len == 0 && (part.more || part.offset != 0) {
            return Err(silent);
        }
        let told = |pointer| Unfit { pointer: view.src.is_ipv6().then_some(pointer) };
        if part.more && !len.is_multiple_of(8) {
            return Err(told(PAYLOAD_LENGTH));
        }
        let kept_headers = if view.src.is_ipv4() { view.payload_start } else { piece.head_len() };
        let limit = if view.src.is_ipv4() { MAX_LEN } else { MAX_LEN + IPV6_LEN };
        if kept_headers + part.offset + len > limit {
            return Err(told(piece.head_len() as u32 + FRAGMENT_OFFSET));
        }
        Ok(piece)
    }

    /// The datagram's data in it. IPv6 extension headers behind the fragment header are data.
    fn data(&self) -> &'a [u8] {
        let start = self
            .view
            .fragment_header
            .map_or(self.view.payload_start, |(start, _)| start + FRAGMENT_LEN);
        self.view.whole.get(start..).unwrap_or_default()
    }

    /// The datagram it belongs to.
    pub(super) fn key(&self) -> Key {
        let protocol = if self.view.src.is_ipv4() { self.view.protocol } else { 0 };
        Key {
            source: (self.punt.ingress, self.view.src),
            dst: self.view.dst,
            protocol,
            ident: self.part.ident,
        }
    }

    /// Whether it is a datagram's only fragment: it has nothing to do with others of its
    /// identification (RFC 6946).
    pub(super) fn is_alone(&self) -> bool {
        self.part.offset == 0 && !self.part.more
    }

    /// The frame of such a fragment without its fragment header.
    pub(super) fn unfragmented(&self) -> Option<Vec<u8>> {
        let head = self.head()?;
        join(&head, [self.data()], None)
    }

    /// What it counts against the limits.
    pub(super) fn cost(&self) -> usize {
        let head = if self.part.offset == 0 { self.head_cost() } else { 0 };
        self.data().len() + OVERHEAD + head
    }

    fn head_cost(&self) -> usize {
        self.punt.ip_start + self.head_len()
    }

    /// Length of the IP headers that the whole datagram keeps.
    fn head_len(&self) -> usize {
        self.view.fragment_header.map_or(self.view.payload_start, |(start, _)| start)
    }

    fn head(&self) -> Option<Head> {
        let outer = self.punt.frame.get(..self.punt.ip_start)?.to_vec();
        let mut inner = self.view.whole.get(..self.head_len())?.to_vec();
        let mut fragment = None;
        if let Some((start, named_at)) = self.view.fragment_header {
            let header: [u8; FRAGMENT_LEN] = *self.view.whole.get(start..)?.first_chunk()?;
            *inner.get_mut(named_at)? = header[0];
            fragment = Some((header, named_at));
        }
        Some(Head { outer, inner, fragment })
    }

    fn ecn(&self) -> u8 {
        match self.view.src {
            std::net::IpAddr::V4(_) => Ipv4Packet::new_unchecked(self.view.whole).ecn(),
            std::net::IpAddr::V6(_) => {
                Ipv6Packet::new_unchecked(self.view.whole).traffic_class() & 3
            }
        }
    }
}

// === impl Datagram ===

impl Datagram {
    pub(super) fn new(serial: u64, deadline: u64) -> Self {
        Self {
            serial,
            deadline,
            pieces: BTreeMap::new(),
            have: 0,
            total: None,
            head: None,
            ecn: Ecn::default(),
            spoiled: false,
        }
    }

    /// How many pieces are there.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// What it counts against the limits.
    pub(super) fn cost(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |h| h.outer.len() + h.inner.len());
        self.have + head + OVERHEAD * (1 + self.pieces.len())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.head.is_some() && self.total == Some(self.have)
    }

    /// Takes a piece; of at most `limit` the datagram may be made.
    pub(super) fn insert(&mut self, piece: &Piece<'_>, limit: usize) -> Insert {
        let data = piece.data();
        let (start, end) = (piece.part.offset, piece.part.offset + data.len());
        if self.spoiled {
            return Insert::Spoiled { lost: 1 };
        }
        if self.pieces.get(&start).is_some_and(|there| there == data) {
            return Insert::Duplicate;
        }
        if self.pieces.len() >= limit || self.overlaps(start, end) || !self.fix_end(piece, end) {
            return self.spoil();
        }
        if start == 0 {
            self.head = piece.head();
        }
        let codepoint = piece.ecn();
        self.ecn.incapable |= codepoint == 0;
        self.ecn.congested |= codepoint == CE;
        self.have += data.len();
        self.pieces.insert(start, data.to_vec());
        Insert::Kept
    }

    /// The frame of the whole datagram. `None` where it is too long for its tunnel, or where only
    /// some pieces know congestion (RFC 3168, section 5.3).
    pub(super) fn join(self) -> Option<Vec<u8>> {
        if self.ecn.incapable && self.ecn.congested {
            return None;
        }
        let codepoint = self.ecn.congested.then_some(CE);
        join(&self.head?, self.pieces.values().map(Vec::as_slice), codepoint)
    }

    /// The frame that its first piece came in, of IPv6.
    pub(super) fn first(&self) -> Option<(Vec<u8>, usize)> {
        let head = self.head.as_ref()?;
        let (header, named_at) = head.fragment?;
        let data = self.pieces.get(&0)?;
        let mut packet = [&head.inner, &header[..], data].concat();
        *packet.get_mut(named_at)? = IpProtocol::Ipv6Frag.into();
        let len = u16::try_from(packet.len().checked_sub(IPV6_LEN)?).ok()?;
        Ipv6Packet::new_unchecked(&mut packet).set_payload_len(len);
        Some((packet::wrap(&head.outer, &packet)?, head.outer.len()))
    }

    fn overlaps(&self, start: usize, end: usize) -> bool {
        let before = self.pieces.range(..end).next_back();
        before.is_some_and(|(at, data)| at + data.len() > start)
    }

    /// Agrees with the others on where the datagram ends.
    fn fix_end(&mut self, piece: &Piece<'_>, end: usize) -> bool {
        if piece.part.more {
            return self.total.is_none_or(|total| end <= total);
        }
        let beyond = self.pieces.last_key_value().is_some_and(|(at, data)| at + data.len() > end);
        let agrees = !beyond && self.total.is_none_or(|total| total == end);
        self.total = self.total.or(Some(end));
        agrees
    }

    fn spoil(&mut self) -> Insert {
        let lost = self.pieces.len() + 1;
        self.pieces.clear();
        self.have = 0;
        self.head = None;
        self.total = None;
        self.spoiled = true;
        Insert::Spoiled { lost }
    }
}

/// A frame of a whole datagram: not marked as a fragment, and free to be cut again (IPv4's DF off),
/// since its fragments travelled.
fn join<'a>(
    head: &Head,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    ecn: Option<u8>,
) -> Option<Vec<u8>> {
    let mut packet = head.inner.clone();
    for piece in pieces {
        packet.extend_from_slice(piece);
    }
    if packet.first()? >> 4 == 4 {
        let total = u16::try_from(packet.len()).ok()?;
        let mut ip = Ipv4Packet::new_unchecked(&mut packet);
        ip.set_total_len(total);
        ip.clear_flags();
        ip.set_frag_offset(0);
        if let Some(codepoint) = ecn {
            ip.set_ecn(codepoint);
        }
        ip.fill_checksum();
    } else {
        let len = u16::try_from(packet.len().checked_sub(IPV6_LEN)?).ok()?;
        let mut ip = Ipv6Packet::new_unchecked(&mut packet);
        ip.set_payload_len(len);
        if let Some(codepoint) = ecn {
            ip.set_traffic_class(ip.traffic_class() & !3 | codepoint);
        }
    }
    packet::wrap(&head.outer, &packet)
}
