//! From records to steps: what a program's bytes mean.

use std::net::IpAddr;

use etherparse::IpNumber;
use margay_engine::PortId;

use super::scene::{V4, V6};
use super::seen::Seen;
use crate::support::{
    A, B, Body, FAR_VTEP_MAC, HOST, Ip, N, VTEP_MAC, WIRE, frame_from, ip, packet,
};

/// Bytes of one step.
pub const RECORD: usize = 16;

/// Pieces of one datagram; the smallest do not make one whole.
const PIECES: usize = 24;

/// Steps of one program; more records are not read.
const STEPS: usize = 64;

const PORTS: [u16; 12] = [0, 53, 80, 4000, 4001, 4789, 8080, 8081, 30_080, 61_000, 61_001, 65_535];
const FROM: [PortId; 5] = [WIRE, A, B, N, HOST];
/// Payloads, in bytes: the longest that leave whole, in tunnels or without, and beside them.
const SIZES: [usize; 12] = [0, 1, 3, 8, 40, 100, 600, 1402, 1422, 1452, 1472, 1480];
const WAITS: [u32; 8] = [1, 20, 999, 10_000, 31_000, 90_000, 3_600_001, 500_000_000];

/// One thing that happens.
#[derive(Debug)]
pub(super) enum Step {
    /// Frames arrive, in the same batch with those before unless it is `due`.
    Frames { frames: Vec<Arrival>, due: bool },
    /// Milliseconds pass.
    Wait(u32),
    /// The control plane's state is another.
    Edit(usize),
    /// Next hops are found, or are not.
    Resolve(bool),
    /// A pod is gone: its connections end.
    Forget(IpAddr),
}

/// A frame from somewhere.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) from: PortId,
    pub(super) frame: Vec<u8>,
    /// Whether it is as it should be.
    pub(super) clean: bool,
}

/// The steps of a program, one after the other.
pub(super) struct Steps<'b> {
    records: std::iter::Take<std::slice::ChunksExact<'b, u8>>,
    sent: Vec<Arrival>,
}

/// One record.
#[derive(Clone, Copy)]
struct Record<'b>(&'b [u8; RECORD]);

// === impl Steps ===

impl<'b> Steps<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { records: bytes.chunks_exact(RECORD).take(STEPS), sent: Vec::new() }
    }

    /// The next step, where `left` has left the node so far.
    pub(super) fn next(&mut self, left: &[(PortId, Vec<u8>)]) -> Option<Step> {
        let record = Record(self.records.next()?.first_chunk()?);
        let nth = usize::from(record.0[2]);
        let earlier = left.get(left.len().wrapping_sub(1 + nth % left.len().max(1)));
        let arrivals = match record.0[0] % 16 {
            0..=5 => record.frame(record.from(), &record.packet()),
            6..=8 => match earlier.and_then(|(by, frame)| record.answer(*by, frame)) {
                Some((from, answer)) => record.frame(from, &answer),
                None => record.frame(record.from(), &record.packet()),
            },
            9 => match earlier.and_then(|(by, frame)| record.error(*by, frame)) {
                Some((from, error)) => record.frame(from, &error),
                None => record.frame(record.from(), &record.packet()),
            },
            10 | 11 => record.pieces(),
            12 => {
                match self.sent.get(self.sent.len().wrapping_sub(1 + nth % self.sent.len().max(1)))
                {
                    Some(again) => record.harmed(again.clone()),
                    None => Vec::new(),
                }
            }
            13 => return Some(Step::Wait(WAITS[usize::from(record.0[1] % 8)])),
            14 => return Some(Step::Edit(record.0[1].into())),
            _ => {
                return Some(match record.0[1] % 3 {
                    0 => Step::Resolve(true),
                    1 => Step::Resolve(false),
                    _ => Step::Forget(ip(V4[usize::from(record.0[2] % 3)])),
                });
            }
        };
        self.sent.extend(arrivals.iter().cloned());
        Some(Step::Frames { frames: arrivals, due: record.0[15] & 1 == 0 })
    }
}

// === impl Record ===

impl Record<'_> {
    fn from(self) -> PortId {
        FROM[usize::from(self.0[1] % 5)]
    }

    fn is_v4(self) -> bool {
        self.0[9] & 0x80 == 0
    }

    fn addr(self, number: u8) -> IpAddr {
        let number = usize::from(number % 20);
        ip(if self.is_v4() { V4[number] } else { V6[number] })
    }

    fn ports(self) -> (u16, u16) {
        let port = |number: u8| match PORTS.get(usize::from(number & 0x3f)) {
            Some(port) => *port,
            None => 4002 + u16::from(number),
        };
        (port(self.0[5]), port(self.0[6]))
    }

    fn payload(self) -> Vec<u8> {
        let len = SIZES[usize::from(self.0[8] & 0x0f) % SIZES.len()];
        (0..len).map(|at| (at as u8).wrapping_add(self.0[8])).collect()
    }

    /// A packet as it should be. A pod mostly sends from its own address.
    fn packet(self) -> Ip {
        let own = match self.from() {
            A => Some(0),
            B => Some(1),
            N => Some(2),
            HOST => Some(12),
            _ => None,
        };
        let src = own.filter(|_| self.0[3] & 0x80 == 0).unwrap_or(self.0[3] & 0x7f);
        self.dressed(packet(self.addr(src), self.addr(self.0[2]), self.body()))
    }

    fn dressed(self, packet: Ip) -> Ip {
        let look = self.0[9];
        let ttl = match look & 7 {
            0 => 1,
            1 => 2,
            2 => 255,
            _ => 64,
        };
        let options = if look & 0x60 == 0x60 && packet.src.is_ipv4() { 4 } else { 0 };
        Ip {
            ttl,
            dont_fragment: look & 8 != 0,
            class: self.0[10],
            options: vec![1; options],
            ..packet
        }
    }

    fn body(self) -> Body {
        let (ports, payload) = (self.ports(), self.payload());
        let [hi, lo] = ports.0.to_be_bytes();
        let seq = u32::from(self.0[7] >> 6) * 1000;
        match self.0[4] % 8 {
            0..=2 => self.tcp(ports, seq, payload),
            3 | 4 => Body::Udp { ports, payload, checksum: !self.is_v4() || self.0[7] & 1 == 0 },
            5 => Body::Sctp { ports, payload },
            6 => {
                let kinds = if self.is_v4() { [8, 8, 13, 0] } else { [128, 128, 139, 129] };
                let kind = kinds[usize::from(self.0[7] & 3)];
                Body::Icmp { kind, code: 0, rest: [hi, lo, 0, 1], payload }
            }
            _ => Body::Raw([47, 50, 2, 253][usize::from(self.0[7] & 3)], payload),
        }
    }

    fn tcp(self, ports: (u16, u16), seq: u32, payload: Vec<u8>) -> Body {
        let ack = u32::from(self.0[5] >> 6) * 1000;
        Body::Tcp { ports, flags: self.0[7] & 0x3f, seq, ack, window: 512, payload }
    }

    /// What is said in return to what left by `by`: as its receiver would, or a little otherwise.
    fn answer(self, by: PortId, frame: &[u8]) -> Option<(PortId, Ip)> {
        let seen = Seen::of_frame(frame)?;
        let talk = seen.talk()?.reversed();
        let (ports, payload) = ((talk.src.1, talk.dst.1), self.payload());
        let body = match talk.protocol {
            6 => self.tcp(ports, u32::from(self.0[4]), payload),
            17 => Body::Udp { ports, payload, checksum: true },
            132 => Body::Sctp { ports, payload },
            1 | 58 => {
                let rest = *seen.body.get(4..)?.first_chunk()?;
                let kind = if talk.protocol == 1 { 0 } else { 129 };
                Body::Icmp { kind, code: 0, rest, payload }
            }
            // What is in a tunnel is a packet, not a payload.
            4 => return None,
            other => Body::Raw(other, payload),
        };
        Some((by, self.dressed(packet(talk.src.0, talk.dst.0, body))))
    }

    /// An ICMP error about what left by `by`, of its receiver or of a router beyond.
    fn error(self, by: PortId, frame: &[u8]) -> Option<(PortId, Ip)> {
        let seen = Seen::of_frame(frame)?;
        // A tunnel's packet is complained of as a whole where the record says so.
        let outer = Seen::of_packet(frame.get(14..)?)?;
        let about = if self.0[5] & 1 == 0 { seen } else { outer };
        let kinds: [(u8, u8); 4] = match about.src {
            IpAddr::V4(_) => [(3, 3), (3, 4), (11, 0), (5, 1)],
            IpAddr::V6(_) => [(1, 4), (2, 0), (3, 0), (4, 1)],
        };
        let (kind, code) = kinds[usize::from(self.0[7] & 3)];
        let mtu = [1500u16, 1280, 576, 0][usize::from(self.0[7] >> 2 & 3)].to_be_bytes();
        let len = [28, 48, 128, 548][usize::from(self.0[8] & 3)].min(about.bytes.len());
        let whose = match self.0[3] % 3 {
            0 => about.dst,
            1 => ip(if about.src.is_ipv4() { "192.0.2.2" } else { "2001:db8:1::2" }),
            _ => ip(if about.src.is_ipv4() { "198.51.100.2" } else { "2001:db8:2::2" }),
        };
        let rest = [0, 0, mtu[0], mtu[1]];
        let body = Body::Icmp { kind, code, rest, payload: about.bytes[..len].to_vec() };
        Some((by, self.dressed(packet(whose, about.src, body))))
    }

    /// A datagram in pieces, in some order.
    fn pieces(self) -> Vec<Arrival> {
        let (from, mut whole) = (self.from(), self.packet());
        whole.options.clear();
        whole.dont_fragment = false;
        let payload = (0..700 + usize::from(self.0[8]) * 8).map(|at| at as u8).collect();
        // Of two datagrams with one identification the pieces may be mixed up (RFC 4963).
        whole.identification =
            self.0[..11].iter().fold(7, |id, byte| id.rotate_left(3) ^ u16::from(*byte));
        let (id, bytes) = (whole.identification, whole.body_of(payload).bytes());
        let how = self.0[13];
        let mut pieces =
            if self.is_v4() { cut_four(&bytes, id, how) } else { cut_six(&bytes, id, how) };
        pieces.truncate(PIECES);
        match self.0[14] & 7 {
            0 => pieces.reverse(),
            1 => pieces.rotate_left(1),
            2 => pieces.truncate(1),
            3 => pieces.extend_from_within(..1),
            4 => drop(pieces.remove(0)),
            _ => {}
        }
        let behind =
            frame_from(from, &packet(ip("10.0.0.1"), ip("10.0.0.2"), Body::Raw(2, vec![])));
        let ethertype: [u8; 2] = if self.is_v4() { [8, 0] } else { [0x86, 0xdd] };
        let frame = |piece: Vec<u8>| [&behind[..12], &ethertype, &piece].concat();
        let arrivals =
            pieces.into_iter().map(|piece| Arrival { from, frame: frame(piece), clean: true });
        arrivals.flat_map(|arrival| self.harmed(arrival)).collect()
    }

    /// The frame of a packet, in a tunnel where the record says so, and harmed where it says so.
    fn frame(self, from: PortId, inner: &Ip) -> Vec<Arrival> {
        let packet = if from == WIRE { self.tunneled(inner) } else { inner.clone() };
        let mut frame = frame_from(from, &packet);
        let mut clean = true;
        if self.0[11] & 0x0f == 0x0e {
            // Longer than the wire takes is nothing that arrives.
            frame.truncate(1514);
            clean = false;
        }
        self.harmed(Arrival { from, frame, clean })
    }

    fn tunneled(self, inner: &Ip) -> Ip {
        let four = (ip("198.51.100.2"), ip("192.0.2.1"));
        let six = (ip("2001:db8:2::2"), ip("2001:db8:1::1"));
        let framed = || inner.frame(VTEP_MAC, FAR_VTEP_MAC);
        let payload = || [&[8, 0, 0, 0, 0, 0x10, 0, 0][..], &framed()].concat();
        let vxlan = |checksum| Body::Udp { ports: (50_000, 4789), payload: payload(), checksum };
        let outer = match self.0[12] & 7 {
            1 if inner.src.is_ipv4() => packet(four.0, four.1, Body::Raw(4, inner.bytes())),
            2 => packet(four.0, four.1, vxlan(false)),
            3 => packet(six.0, six.1, vxlan(true)),
            4 => packet(ip("192.0.2.77"), four.1, vxlan(true)),
            _ => return inner.clone(),
        };
        outer.class(self.0[14])
    }

    /// The arrival as it is, or with up to three bytes of its headers changed, cut or padded.
    fn harmed(self, mut arrival: Arrival) -> Vec<Arrival> {
        let harms = self.0[11] >> 6;
        let frame = &mut arrival.frame;
        let port_of: Vec<u8> = frame.iter().copied().take(6).collect();
        let mut at = usize::from(u16::from_le_bytes([self.0[12] >> 3, self.0[13]]));
        for harm in 0..harms {
            if frame.is_empty() {
                break;
            }
            let headers = frame.len().min(130);
            match self.0[11] >> 4 & 3 {
                0 => frame[at % headers] = self.0[14],
                1 => frame[at % headers] ^= 1 << (self.0[14] & 7),
                2 => frame.truncate(at % frame.len()),
                _ => frame.resize(frame.len() + at % 64, 0xee),
            }
            arrival.clean = false;
            at = at.wrapping_mul(7).wrapping_add(usize::from(harm) + 1);
        }
        // Which port a frame came from is written by us, not by who sends it.
        if arrival.from != WIRE {
            let len = port_of.len().min(frame.len());
            frame[..len].copy_from_slice(&port_of[..len]);
        }
        if harms > 0 && self.0[11] & 1 == 0 {
            mend(frame);
        }
        vec![arrival]
    }
}

/// Mends the checksum of the outermost IPv4 header, so that harm gets behind it.
fn mend(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let end = (14 + usize::from(frame[14] & 15) * 4).clamp(34, frame.len());
    frame[24..26].fill(0);
    let sum = !super::sum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Bytes of one piece.
fn piece_len(how: u8) -> usize {
    [8, 64, 512, 1024, 1480][usize::from(how) % 5].max(8)
}

fn cut_four(packet: &[u8], id: u16, how: u8) -> Vec<Vec<u8>> {
    let (header, body) = packet.split_at(20);
    let count = body.len().div_ceil(piece_len(how));
    let piece = |(number, part): (usize, &[u8])| {
        let mut out = [header, part].concat();
        let more = u16::from(number + 1 < count) << 13;
        let place = (number * piece_len(how) / 8) as u16 | more;
        out[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
        out[4..6].copy_from_slice(&id.to_be_bytes());
        out[6..8].copy_from_slice(&place.to_be_bytes());
        out[10..12].fill(0);
        let sum = !super::sum(&out[..20]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out
    };
    body.chunks(piece_len(how)).enumerate().map(piece).collect()
}

fn cut_six(packet: &[u8], id: u16, how: u8) -> Vec<Vec<u8>> {
    // The fragment header takes eight bytes of the link's.
    let len = piece_len(how).min(1440);
    let (header, body) = packet.split_at(40);
    let count = body.len().div_ceil(len);
    let piece = |(number, part): (usize, &[u8])| {
        let place = (number * len) as u16 | u16::from(number + 1 < count);
        let [hi, lo] = place.to_be_bytes();
        let [id_hi, id_lo] = id.to_be_bytes();
        let extension = [header[6], 0, hi, lo, 0, 0, id_hi, id_lo];
        let mut out = [header, &extension, part].concat();
        out[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
        out[6] = IpNumber::IPV6_FRAGMENTATION_HEADER.0;
        out
    };
    body.chunks(len).enumerate().map(piece).collect()
}
