//! What workers write of the flow table that they share, line by line: a hit writes the line of its own
//! connection and direction, and nothing that another worker's hit writes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use margay_engine::{Batch, Counters, Engine, Fate, Frame, PortId};
use margay_tables::flow::{FlowConfig, FlowTable, Region};

use super::support::*;

/// Connections of each kind.
const EACH: u16 = 32;

/// A cache line.
const LINE: usize = 64;

/// A node whose flow table lies in a file, where what was written can be seen.
struct Glass {
    node: Node,
    file: File,
    bytes: Vec<u8>,
}

// === impl Glass ===

impl Glass {
    /// `name` is the test's, for the file.
    fn new(name: &str) -> Self {
        let config = FlowConfig { v4: 512, v6: 512, participants: 4, denial_share: 8 };
        let path = std::env::temp_dir().join(format!("margay-{name}-{}", std::process::id()));
        let bytes = FlowTable::required_bytes(&config).unwrap();
        let region = Region::file(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let table = FlowTable::create(region, &config, 0x5eed, 1).unwrap();
        let mut node = Node::with_table(table, base_state());
        node.change(|state| {
            serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"]));
            isolate(state, "b", Some(vec![allow_ports(17, 1, 2), allow()]), None);
        });
        Self { node, file, bytes: vec![0; bytes] }
    }

    /// The lines that were written since the last look.
    fn written(&mut self) -> BTreeSet<usize> {
        let mut now = vec![0; self.bytes.len()];
        self.file.read_exact_at(&mut now, 0).unwrap();
        let lines = now.chunks(LINE).zip(self.bytes.chunks(LINE)).enumerate();
        let written = lines.filter(|(_, (new, old))| new != old).map(|(line, _)| line).collect();
        self.bytes = now;
        written
    }

    /// Has a worker forward the packets, a millisecond after the last ones.
    fn carry(&mut self, worker: &mut Engine<'_>, from: PortId, packets: &[Ip]) -> BTreeSet<usize> {
        self.node.now += 1;
        for packets in packets.chunks(EACH.into()) {
            let frames = packets.iter().map(|packet| frame_from(from, packet));
            let mut chunks: Vec<_> =
                frames.map(|frame| [&[0; HEADROOM][..], &frame].concat()).collect();
            let mut batch = Batch::default();
            for chunk in &mut chunks {
                let len = chunk.len() - HEADROOM;
                batch.frames.push(Frame::new(chunk, HEADROOM, len, ingress(from)));
            }
            worker.run(&self.node.snapshot, self.node.now, &mut batch);
            let gone = |fate: &Fate| matches!(fate, Fate::Forward(_));
            assert!(batch.fates.iter().all(gone), "{:?}", batch.fates);
        }
        self.written()
    }
}

/// The nth packet of each connection from pod a: segments to pod b, bare and through a service,
/// datagrams, packets of IPv6.
fn asked(nth: u32) -> Vec<Ip> {
    let sent = |segment: Ip| segment.numbered(1_000 + 5 * nth, 1_000 + 5 * nth);
    let of_port = |port: u16| {
        [
            sent(tcp(&at("10.65.0.2", port), "10.65.0.3:80", ACK)),
            sent(tcp(&at("10.65.0.2", port), "10.96.0.10:80", ACK)),
            udp(&at("10.65.0.2", port), "10.65.0.3:53"),
            sent(tcp(&at("fd00:65::2", port), "[fd00:65::3]:80", ACK)),
        ]
    };
    (2_000..2_000 + EACH).flat_map(of_port).collect()
}

/// What pod b answers to them.
fn answered(nth: u32) -> Vec<Ip> {
    let to_backend = |packet: Ip| match packet.dst == ip("10.96.0.10") {
        true => packet.to("10.65.0.3:8080"),
        false => packet,
    };
    let answer =
        |packet: Ip| to_backend(packet).answer().numbered(1_000 + 5 * nth, 1_005 + 5 * nth);
    asked(nth).into_iter().map(answer).collect()
}

#[test]
fn a_hit_writes_the_line_of_its_direction_and_no_other_workers() {
    let mut glass = Glass::new("hits");
    let worker = || Engine::new(glass.node.table, Arc::new(Counters::default())).unwrap();
    let (mut one, mut other) = (worker(), worker());
    glass.carry(&mut one, A, &asked(0));
    glass.carry(&mut other, B, &answered(0));
    let misses = [&one, &other].map(|worker| worker.counters().misses.get());
    for nth in 1..4 {
        let of_one = glass.carry(&mut one, A, &asked(nth));
        let of_other = glass.carry(&mut other, B, &answered(nth));
        assert_eq!(of_one.len(), asked(nth).len(), "a line for each connection");
        assert_eq!(of_other.len(), of_one.len(), "and one for its other direction");
        assert!(of_one.is_disjoint(&of_other), "{of_one:?} {of_other:?}");
    }
    assert_eq!([&one, &other].map(|worker| worker.counters().misses.get()), misses);
}

#[test]
fn a_first_packet_writes_more_and_that_is_seen() {
    let mut glass = Glass::new("firsts");
    let mut worker = Engine::new(glass.node.table, Arc::new(Counters::default())).unwrap();
    glass.written();
    let written = glass.carry(&mut worker, A, &asked(0)[..1]);
    // The mark of fresh records, a bucket for each of two keys, the two lines of the record.
    assert_eq!(written.len(), 5, "{written:?}");
}
