//! The node of the tests, and what leaves it.
//!
//! ```text
//!  pods a, b (trunk), n (native)      host 192.0.2.1, 2001:db8:1::1, tunnels 10.65.0.60/.61
//!  10.65.0.2 .3 .4, fd00:65::2 …   │
//!                                eth0 ── near 192.0.2.2: 10.65.1.0/26 routed
//!                                     ── gateway 192.0.2.254 ── far 198.51.100.2:
//!                                        10.65.2.0/26 by IPIP, 10.65.3.0/26 by VXLAN
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use margay_engine::snapshot::trunk_mac;
use margay_engine::snapshot::{DeviceId, KernelRoute, NextHop, POD_GATEWAY_MAC, PortInfo};
use margay_engine::{
    Assembler, Batch, Counters, Engine, Fate, Frame, Ingress, PortId, Punt, Snapshot, Underlay,
    Why, census,
};
use margay_model::node::TunnelAddress;
use margay_model::{
    DropReason, Encap, Endpoint, LocalNode, Mac, Policy, Pool, RemoteNode, Route, RouteTarget,
    State, Update,
};
use margay_tables::addr::Tuple;
use margay_tables::classifier::Standing;
use margay_tables::flow::{FlowConfig, FlowTable, FlowWorker, Journal, Region};

use super::packet::{Body, Ip, ip, packet};
use super::rules::{PROFILE, allow};
use super::verify::sums_are_right;

pub const HOST: PortId = PortId::HOST;
pub const WIRE: PortId = PortId(1);
pub const A: PortId = PortId(2);
pub const B: PortId = PortId(3);
/// The pod whose port has a socket of its own.
pub const N: PortId = PortId(4);

pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 254];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 100];
pub const VTEP_MAC: [u8; 6] = [0x66, 0, 0, 0, 0, 1];
pub const FAR_VTEP_MAC: [u8; 6] = [0x66, 0, 0, 0, 0, 3];

/// Room before a frame, as workers leave it.
pub const HEADROOM: usize = 256;

/// What one frame became.
#[derive(Debug)]
pub struct Out {
    pub fate: Fate,
    pub frame: Vec<u8>,
}

/// A node that single frames, or batches, are run through.
pub struct Node {
    pub state: State,
    pub underlay: Underlay,
    pub snapshot: Snapshot,
    pub table: &'static Arc<FlowTable>,
    pub engine: Engine<'static>,
    pub counters: Arc<Counters>,
    pub now: u32,
    assembler: Assembler,
}

/// The networks whose addresses live on this node.
pub fn local_nets() -> [IpNet; 2] {
    ["10.65.0.0/26", "fd00:65::/122"].map(|net| net.parse().unwrap())
}

pub fn pod_mac(port: PortId) -> [u8; 6] {
    [0x0a, 0, 0, 0, 0, port.0 as u8]
}

/// Index of a port's interface.
pub const fn ifindex(port: PortId) -> u32 {
    port.0 as u32 + 8
}

// === impl Out ===

impl Out {
    /// The frame that left by `port`; its checksums are right.
    #[track_caller]
    pub fn by(self, port: PortId) -> Vec<u8> {
        assert_eq!(self.fate, Fate::Forward(port));
        sums_are_right(&self.frame[14..]);
        self.frame
    }

    #[track_caller]
    pub fn dropped(self, reason: DropReason) {
        assert_eq!(self.fate, Fate::Drop(reason));
    }

    #[track_caller]
    pub fn punted(self) -> Why {
        match self.fate {
            Fate::Punt(punt) => punt.why,
            other => panic!("not punted: {other:?}"),
        }
    }
}

// === impl Node ===

impl Default for Node {
    fn default() -> Self {
        Self::with_capacity(512)
    }
}

impl Node {
    /// A node whose flow table holds as many connections of each family.
    pub fn with_capacity(connections: u32) -> Self {
        Self::build(connections, base_state())
    }

    /// A node whose hashes have another secret in them.
    pub fn with_secret(secret: u64) -> Self {
        Self::build_with(512, base_state(), secret)
    }

    /// A node with another state.
    pub fn build(connections: u32, state: State) -> Self {
        Self::build_with(connections, state, 0x5eed)
    }

    fn build_with(connections: u32, state: State, secret: u64) -> Self {
        let config =
            FlowConfig { v4: connections, v6: connections, participants: 4, denial_share: 8 };
        let bytes = FlowTable::required_bytes(&config).unwrap();
        let table = FlowTable::create(Region::heap(bytes), &config, secret, 1).unwrap();
        Self::with_table(table, state)
    }

    /// A node with another flow table and state.
    pub fn with_table(table: FlowTable, state: State) -> Self {
        let table = table.with_journal(Journal::new(256));
        // An engine borrows its table; a test process is short.
        let table: &'static Arc<FlowTable> = Box::leak(Box::new(Arc::new(table)));
        let counters = Arc::new(Counters::default());
        let engine = Engine::new(table, counters.clone()).unwrap();
        let underlay = underlay();
        let mut assembler = Assembler::new(0);
        for update in State::default().diff(&state) {
            assembler.note(&update);
        }
        assembler.set_ready();
        let snapshot = assembler.assemble(&state, &underlay);
        Self { state, underlay, snapshot, table, engine, counters, now: 1_000_000, assembler }
    }

    /// Changes the control plane's state; the next packet sees it.
    pub fn change(&mut self, edit: impl FnOnce(&mut State)) {
        let old = self.state.clone();
        edit(&mut self.state);
        for update in old.diff(&self.state) {
            self.assembler.note(&update);
        }
        self.snapshot = self.assembler.assemble(&self.state, &self.underlay);
        // As the daemon does when its workers have the snapshot.
        count_earlier(&self.snapshot, self.table);
        self.table.affinities().forget(&self.assembler.take_lost());
    }

    /// The node with another process, which has taken the table over and knows what it is told again.
    pub fn taken_over(self) -> Self {
        let Self { state, underlay, table, engine, counters, now, assembler, .. } = self;
        drop(engine);
        let engine = Engine::new(table, counters.clone()).unwrap();
        let mut assembler = Assembler::new(assembler.generation());
        for update in State::default().diff(&state) {
            assembler.note(&update);
        }
        assembler.set_ready();
        let snapshot = assembler.assemble(&state, &underlay);
        count_earlier(&snapshot, table);
        Self { state, underlay, snapshot, table, engine, counters, now, assembler }
    }

    /// Learns what is known of an address of a set's names; the next packet sees it.
    pub fn learn(&mut self, set: &str, addr: &str, standing: Standing) {
        self.assembler.note_learned(&set.into(), ip(addr).into(), standing);
        self.snapshot = self.assembler.refresh_names(&self.snapshot);
    }

    /// Runs a frame that the slow path has read.
    pub fn read(&mut self, from: PortId, packet: &Ip) -> Out {
        let (mut chunk, ingress) = (frame_from(from, packet), ingress(from));
        chunk.splice(0..0, [0xaa; HEADROOM]);
        let (start, len) = (HEADROOM, chunk.len() - HEADROOM);
        let mut frame =
            Frame { chunk: &mut chunk, start, len, ingress, reassembled: false, read: true };
        let fate = self.engine.run_again(&self.snapshot, self.now, &mut frame);
        Out { fate, frame: frame.bytes().to_vec() }
    }

    /// The conversation that a packet from a port belongs to.
    pub fn conversation(&mut self, from: PortId, packet: &Ip) -> Option<(Tuple, bool)> {
        let mut chunk = frame_from(from, packet);
        let (start, len, ingress) = (0, chunk.len(), ingress(from));
        let mut frame = Frame::new(&mut chunk, start, len, ingress);
        self.engine.conversation(&self.snapshot, &mut frame)
    }

    /// Changes what the kernel says; the next packet sees it.
    pub fn rewire(&mut self, edit: impl FnOnce(&mut Underlay)) {
        edit(&mut self.underlay);
        self.snapshot = self.assembler.assemble(&self.state, &self.underlay);
    }

    /// Sends a packet in from a port.
    #[track_caller]
    pub fn send(&mut self, from: PortId, packet: &Ip) -> Out {
        self.frame(from, frame_from(from, packet))
    }

    /// Sends a frame in from a port.
    #[track_caller]
    pub fn frame(&mut self, from: PortId, frame: Vec<u8>) -> Out {
        let (outs, _) = self.batch(vec![(ingress(from), frame)]);
        outs.into_iter().next().unwrap()
    }

    /// Runs a batch, and counts fates as a worker does. Every frame has one fate, and every frame
    /// is counted as received once.
    #[track_caller]
    pub fn batch(&mut self, frames: Vec<(Ingress, Vec<u8>)>) -> (Vec<Out>, u32) {
        let before = self.received();
        let lens: Vec<usize> = frames.iter().map(|(_, frame)| frame.len()).collect();
        let mut chunks: Vec<Vec<u8>> =
            frames.iter().map(|(_, frame)| [&[0xaa; HEADROOM][..], frame].concat()).collect();
        let mut batch = Batch::default();
        for ((chunk, len), (ingress, _)) in chunks.iter_mut().zip(&lens).zip(&frames) {
            let (start, len, ingress) = (HEADROOM, *len, *ingress);
            batch.frames.push(Frame::new(chunk, start, len, ingress));
        }
        self.engine.run(&self.snapshot, self.now, &mut batch);
        assert_eq!(batch.fates.len(), lens.len());
        let outs: Vec<Out> = (batch.fates.iter().zip(&batch.frames))
            .map(|(fate, frame)| Out { fate: *fate, frame: frame.bytes().to_vec() })
            .collect();
        for out in &outs {
            self.account(out);
        }
        let (frames, bytes) = self.received();
        assert_eq!(frames - before.0, lens.len() as u64, "frames received");
        assert_eq!(bytes - before.1, lens.iter().sum::<usize>() as u64, "bytes received");
        self.conserved();
        (outs, self.snapshot.generation)
    }

    /// Sends an IP packet of the slow path's in the node's name.
    pub fn own(&mut self, packet: &Ip) -> Out {
        let frame = packet.frame([0; 6], [0; 6]);
        self.again(Ingress::Own, frame, false)
    }

    /// Runs a frame of the slow path's.
    pub fn again(&mut self, ingress: Ingress, frame: Vec<u8>, reassembled: bool) -> Out {
        let mut chunk = [&[0xaa; HEADROOM][..], &frame].concat();
        let mut frame = Frame {
            chunk: &mut chunk,
            start: HEADROOM,
            len: frame.len(),
            ingress,
            reassembled,
            read: false,
        };
        let fate = self.engine.run_again(&self.snapshot, self.now, &mut frame);
        Out { fate, frame: frame.bytes().to_vec() }
    }

    /// The tuple of answers to a packet from a port.
    pub fn answer_to(&mut self, from: PortId, packet: &Ip) -> Option<Tuple> {
        let mut chunk = frame_from(from, packet);
        let (start, len, ingress) = (0, chunk.len(), Ingress::Port(from));
        let mut frame = Frame::new(&mut chunk, start, len, ingress);
        self.engine.answer_to(&self.snapshot, &mut frame)
    }

    /// Has the connection end that a packet from a port began.
    pub fn take_back(&mut self, from: PortId, packet: &Ip) {
        let mut chunk = frame_from(from, packet);
        let (start, len) = (0, chunk.len());
        let mut frame = Frame::new(&mut chunk, start, len, Ingress::Port(from));
        self.engine.take_back(&self.snapshot, &mut frame);
    }

    fn account(&self, out: &Out) {
        match out.fate {
            Fate::Forward(port) | Fate::Later(port, _) => {
                self.counters.sent(port, out.frame.len());
            }
            Fate::Drop(reason) => self.counters.dropped(reason),
            Fate::Punt(Punt { why, .. }) => self.counters.punted(why.reason()),
        }
    }

    fn ports(&self) -> impl Iterator<Item = PortId> {
        (0..64).map(PortId)
    }

    fn received(&self) -> (u64, u64) {
        self.ports().map(|p| self.counters.rx(p)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Received and injected frames are those sent, dropped and punted.
    #[track_caller]
    pub fn conserved(&self) {
        let sent: u64 = self.ports().map(|p| self.counters.tx(p).0).sum();
        let (drops, [punts, injected, _]) = self.counters.by_reason();
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        let ends = sent + sum(&drops) + sum(&punts);
        assert_eq!(self.received().0 + sum(&injected), ends, "frames are conserved");
    }

    /// Connections in the table.
    pub fn connections(&self) -> u64 {
        self.table.counts().connections
    }
}

fn count_earlier(snapshot: &Snapshot, table: &Arc<FlowTable>) {
    if census::is_due(snapshot) {
        census::take(snapshot, &mut FlowWorker::new(table.clone()).unwrap());
    }
}

/// The packet as it is, or in a tunnel to the node.
pub fn tunneled(inner: &Ip, how: u8, class: u8) -> Ip {
    let four = (ip("198.51.100.2"), ip("192.0.2.1"));
    let six = (ip("2001:db8:2::2"), ip("2001:db8:1::1"));
    let payload =
        || [&[8, 0, 0, 0, 0, 0x10, 0, 0][..], &inner.frame(VTEP_MAC, FAR_VTEP_MAC)].concat();
    let vxlan = |checksum| Body::Udp { ports: (50_000, 4789), payload: payload(), checksum };
    let outer = match how {
        0 if inner.src.is_ipv4() => packet(four.0, four.1, Body::Raw(4, inner.bytes())),
        1 => packet(four.0, four.1, vxlan(false)),
        2 => packet(six.0, six.1, vxlan(true)),
        _ => return inner.clone(),
    };
    outer.class(class)
}

/// How frames of a port reach the worker.
pub fn ingress(from: PortId) -> Ingress {
    match from {
        WIRE | N => Ingress::Port(from),
        _ => Ingress::Trunk,
    }
}

/// The frame in which a packet arrives from a port.
pub fn frame_from(from: PortId, packet: &Ip) -> Vec<u8> {
    match from {
        HOST => packet.frame(trunk_mac(0), trunk_mac(0)),
        WIRE => packet.frame(UPLINK_MAC, GATEWAY_MAC),
        N => packet.frame(POD_GATEWAY_MAC, pod_mac(N)),
        pod => packet.frame(trunk_mac(ifindex(pod)), pod_mac(pod)),
    }
}

/// The frame in which a packet leaves by a port; on the uplink the neighbour is named.
pub fn to_pod(port: PortId, packet: &Ip) -> Vec<u8> {
    let source = if port == N { POD_GATEWAY_MAC } else { trunk_mac(ifindex(port)) };
    packet.frame(pod_mac(port), source)
}

pub fn to_host(packet: &Ip) -> Vec<u8> {
    packet.frame(trunk_mac(0), trunk_mac(0))
}

pub fn to_wire(neighbour: [u8; 6], packet: &Ip) -> Vec<u8> {
    packet.frame(neighbour, UPLINK_MAC)
}

/// What the node's kernel says.
pub fn underlay() -> Underlay {
    let uplink = [port(WIRE, "eth0", UPLINK_MAC, DeviceId(1), true)];
    let pods =
        [(A, "calia", DeviceId::TRUNK), (B, "calib", DeviceId::TRUNK), (N, "calin", DeviceId(2))];
    let pods = pods.map(|(id, name, device)| port(id, name, [0xee; 6], device, false));
    let via = |gateway: Option<&str>| vec![NextHop { port: WIRE, gateway: gateway.map(ip) }];
    let route = |dst: &str, gateway: Option<&str>| KernelRoute {
        dst: dst.parse().unwrap(),
        hops: via(gateway),
    };
    let neighbours = [
        ("192.0.2.2", NEAR_MAC),
        ("192.0.2.100", CLIENT_MAC),
        ("192.0.2.254", GATEWAY_MAC),
        ("2001:db8:1::2", NEAR_MAC),
        ("2001:db8:1::fe", GATEWAY_MAC),
    ];
    Underlay {
        ports: uplink.into_iter().chain(pods).collect(),
        addresses: vec![ip("192.0.2.1"), ip("2001:db8:1::1"), ip("203.0.113.1")],
        broadcasts: vec![ip("192.0.2.255"), ip("192.0.2.0"), ip("2001:db8:1::")],
        routes: vec![
            route("192.0.2.0/24", None),
            route("0.0.0.0/0", Some("192.0.2.254")),
            route("2001:db8:1::/64", None),
            route("::/0", Some("2001:db8:1::fe")),
        ],
        neighbours: neighbours.map(|(a, mac)| ((WIRE, ip(a)), Mac(mac))).into_iter().collect(),
        trunk_mtu: 1500,
        path_mtus: Default::default(),
    }
}

fn port(id: PortId, name: &str, mac: [u8; 6], device: DeviceId, uplink: bool) -> PortInfo {
    let (name, mac) = (name.into(), Mac(mac));
    let addresses = if uplink { vec![ip("192.0.2.1"), ip("2001:db8:1::1")] } else { vec![] };
    PortInfo { id, name, ifindex: ifindex(id), mac, mtu: 1500, device, uplink, addresses }
}

/// What the control plane says.
pub fn base_state() -> State {
    let mut state = State::default();
    for update in base_updates() {
        state.apply(update);
    }
    let rules = vec![allow()];
    let profile = Policy { key: PROFILE.into(), ingress: rules.clone(), egress: rules };
    state.apply(Update::Policy(Arc::new(profile)));
    for (port, name) in [(A, "a"), (B, "b"), (N, "n")] {
        let (four, six) = (format!("10.65.0.{}", port.0), format!("fd00:65::{}", port.0));
        let endpoint = endpoint(name, &format!("cali{name}"), pod_mac(port), &[&four, &six]);
        state.apply(Update::Endpoint(Arc::new(endpoint)));
    }
    state
}

/// A pod's endpoint without policies.
pub fn endpoint(pod: &str, interface: &str, mac: [u8; 6], addresses: &[&str]) -> Endpoint {
    Endpoint {
        key: format!("default/{pod}/eth0").into(),
        interface: interface.into(),
        mac: Mac(mac),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        allowed_sources: Vec::new(),
        mtu: 1500,
        tiers: Arc::new([]),
        pending: None,
        profiles: Arc::new([PROFILE.into()]),
        priority: 0,
        limits: Default::default(),
    }
}

fn base_updates() -> Vec<Update> {
    let mut node = LocalNode {
        name: "here".into(),
        v4: Some(("192.0.2.1".parse().unwrap(), 24)),
        v6: Some(("2001:db8:1::1".parse().unwrap(), 64)),
        vtep_mac: Mac(VTEP_MAC),
        ..LocalNode::default()
    };
    for (encap, address) in [(Encap::Ipip, "10.65.0.60"), (Encap::Vxlan, "10.65.0.61")] {
        node.tunnel_addresses.push(TunnelAddress { encap, address: ip(address) });
    }
    node.settings.service_ranges =
        ["10.96.0.0/16", "fd96::/112"].map(|n| n.parse().unwrap()).into();
    let pool = |cidr: &str| Pool {
        cidr: cidr.parse().unwrap(),
        nat_outgoing: true,
        encap: Encap::None,
        encap_always: false,
    };
    let route = |dst: &str, target| Update::Route(Route { dst: dst.parse().unwrap(), target });
    let to = |node: &str, encap| RouteTarget::Node { node: node.into(), encap };
    vec![
        Update::Node(Arc::new(node)),
        remote("near", "192.0.2.2", "2001:db8:1::2", [0x66, 0, 0, 0, 0, 2]),
        remote("far", "198.51.100.2", "2001:db8:2::2", FAR_VTEP_MAC),
        Update::Pool(pool("10.65.0.0/16")),
        Update::Pool(pool("fd00:65::/48")),
        route("10.65.0.0/26", RouteTarget::LocalBlock),
        route("fd00:65::/122", RouteTarget::LocalBlock),
        route("10.65.1.0/26", to("near", Encap::None)),
        route("10.65.2.0/26", to("far", Encap::Ipip)),
        route("10.65.3.0/26", to("far", Encap::Vxlan)),
        route("fd00:65:0:1::/122", to("near", Encap::None)),
        route("fd00:65:0:3::/122", to("far", Encap::Vxlan)),
    ]
}

fn remote(name: &str, v4: &str, v6: &str, vtep: [u8; 6]) -> Update {
    let (name, vtep_mac) = (name.into(), Mac(vtep));
    let (v4, v6) = (v4.parse().ok(), v6.parse().ok());
    Update::Remote(Arc::new(RemoteNode { name, v4, v6, vtep_mac }))
}

/// The addresses of both pods in text, by family.
pub fn pods(v4: bool) -> [&'static str; 2] {
    if v4 { ["10.65.0.2", "10.65.0.3"] } else { ["fd00:65::2", "fd00:65::3"] }
}

/// `ADDR:PORT` in text.
pub fn at(addr: &str, port: u16) -> String {
    std::net::SocketAddr::new(addr.parse::<IpAddr>().unwrap(), port).to_string()
}
