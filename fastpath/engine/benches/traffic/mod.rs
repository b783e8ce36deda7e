//! Frames of many connections, each written from one template when its turn comes; and the node that
//! they go through.

#![allow(dead_code, reason = "each bench uses a part")]

use std::iter::repeat_n;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use margay_engine::{BATCH, Batch, Fate, Frame, Ingress, PortId};
use margay_model::{DefaultAction, Encap, Pool, Route, RouteTarget, State, Update};
use margay_tables::flow::{FlowConfig, FlowTable, Region};
use margay_wire::ipv4::Ipv4;
use margay_wire::{at_mut, ipv4};

use crate::support::*;

/// Length of a chunk of packet memory: room before, and a frame.
pub(crate) const CHUNK: usize = 2048;

/// Connections to one target: one for each source port.
const A_TARGET: u32 = 1 << 16;

/// What is sent of some connections: a segment or datagram of each, then the next of each.
#[derive(Clone)]
pub(crate) struct Traffic {
    frame: Vec<u8>,
    ingress: Ingress,
    /// Offset of the transport header in the frame, and how many bytes are behind the ports.
    transport: usize,
    payload: usize,
    is_tcp: bool,
    /// Who is asked, in turns.
    targets: Vec<(IpAddr, u16)>,
    /// A power of two.
    flows: u32,
    sent: u64,
}

/// What is done with a packet: a pod's to another, translated, into a tunnel, or out of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Forward,
    Forward6,
    Udp,
    Ipip,
    Vxlan,
    Service,
    ServiceVxlan,
    OutOfIpip,
    OutOfVxlan,
}

// === impl Case ===

impl Case {
    pub(crate) const ALL: [Self; 9] = [
        Self::Forward,
        Self::Forward6,
        Self::Udp,
        Self::Ipip,
        Self::Vxlan,
        Self::Service,
        Self::ServiceVxlan,
        Self::OutOfIpip,
        Self::OutOfVxlan,
    ];

    /// What it is called in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Forward6 => "forward IPv6",
            Self::Udp => "forward UDP",
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::Service => "service",
            Self::ServiceVxlan => "service+vxlan",
            Self::OutOfIpip => "out of ipip",
            Self::OutOfVxlan => "out of vxlan",
        }
    }

    /// Where it is sent to, of as many targets as `flows` connections need.
    pub(crate) fn targets(self, flows: u32) -> Vec<(IpAddr, u16)> {
        let count = flows.div_ceil(A_TARGET) as u16;
        let ports = |addr: &str| (0..count).map(|n| (ip(addr), 80 + n)).collect();
        let services = |kind| (0..count).map(|n| (cluster_ip(kind, n), 80)).collect();
        match self {
            Self::Forward6 => ports("fd00:65::3"),
            Self::Ipip => ports("10.65.2.5"),
            Self::Vxlan => ports("10.65.3.5"),
            Self::Service => services(1),
            Self::ServiceVxlan => services(2),
            _ => ports("10.65.0.3"),
        }
    }

    /// Frames of `payload` bytes behind the transport header.
    pub(crate) fn traffic(self, flows: u32, payload: usize) -> Traffic {
        let src = match self {
            Self::Forward6 => "[fd00:65::2]:1",
            Self::OutOfIpip => "10.65.2.5:1",
            Self::OutOfVxlan => "10.65.3.5:1",
            _ => "10.65.0.2:1",
        };
        let dst = if self == Self::Forward6 { "[fd00:65::3]:80" } else { "10.65.0.3:80" };
        let packet = if self == Self::Udp { udp(src, dst) } else { tcp(src, dst, ACK) };
        let packet = packet.numbered(1_000, 0).sized(payload);
        let targets = self.targets(flows);
        match self {
            Self::OutOfIpip => Traffic::new(WIRE, &packet, Some(0), targets, flows),
            Self::OutOfVxlan => Traffic::new(WIRE, &packet, Some(1), targets, flows),
            _ => Traffic::new(A, &packet, None, targets, flows),
        }
    }

    /// The same in frames of 64 bytes, the Ethernet checksum included; of IPv6, and around tunnels, more.
    pub(crate) fn small(self, flows: u32) -> Traffic {
        self.traffic(flows, if self == Self::Udp { 18 } else { 6 })
    }

    /// A table for as many connections, not quite full of them.
    pub(crate) fn table(self, flows: u32) -> FlowConfig {
        let (enough, few) = (flows + flows / 8 + 1_024, 1_024);
        let (v4, v6) = if self == Self::Forward6 { (few, enough) } else { (enough, few) };
        FlowConfig { v4, v6, participants: 8, denial_share: 8 }
    }
}

// === impl Traffic ===

impl Traffic {
    /// Packets like this one from a port, in the tunnel of that number.
    pub(crate) fn new(
        from: PortId,
        packet: &Ip,
        tunnel: Option<u8>,
        targets: Vec<(IpAddr, u16)>,
        flows: u32,
    ) -> Self {
        assert!(flows.is_power_of_two() && !targets.is_empty());
        let frame = match tunnel {
            Some(how) => frame_from(from, &tunneled(packet, how, 0)),
            None => frame_from(from, packet),
        };
        let is_tcp = packet.protocol() == 6;
        let header = if packet.src.is_ipv4() { 20 } else { 40 };
        let behind = packet.bytes().len() - header;
        Self {
            ingress: ingress(from),
            transport: frame.len() - behind,
            payload: behind - if is_tcp { 20 } else { 8 },
            is_tcp,
            frame,
            targets,
            flows,
            sent: 0,
        }
    }

    /// The same to others.
    pub(crate) fn to(self, targets: Vec<(IpAddr, u16)>) -> Self {
        Self { targets, ..self }
    }

    /// The number of batches in which every connection has one packet.
    pub(crate) fn round(&self) -> u64 {
        u64::from(self.flows).div_ceil(BATCH as u64)
    }

    /// Begins again.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Writes the frames of the next packets, each into its chunk of `memory`.
    pub(crate) fn fill(&mut self, memory: &mut [[u8; CHUNK]]) {
        memory.iter_mut().for_each(|chunk| self.write(chunk));
    }

    /// The frames that have been written there.
    pub(crate) fn batch<'m>(&self, memory: &'m mut [[u8; CHUNK]]) -> Batch<'m> {
        let mut batch = Batch::default();
        let frame = |chunk: &'m mut _| Frame::new(chunk, HEADROOM, self.frame.len(), self.ingress);
        batch.frames.extend(memory.iter_mut().map(|chunk| frame(chunk)));
        batch
    }

    /// Checksums of the transport are left as they are: the path mends them by the difference.
    fn write(&mut self, chunk: &mut [u8; CHUNK]) {
        let flows = u64::from(self.flows);
        let (turn, nth) = ((self.sent / flows) as u32, (self.sent % flows) as u32);
        self.sent += 1;
        // The order of later turns is not that in which the records were made.
        let flow = if turn == 0 { nth } else { scattered(nth, self.flows) };
        let targets = self.targets.len() as u32;
        let (addr, dst_port) = self.targets[(flow % targets) as usize];
        let src_port = (flow / targets) as u16;
        let frame = &mut chunk[HEADROOM..][..self.frame.len()];
        frame.copy_from_slice(&self.frame);
        match addr {
            IpAddr::V4(dst) => {
                let header = at_mut::<{ ipv4::LEN }>(frame, self.transport - ipv4::LEN);
                let mut header = Ipv4(header.expect("a header"));
                let src = header.src();
                header.set_addresses(src, dst.octets());
            }
            IpAddr::V6(dst) => {
                frame[self.transport - 16..self.transport].copy_from_slice(&dst.octets());
            }
        }
        let transport = &mut frame[self.transport..];
        transport[..2].copy_from_slice(&src_port.to_be_bytes());
        transport[2..4].copy_from_slice(&dst_port.to_be_bytes());
        if self.is_tcp {
            let seq = 1_000 + turn.wrapping_mul(self.payload as u32);
            transport[4..8].copy_from_slice(&seq.to_be_bytes());
        }
    }
}

/// The nth of so many numbers, a power of two, in an order that neither a cache line nor a prefetcher
/// helps.
fn scattered(n: u32, of: u32) -> u32 {
    let (mask, half) = (of - 1, of.trailing_zeros().div_ceil(2));
    let n = n.wrapping_mul(0x9e37_79b1) & mask;
    let n = (n ^ n >> half).wrapping_mul(0x85eb_ca6b) & mask;
    n ^ n >> half
}

/// The address of the nth service of a kind.
fn cluster_ip(kind: u8, n: u16) -> IpAddr {
    IpAddr::from([10, 96, kind, n as u8])
}

/// A node with services here and far away, and a pod that one of two rules lets in.
pub(crate) fn busy(state: &mut State) {
    for n in 0..64 {
        // Backends of their own, or connections with one source port could not be told apart.
        for (kind, pods) in [(1, ["10.65.0.3", "10.65.0.4"]), (2, ["10.65.3.5", "10.65.3.6"])] {
            let backends = pods.map(|pod| at(pod, 8_080 + n));
            let frontend = format!("{}:80", cluster_ip(kind, n));
            let backends = backends.each_ref().map(String::as_str);
            serve(state, service(&format!("{kind}.{n}"), 6, &frontend, &backends));
        }
    }
    isolate(state, "b", Some(vec![allow_ports(17, 1, 2), allow()]), None);
}

/// Policies with one rule each, about ports that nobody uses, and a last one that allows.
pub(crate) fn policed(state: &mut State, count: u16) {
    let unused =
        |n| policy(state, &format!("p{n}"), vec![allow_ports(6, 20_000 + n, 20_000 + n)], vec![]);
    let mut keys: Vec<_> = (0..count).map(unused).collect();
    keys.push(policy(state, "last", vec![allow()], vec![]));
    let keys: Vec<_> = keys.iter().collect();
    police(state, "b", vec![tier("default", DefaultAction::Deny, &keys, &[])]);
}

/// Something in the nth address block of other nodes.
pub(crate) fn block(n: u32) -> (IpAddr, u16) {
    (IpAddr::from((0x0a80_0000 + (n << 6)).to_be_bytes()), 80)
}

/// So many address blocks of a node on the same wire.
pub(crate) fn routed(state: &mut State, count: u32) {
    let cidr = "10.128.0.0/9".parse().expect("a network");
    let (nat_outgoing, encap, encap_always) = (false, Encap::None, false);
    state.apply(Update::Pool(Pool { cidr, nat_outgoing, encap, encap_always }));
    for n in 0..count {
        let dst = ipnet::IpNet::new_assert(block(n).0, 26);
        let target = RouteTarget::Node { node: "near".into(), encap: Encap::None };
        state.apply(Update::Route(Route { dst, target }));
    }
}

/// The address and port of the nth service of many.
pub(crate) fn frontend(n: u32) -> (IpAddr, u16) {
    let [_, _, hi, lo] = n.to_be_bytes();
    (IpAddr::from([10, 96, hi, lo]), 8_000 + (n >> 16) as u16)
}

/// So many services, with two pods of this node behind each.
pub(crate) fn served(state: &mut State, count: u32) {
    for n in 0..count {
        let (addr, port) = frontend(n);
        // Backends of their own, or connections with one source port could not be told apart.
        let backends = ["10.65.0.3", "10.65.0.4"].map(|pod| at(pod, n as u16));
        let backends = backends.each_ref().map(String::as_str);
        serve(state, service(&format!("s{n}"), 6, &format!("{addr}:{port}"), &backends));
    }
}

/// Such a node with a table.
pub(crate) fn node(config: &FlowConfig) -> Node {
    let bytes = FlowTable::required_bytes(config).expect("sizes");
    let table = FlowTable::create(Region::heap(bytes), config, 0x5eed, 1).expect("room");
    let mut node = Node::with_table(table, base_state());
    node.change(busy);
    node
}

/// The memory of a batch.
pub(crate) fn memory() -> Vec<[u8; CHUNK]> {
    repeat_n([0; CHUNK], BATCH).collect()
}

/// Has 64 packets at a time run, in batches of `size`, of which only that counts: the time of the median 64,
/// since on a busy machine some are interrupted.
pub(crate) fn time(
    traffic: &mut Traffic,
    size: usize,
    count: u64,
    mut run: impl FnMut(&mut Batch<'_>),
) -> Duration {
    let mut memory = memory();
    let mut spent = Vec::with_capacity(count as usize);
    for _ in 0..count {
        traffic.fill(&mut memory);
        let mut batches: Vec<_> = memory.chunks_mut(size).map(|part| traffic.batch(part)).collect();
        let begin = Instant::now();
        batches.iter_mut().for_each(&mut run);
        spent.push(begin.elapsed());
        let fate = batches[0].fates[0];
        assert!(matches!(fate, Fate::Forward(_)), "{fate:?}");
    }
    median(&mut spent) * u32::try_from(count).expect("not that many")
}

/// The middle one.
pub(crate) fn median(spent: &mut [Duration]) -> Duration {
    let middle = spent.len() / 2;
    *spent.select_nth_unstable(middle).1
}

/// The same through a node, in full batches.
pub(crate) fn through(node: &mut Node, traffic: &mut Traffic, count: u64) -> Duration {
    let Node { engine, snapshot, now, .. } = node;
    time(traffic, BATCH, count, |batch| engine.run(snapshot, *now, batch))
}
