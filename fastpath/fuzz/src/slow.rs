//! The slow path's machines, each with one packet after the other.
//!
//! What holds of each: a punt ends exactly once, at once or later, and what is injected is a whole
//! frame or packet.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use margay_model::LocalNode;
use margay_model::flow::FlowTuple;
use margay_slowpath::dns::names::{Limits, Names};
use margay_slowpath::{Action, Config, Ingress, Injection, Past, Punt, Request, SlowPath};

/// Bytes that say what one fragment is.
pub const PIECE: usize = 8;

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// The machines, and how many punts they were given that have not ended.
struct Bench {
    machines: SlowPath,
    open: usize,
    now: u64,
}

// === impl Bench ===

impl Bench {
    fn new() -> Self {
        let node = LocalNode {
            v4: Some((Ipv4Addr::new(192, 0, 2, 1), 24)),
            v6: "2001:db8:1::1".parse().ok().map(|addr| (addr, 64)),
            ..LocalNode::default()
        };
        let config = Config { node: Arc::new(node), ..Config::default() };
        Self { machines: SlowPath::new(config), open: 0, now: 1_000 }
    }

    fn punt(
        &mut self,
        request: Request,
        frame: Vec<u8>,
        flows: &dyn Fn(&FlowTuple) -> Option<FlowTuple>,
    ) -> Vec<Action> {
        let punt = Punt {
            ingress: Ingress::Port(2),
            past: Past::default(),
            frame,
            ip_start: ETHERNET,
            request,
        };
        self.open += 1;
        let actions = self.machines.handle(self.now, punt, flows);
        self.account(&actions);
        actions
    }

    fn account(&mut self, actions: &[Action]) {
        let ends = |action: &&Action| matches!(action, Action::Consumed(_) | Action::Dropped(..));
        self.open = self.open.checked_sub(actions.iter().filter(ends).count()).expect("one end");
        assert_eq!(self.open, self.machines.waiting(), "punts that have not ended wait");
    }

    fn wait(&mut self, millis: u64) -> Vec<Action> {
        self.now += millis;
        let actions = self.machines.tick(self.now);
        self.account(&actions);
        actions
    }
}

fn nobody(_: &FlowTuple) -> Option<FlowTuple> {
    None
}

/// A frame as it is, for both machines that answer a pod's questions about its link.
pub fn arp_nd(frame: &[u8]) {
    for request in [Request::Arp, Request::Ndisc] {
        let mut bench = Bench::new();
        for action in bench.punt(request, frame.to_vec(), &nobody) {
            if let Action::Inject(_, Injection::Send { frame, .. }) = action {
                let read = etherparse::PacketHeaders::from_ethernet_slice(&frame);
                assert!(read.is_ok(), "an answer that nobody reads: {frame:02x?}");
            }
        }
    }
}

/// Pieces of datagrams. Each byte of a datagram says where it belongs, so that what is put together
/// wrongly is seen.
pub fn fragments(program: &[u8]) {
    let mut bench = Bench::new();
    for piece in program.chunks_exact(PIECE).take(256) {
        let &[datagram, offset_hi, offset_lo, len_hi, len_lo, flags, wait, from] = piece else {
            continue;
        };
        let offset = u16::from_be_bytes([offset_hi & 0x1f, offset_lo]);
        let len = u16::from_be_bytes([len_hi & 7, len_lo]);
        let payload: Vec<u8> = (0..len)
            .map(|at| (usize::from(offset) * 8 + usize::from(at)).wrapping_mul(31) as u8)
            .collect();
        let frame = if from & 1 == 0 {
            four(datagram, offset, flags, from, &payload)
        } else {
            six(datagram, offset, flags, &payload)
        };
        let mut actions = bench.punt(Request::Reassemble, frame, &nobody);
        if wait & 7 == 7 {
            actions.extend(bench.wait(u64::from(wait) * 200));
        }
        for action in actions {
            if let Action::Inject(
                _,
                Injection::Again { frame, past: Past { reassembled: true, .. }, .. },
            ) = action
            {
                whole(&frame);
            }
        }
    }
    bench.wait(60_000);
    assert_eq!(bench.open, 0, "nothing waits for ever");
}

/// The datagram holds exactly its own bytes, and its headers say so.
fn whole(frame: &[u8]) {
    let ip = &frame[ETHERNET..];
    let (header, said) = match ip[0] >> 4 {
        4 => (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]]))),
        _ => (40, 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))),
    };
    assert_eq!(said, ip.len(), "length of a datagram");
    if ip[0] >> 4 == 4 {
        assert_eq!(u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff, 0, "still a fragment");
        assert!(margay_wire::ipv4::checksum_ok(&ip[..header]), "checksum of a datagram");
    }
    for (at, byte) in ip[header..].iter().enumerate() {
        assert_eq!(*byte, at.wrapping_mul(31) as u8, "byte {at} of a datagram");
    }
}

fn four(id: u8, offset: u16, flags: u8, from: u8, payload: &[u8]) -> Vec<u8> {
    let options = usize::from(flags >> 4 & 3);
    let total = (20 + options * 4 + payload.len()) as u16;
    let mut ip = vec![0x45 + options as u8, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, id & 3]);
    ip.extend((offset | u16::from(flags & 1) << 13).to_be_bytes());
    ip.extend([64, 17, 0, 0, 10, 65, 0, 2 + (from >> 1 & 1), 10, 65, 0, 9]);
    ip.resize(20 + options * 4, 1);
    let sum = !crate::path::sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[2; 12][..], &[8, 0], &ip, payload].concat()
}

fn six(id: u8, offset: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(((8 + payload.len()) as u16).to_be_bytes());
    ip.extend([44, 64]);
    ip.extend([[0xfd; 16], [0xfe; 16]].concat());
    ip.extend([17, 0]);
    ip.extend((offset << 3 | u16::from(flags & 1)).to_be_bytes());
    ip.extend([0, 0, 0, id & 3]);
    [&[2; 12][..], &[0x86, 0xdd], &ip, payload].concat()
}

/// An IP packet that was taken for an ICMP error. What it quotes belongs to a connection that is
/// translated, to one that is not, or to none, or about a tunnel's, as the first byte says.
pub fn icmp_errors(bytes: &[u8]) {
    let Some((how, packet)) = bytes.split_first() else { return };
    let other: IpAddr = Ipv4Addr::new(10, 96, 0, 10).into();
    let flows = |tuple: &FlowTuple| match how & 3 {
        0 => None,
        1 => Some(*tuple),
        _ if tuple.src.is_ipv4() => Some(FlowTuple { dst: other, dst_port: 80, ..*tuple }),
        _ => Some(FlowTuple { src_port: 7, ..*tuple }),
    };
    let frame = [&[2; 12][..], &[8, 0], packet].concat();
    let mut bench = Bench::new();
    for action in bench.punt(Request::IcmpError { tunnel: how & 4 == 0 }, frame, &flows) {
        if let Action::Inject(_, Injection::Own { packet }) = action {
            crate::support::sums_are_right(&packet);
        }
    }
}

/// A conversation with a name server: messages, each behind its length, to and fro. The first byte
/// says how it is held; what is learned is remembered and forgotten as the daemon does.
pub fn dns(bytes: &[u8]) {
    let Some((how, mut rest)) = bytes.split_first() else { return };
    let (over_tcp, held) = (how & 1 == 1, how & 2 == 2);
    let client: IpAddr = Ipv4Addr::new(10, 65, 0, 2).into();
    let server: IpAddr = Ipv4Addr::new(10, 96, 0, 10).into();
    let protocol = if over_tcp { 6 } else { 17 };
    let conversation =
        FlowTuple { src: client, dst: server, protocol, src_port: 4000, dst_port: 53 };
    let mut names = Names::new(Limits::default());
    let patterns = ["*.example", "example"].map(|text| text.parse().expect("a pattern"));
    names.set_patterns(0, &"names".into(), &patterns.into());
    let mut bench = Bench::new();
    let mut seq = 1u32;
    while let [head, len, tail @ ..] = rest {
        let (message, after) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = after;
        let from_client = head & 1 == 0;
        let ends = if from_client {
            ([10, 65, 0, 2], [10, 96, 0, 10])
        } else {
            ([10, 96, 0, 10], [10, 65, 0, 2])
        };
        let ports = if from_client { (4000, 53) } else { (53, 4000) };
        let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(ends.0, ends.1, 64);
        let mut frame = Vec::new();
        let written = if over_tcp {
            let number = seq.wrapping_add(u32::from(head >> 1 & 3).wrapping_mul(3));
            seq = seq.wrapping_add(message.len() as u32);
            builder.tcp(ports.0, ports.1, number, 512).ack(1).write(&mut frame, message)
        } else {
            builder.udp(ports.0, ports.1).write(&mut frame, message)
        };
        written.expect("written to memory");
        let request = Request::Dns { conversation, from_client };
        for action in bench.punt(request, frame, &nobody) {
            let Action::Learn { ticket, facts } = action else { continue };
            names.learn(bench.now, &facts);
            if !held {
                let actions = bench.machines.learned(ticket);
                bench.account(&actions);
            }
        }
    }
    bench.wait(60_000);
    assert_eq!(bench.open, 0, "no answer is held for ever");
    names.expire(bench.now + 1_000_000);
    let lapsed = names.lapsed();
    names.let_go(bench.now + 1_000_000, &lapsed);
}
